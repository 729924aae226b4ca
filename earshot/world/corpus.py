"""The corpus of the sample: `videos/*.mp4` and a manifest.csv with the columns `path,start,end,group,annotations`."""

import csv
from collections.abc import Iterable
from pathlib import Path

from earshot.core.files import write_atomically
from earshot.world.media import write_video
from earshot.world.scenes import plan_clip, render_clip


def video_name(number: int) -> str:
    """The path of a clip's video within the corpus."""
    return f"videos/scene_{number:06d}.mp4"


def render_corpus(
    folder: Path, seed: int, numbers: Iterable[int], *, image_size: int, seconds: float, frame_rate: float
) -> None:
    """Render the videos with these numbers."""
    for number in numbers:
        clip = render_clip(seed, number, image_size=image_size, seconds=seconds, frame_rate=frame_rate)
        write_video(folder / video_name(number), clip)


def write_manifest(folder: Path, seed: int, clips: int, seconds: float) -> None:
    """Write the list of all clips: each is a whole video and a group of its own, annotated with its kinds."""
    with (
        write_atomically(folder / "manifest.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "start", "end", "group", "annotations"])
        for number in range(clips):
            kinds = ";".join(plan_clip(seed, number).annotations)
            rows.writerow([video_name(number), 0, f"{seconds:g}", f"scene_{number:06d}", kinds])
