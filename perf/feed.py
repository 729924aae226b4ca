"""The feed of trainings alone: images and pairs a second and core, beside bare decoding of the same bytes.

    python -m perf.feed                      # on made clips: images of 256 px, ten seconds of sound
    python -m perf.feed --root DIR           # on the tables of scenes and labels under a folder
    python -m perf.feed --set pretrain.image_size=227 --set correspond.image_size=224
    python -m perf.feed --assert             # exits with 1 if a bound does not hold

Takes about a minute and two cores. The feed is what a training reads: batches of the stage pretrain (frames) and of the
stage correspond (pairs), with the parameters of params.yaml, from the tables on disk to tensors, with one worker
thread and with two (EARSHOT_THREADS), then with one and two loader processes (EARSHOT_LOADERS). Every round reads the
first batches again with nothing in memory; `sounds in memory` is a later epoch of pairs, whose sounds were kept when
they were decoded first. Processes are timed over some epochs from the first batch on, so that their start does not
count. Beside it, on one thread:

- bare decoding of the same JPEG bytes, cut to boxes as the feed draws them and resized to the network's size, by each
  library that is here; the fastest is the judge. PyAV cannot cut, and resizes the whole image
- bare decoding of a slice from each of the same sounds, resampled to the network's rate, by each library; the same

Bare decoding of pairs is that of the images and of the sounds of a batch, one after the other. The feed also reads
tables, draws, mirrors, changes colors and makes tensors, which bare decoding does not.
"""

import io
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import soundfile
import soxr
import torch
from PIL import Image
from torch.nn import functional
from torchvision.io import ImageReadMode
from torchvision.io import decode_jpeg as torchvisions

from earshot.core.params import load_params
from earshot.networks.crops import crop_roi
from earshot.pipeline.settings import settings
from perf.gpu import write_data
from perf.rounds import Ratio, Rounds, Speed, end, in_turns, parser_of, print_speeds, report, timed
from perf.steps import STAGES, task_of

ROUNDS = 5
CLIPS, ITEMS = 240, 768  # clips that are made; images or pairs of a round, at most
EPOCHS = 8  # of them, for loader processes
OF_BARE, SCALING = 0.8, 1.8  # the least: of the speed of bare decoding, and of two workers over one
FRAMES, PAIRS, KEPT = "frames", "pairs", "pairs, sounds in memory"

Item = tuple[bytes, tuple[int, int, int, int]]  # a JPEG, and the top, left, height and width of its part


@dataclass(frozen=True)
class Bytes:
    """What a number of batches decode.

    Args:
        images: with the parts to cut out.
        size: of the network's images, px.
        sounds: FLAC of clips, and the second at which a slice begins.
        samples, rate: of a slice.
        items: images, or pairs.
    """

    images: Sequence[Item]
    size: int
    sounds: Sequence[tuple[bytes, float]]
    samples: int
    rate: int
    items: int


def by_torchvision(images: Sequence[Item], size: int) -> None:
    """Torch resizes as the feed does."""
    for jpeg, (top, left, height, width) in images:
        part = torchvisions(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), ImageReadMode.RGB)
        part = part[None, :, top : top + height, left : left + width]
        part = part.contiguous(memory_format=torch.channels_last)
        functional.interpolate(part, (size, size), mode="bilinear", antialias=True)


def by_pillow(images: Sequence[Item], size: int) -> None:
    """Pillow cuts and resizes in one call."""
    for jpeg, (top, left, height, width) in images:
        image = Image.open(io.BytesIO(jpeg))
        part = left, top, left + width, top + height
        np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=part))


def by_opencv(images: Sequence[Item], size: int) -> None:
    """OpenCV resizes by areas where it makes smaller."""
    for jpeg, (top, left, height, width) in images:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        way = cv2.INTER_AREA if min(height, width) > size else cv2.INTER_LINEAR
        cv2.resize(image[top : top + height, left : left + width], (size, size), interpolation=way)


