"""The cost of the exhibit units: AlexNet's conv5 at its full width and 227 px, with both controls, and its galleries.

    python -m perf.explain                                 # 500 and 2,000 frames
    python -m perf.explain --frames 500 20000 --assert     # exits with 1 if a bound does not hold

Frames are those of the clips under the folder that EARSHOT_REAL_DATA names, 256 px on the short side as in the papers,
each there under many names; rendered images where it names none. Images with boxes are rendered. The very stage
runs, in a process of its own with two threads. Measured for every number of frames:

- seconds by the clock and of the processors; other work on the machine slows the first much and the second less
- megabytes at the peak of memory, a third of them the weights of the three networks
- growth: the processors' seconds of the most frames over those of the fewest, over how many times as many they are.
  Below 1 there is a fixed part: annotated images, receptive fields, galleries
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from PIL import Image

from earshot.corpus.split import split_of
from earshot.networks.backbones import build_network
from earshot.networks.files import ENCODERS, save_architecture, save_weights
from earshot.scenes.annotations import write_annotations
from earshot.scenes.writing import Scene, write_scenes
from earshot.world.scenes import render_image
from earshot.world.sources import KINDS
from earshot.world.voc import render_voc, write_image_sets
from perf.rounds import end, parser_of

REPOSITORY = Path(__file__).resolve().parent.parent
FRAMES = (500, 2000)
FRAMES_A_CLIP, CLIPS_A_SHARD = 10, 250
DISTINCT, SHORT_SIDE, QUALITY = 400, 256, 90
FITTED = 30  # images each of train and val, which the exhibit does not read
MINUTES, MOST = 15.0, 20_000  # by the clock, for so many frames or fewer
EVEN, FLAT = 1.1, 1.2  # the same run takes up to a tenth more memory or less
THREADS = 2
RATE = 8000  # Hz; the exhibit reads no sound


@dataclass(frozen=True)
class Cost:
    """The cost for a number of frames: clock and processor seconds, megabytes at the peak."""

    frames: int
    clock: float
    processors: float
    memory: float


def jpeg_of(image: Image.Image) -> bytes:
    """A frame as the table of scenes keeps it."""
    scale = SHORT_SIDE / min(image.size)
    file = io.BytesIO()
    image.resize([round(side * scale) for side in image.size]).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def real_frames(folder: Path) -> Iterator[bytes]:
    """Frames of all clips of a folder by turns, a few of each."""
    for number in range(DISTINCT):
        files = sorted(folder.iterdir())
        try:
            with av.open(str(files[number % len(files)])) as container:
                index = number // len(files) * 7
                yield jpeg_of(next(islice(container.decode(video=0), index, None)).to_image())
        except (av.FFmpegError, IndexError, StopIteration):
            continue  # some of the material is there because it cannot be decoded


def rendered_frames() -> Iterator[bytes]:
    """Images of the rendered world."""
    for number in range(DISTINCT):
        kinds = (KINDS[number % len(KINDS)],)
        image, *_ = render_image(0, "benchmark", number, image_size=SHORT_SIDE, kinds=kinds)
        yield jpeg_of(Image.fromarray(image))


def write_corpus(root: Path, distinct: list[bytes], frames: int) -> None:
    """Tables of so many frames of the test split, ten a clip, a clip a source video, with one annotation each."""
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(RATE), RATE, format="FLAC")
    groups = (name for name in map("video_{}".format, count()) if split_of(name) == "test")
    jpegs, shard, left = cycle(distinct), 0, frames
    while left > 0:
        scenes = []
        while left > 0 and len(scenes) < CLIPS_A_SHARD:
            taken, group = list(islice(jpegs, min(FRAMES_A_CLIP, left))), next(groups)
            times = np.arange(len(taken), dtype=float).tolist()
            scenes.append(Scene(f"{group}_0", group, 10.0, taken, times, silence.getvalue(), RATE, 1))
            left -= len(taken)
        write_scenes(root / f"data/scenes/{shard:05d}.parquet", scenes)
        annotations = {scene.clip_id: [KINDS[number % len(KINDS)]] for number, scene in enumerate(scenes)}
        (root / "data/annotations").mkdir(parents=True, exist_ok=True)
        write_annotations(root / f"data/annotations/{shard:05d}.parquet", annotations)
        shard += 1


def write_encoders(folder: Path) -> None:
    """Three full-width AlexNets with random weights."""
    for seed, name in enumerate(ENCODERS):
        torch.manual_seed(seed)
        network = build_network("alexnet", classes=30, width=1.0, image_size=227, dropout=0.2)
        save_architecture(folder, network)
        save_weights(folder, name, network)


def write_dataset(folder: Path, images: int) -> None:
    """A VOC dataset with so many test images."""
    render_voc(folder, 0, range(1, images + 2 * FITTED + 1), image_size=SHORT_SIDE)
    write_image_sets(folder, train=FITTED, val=FITTED, test=images)


def measure(root: Path, frames: int) -> Cost:
    """Run the stage on the tables under a root."""
    stage = ["-m", "stages.explain", "--exhibit", "units", "--params", str(REPOSITORY / "params.yaml")]
    changed = {
        "explain.units.data_dir": "data_dir",
        "explain.units.encoder": "models",
        "explain.units.frames": frames,
        "corpus.clips": "data/scenes",  # the exhibit reads neither
        "corpus.ontology": "data/scenes",
    }
    settings = [word for name, value in changed.items() for word in ("--set", f"{name}={value}")]
    environment = os.environ | {"EARSHOT_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
    environment |= {"EARSHOT_DEVICE": "cpu", "PYTHONPATH": str(REPOSITORY)}
    began = time.perf_counter()
    command = [sys.executable, *stage, "--root", str(root), *settings]
    _, status, used = os.wait4(os.spawnve(os.P_NOWAIT, sys.executable, command, environment), 0)
    if status:
        sys.exit(f"explain: the stage failed on {frames:,} frames")
    clock = time.perf_counter() - began
    return Cost(frames, clock, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def report(costs: list[Cost]) -> list[str]:
    """Print the measurements; return the bounds that do not hold."""
    print(f"{'frames':>8}{'clock, s':>10}{'processors, s':>15}{'peak, MB':>10}")
    for cost in costs:
        print(f"{cost.frames:>8,}{cost.clock:>10.0f}{cost.processors:>15.0f}{cost.memory:>10.0f}")
    bounds = [
        (cost.clock <= 60 * MINUTES, f"{cost.frames:,} frames take {cost.clock / 60:.1f} minutes")
        for cost in costs
        if cost.frames <= MOST
    ]
    few, many = costs[0], costs[-1]
    if many.frames > few.frames:
        slope = (many.processors - few.processors) / (many.frames - few.frames)
        growth = many.processors / few.processors * few.frames / many.frames
        memory = many.memory / few.memory
        print(f"{1000 * slope:.1f} ms of a processor a frame and {few.processors - slope * few.frames:.0f} s for all")
        print(f"growth {growth:.2f}, of memory {memory:.2f}")
        bounds.append((growth <= EVEN, f"time grows {growth:.2f} times as fast as frames"))
        bounds.append((memory <= FLAT, f"memory grows {memory:.2f} times"))
    return [fault for holds, fault in bounds if not holds]


def main() -> None:
    """Measure and print; with --assert, fail if a bound does not hold."""
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES, help="how many, the fewest first")
    parser.add_argument("--images", type=int, default=500, help="annotated images (VOC2007 has 4952)")
    options = parser.parse_args()
    material = os.environ.get("EARSHOT_REAL_DATA")
    distinct = list(real_frames(Path(material).resolve() / "clips") if material else rendered_frames())
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        write_encoders(Path(folder, "models"))
        write_dataset(Path(folder, "data_dir"), options.images)
        for frames in options.frames:
            root = Path(folder, str(frames))
            root.mkdir()
            for name in ("models", "data_dir"):
                (root / name).symlink_to(Path(folder, name))
            write_corpus(root, distinct, frames)
            costs.append(measure(root, frames))
    faults = report(costs)
    end(options, faults)


if __name__ == "__main__":
    main()
