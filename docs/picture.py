"""Draw the README's picture: frames of the rendered corpus above the sound around them, in columns by label.

    python -m docs.picture            # after `make repro`; writes docs/labels.png

A cochleagram shows 32 channels, low to high, over 3.75 s. Of eight labels, the three moments nearest to the centroid.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile
from PIL import Image, ImageDraw

from earshot.pipeline.shards import shard_paths
from earshot.sound.cochlea import cochleagrams
from earshot.sound.windows import cut_windows, fitted_windows

COLUMNS, ROWS = 8, 3
WIDTH, HEIGHT, SOUND, GAP = 150, 112, 48, 6  # px of a frame, of the cochleagram below it, and between them
SECONDS = 3.75


def nearest_moments(labels: Path) -> list[list[tuple[int, str, int]]]:
    """For the most frequent labels, the kept moments nearest to the centroid, one a clip: (shard, clip_id, moment)."""
    rows = []
    for shard, path in enumerate(shard_paths(labels, ".parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["label"] >= 0:
                rows.append((row["label"], row["distance"], shard, row["clip_id"], row["moment"]))
    counts = np.bincount([row[0] for row in rows])
    chosen = []
    for label in np.argsort(-counts)[:COLUMNS]:
        near = sorted(row for row in rows if row[0] == label)
        one_a_clip = {clip: (shard, clip, moment) for _, _, shard, clip, moment in reversed(near)}
        order = {clip: place for place, (_, _, _, clip, _) in reversed(list(enumerate(near)))}
        chosen.append(sorted(one_a_clip.values(), key=lambda moment: order[moment[1]])[:ROWS])
    return chosen


def draw_moment(scene: dict, moment: int) -> Image.Image:
    """A frame with the cochleagram of the sound around it below."""
    tile = Image.new("RGB", (WIDTH, HEIGHT + SOUND), "white")
    frame = Image.open(io.BytesIO(scene["frames"][moment])).convert("RGB")
    scale = max(WIDTH / frame.width, HEIGHT / frame.height)
    frame = frame.resize((round(frame.width * scale), round(frame.height * scale)))
    left, top = (frame.width - WIDTH) // 2, (frame.height - HEIGHT) // 2
    tile.paste(frame.crop((left, top, left + WIDTH, top + HEIGHT)), (0, 0))
    sound, rate = soundfile.read(io.BytesIO(scene["sound"]), dtype="float32", always_2d=True)
    windows, _ = cut_windows(sound, rate, np.array([scene["times"][moment]]), SECONDS)
    channels = cochleagrams(fitted_windows(windows, rate))[0]
    dark = 255 - 255 * np.clip(channels / np.percentile(channels, 99), 0, 1)
    picture = Image.fromarray(dark[::-1].astype(np.uint8)).resize((WIDTH, SOUND - 4), Image.Resampling.BOX)
    tile.paste(picture, (0, HEIGHT + 4))
    return tile


def main() -> None:
    """Read the tables of the run in this folder and write the picture."""
    size = (COLUMNS * (WIDTH + GAP) + GAP, ROWS * (HEIGHT + SOUND + GAP) + 22)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    scenes = shard_paths(Path("data/scenes"), ".parquet")
    for column, moments in enumerate(nearest_moments(Path("data/labels"))):
        pen.text((GAP + column * (WIDTH + GAP), 4), f"label {column + 1}", fill="black")
        for row, (shard, clip_id, moment) in enumerate(moments):
            scene = pq.read_table(scenes[shard], filters=[("clip_id", "=", clip_id)]).to_pylist()[0]
            place = (GAP + column * (WIDTH + GAP), 22 + row * (HEIGHT + SOUND + GAP))
            sheet.paste(draw_moment(scene, moment), place)
    sheet.quantize(128).save("docs/labels.png", optimize=True)


if __name__ == "__main__":
    main()