def by_pyav(images: Sequence[Item], size: int) -> None:
    """FFmpeg resizes the whole image."""
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    for jpeg, _ in images:
        for frame in decoder.decode(av.Packet(jpeg)):
            frame.to_ndarray(width=size, height=size, format="rgb24", interpolation="BILINEAR")


def by_soundfile(sounds: Sequence[tuple[bytes, float]], samples: int, rate: int) -> None:
    """libsndfile seeks in the FLAC."""
    for flac, start in sounds:
        with soundfile.SoundFile(io.BytesIO(flac)) as file:
            file.seek(round(start * file.samplerate))
            audio = file.read(-(-samples * file.samplerate // rate), dtype="float32", always_2d=True)
            _resample(audio.mean(axis=1), file.samplerate, rate)


def sounds_by_pyav(sounds: Sequence[tuple[bytes, float]], samples: int, rate: int) -> None:
    """FFmpeg seeks in the FLAC."""
    for flac, start in sounds:
        with av.open(io.BytesIO(flac)) as container:
            stream = container.streams.audio[0]
            container.seek(round(start / stream.time_base), stream=stream)
            parts, needed = [], samples / rate
            for frame in container.decode(stream):
                parts.append(frame.to_ndarray())
                if frame.time + frame.samples / frame.sample_rate >= start + needed:
                    break
            audio = np.concatenate(parts, axis=1).astype(np.float32).mean(axis=0)
            _resample(audio, stream.rate, rate)


def _resample(audio: np.ndarray, own_rate: int, rate: int) -> None:
    if own_rate != rate:
        soxr.resample(audio, own_rate, rate, quality="HQ")


IMAGES = {"torchvision": by_torchvision, "Pillow": by_pillow, "OpenCV": by_opencv, "PyAV": by_pyav}
SOUNDS = {"soundfile": by_soundfile, "PyAV": sounds_by_pyav}


def bytes_of(stage: str, task: Any, batches: int) -> Bytes:
    """The images and sounds of the first batches of a task."""
    jpegs: list[bytes] = []
    sounds: list[tuple[bytes, float]] = []
    for number in range(batches):
        if stage == "pretrain":
            jpegs += [jpeg for jpeg, _ in task.training[number]]
        else:
            clips = [clip for clip, _ in task.training[number]]
            jpegs += [bytes(clip.frames[number % len(clip.frames)]) for clip in clips]
            sounds += [(bytes(clip.sound), max(clip.duration - task.spec.seconds, 0) / 2) for clip in clips]
    boxes = task.augmentation.draw(len(jpegs), np.random.default_rng(0)).boxes
    images = [(jpeg, _part(jpeg, None if boxes is None else boxes[n])) for n, jpeg in enumerate(jpegs)]
    size, (samples, rate) = task.encoder.image_size, (0, 1)
    if sounds:
        samples, rate = task.spec.audio_samples, task.spec.audio_rate
    return Bytes(images, size, sounds, samples, rate, batches * task.batch_size)


def _part(jpeg: bytes, box: np.ndarray | None) -> tuple[int, int, int, int]:
    width, height = Image.open(io.BytesIO(jpeg)).size
    return crop_roi(height, width, box)


@contextmanager
def workers(threads: int, loaders: int = 0) -> Iterator[None]:
    """So many threads or loader processes of a feed."""
    counts = {"EARSHOT_THREADS": str(threads), "EARSHOT_LOADERS": str(loaders)}
    before = {name: os.environ.get(name) for name in counts}
    os.environ.update(counts)
    settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
        settings.cache_clear()


def feed(build: Callable[[], Any], batches: int, count: int) -> Speed:
    """Items a second of the first batches of a task, with so many workers."""
    task = build()
    with workers(count):
        return timed(lambda: deque(task.batches(range(batches)), maxlen=0), batches * task.batch_size)


def feed_by_processes(build: Callable[[], Any], batches: int, loaders: int) -> Speed:
    """Items a second of some epochs of the first batches of a task, after the first one."""
    with workers(1, loaders):
        task = build()
        prepared = task.batches(range(EPOCHS * batches + 1))
        next(prepared)
        return timed(lambda: deque(prepared, maxlen=0), EPOCHS * batches * task.batch_size)


def kinds_of(stage: str, params: Any, root: Path) -> dict[str, Callable[[], Speed]]:
    """What is measured of a stage, by name: its feed, and bare decoding of the same bytes by each library."""
    title = FRAMES if stage == "pretrain" else PAIRS

    def fresh() -> Any:
        task = task_of(stage, params, root)
        if stage == "correspond":
            task._sounds.most = 0  # decodes every sound
        task.training.pool = batches * task.training.batch_size  # reads no more than a round uses
        return task

    task = task_of(stage, params, root)
    batches = min(max(ITEMS // task.batch_size, 1), task.batches_per_epoch)
    data = bytes_of(stage, task, batches)
    kinds = {f"{title}, {count} workers": partial(feed, fresh, batches, count) for count in (1, 2)}
    kinds |= {f"{title}, {count} loaders": partial(feed_by_processes, fresh, batches, count) for count in (1, 2)}
    for name, work in IMAGES.items():
        kinds[f"images by {name}"] = partial(timed, partial(work, data.images, data.size), data.items)
    if data.sounds:
        kept = task_of(stage, params, root)
        kinds |= {f"{KEPT}, {count} workers": partial(feed, lambda: kept, batches, count) for count in (1, 2)}
        for name, decode in SOUNDS.items():
            bare = partial(decode, data.sounds, data.samples, data.rate)
            kinds[f"sounds by {name}"] = partial(timed, bare, data.items)
    return kinds


def fastest(speeds: dict[str, Rounds], kind: str) -> str:
    """The name of the library that decodes images or sounds fastest."""
    rates = {name: median(speed.processor for speed in each) for name, each in speeds.items() if name.startswith(kind)}
    return max(rates, key=lambda name: rates[name]).removeprefix(f"{kind} by ")


def ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """The feed of one stage beside bare decoding, and two workers beside one."""
    titles = [name.removesuffix(", 1 workers") for name in speeds if name.endswith(", 1 workers")]
    best = fastest(speeds, "images")
    results = []
    for title in titles:
        one, two = (speeds[f"{title}, {count} workers"] for count in (1, 2))
        bare, judge = speeds[f"images by {best}"], best
        if title == PAIRS:
            sounds = fastest(speeds, "sounds")
            bare, judge = _both(bare, speeds[f"sounds by {sounds}"]), f"{best}, {sounds}"
        results.append(Ratio.of(f"{title} / {judge}", one, bare, by="processor", least=OF_BARE))
        results.append(Ratio.of(f"{title}, two workers / one", two, one, by="clock", least=SCALING))
        if f"{title}, 1 loaders" in speeds:
            one, two = (speeds[f"{title}, {count} loaders"] for count in (1, 2))
            results.append(Ratio.of(f"{title}, two loaders / one", two, one, by="clock", least=SCALING))
    return results


def _both(images: Rounds, sounds: Rounds) -> list[Speed]:
    """The speed of decoding images and then sounds."""
    return [
        Speed(*(1 / (1 / a + 1 / b) for a, b in zip(*each, strict=True))) for each in zip(images, sounds, strict=True)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--root", type=Path, help="a folder with data/scenes and data/labels (default: made clips)")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder)
        if not options.root:
            write_data(root, CLIPS)
        for stage, (_, model) in STAGES.items():
            params = load_params(model, options.params, options.set)
            threads = getattr(params, stage).num_threads
            if threads != 1:
                sys.exit(f"{stage}.num_threads is {threads}, expected 1: speeds are those of one core")
            speeds = in_turns(kinds_of(stage, params, root), ROUNDS)
            print_speeds(f"{'images' if stage == 'pretrain' else 'pairs'} a second", speeds)
            faults += report(ratios(speeds))
    end(options, faults)


if __name__ == "__main__":
    main()
