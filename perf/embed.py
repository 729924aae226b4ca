"""`earshot embed` on real clips, beside decoding them and running the network on their windows.

    python -m perf.embed CLIPS MODEL [--clips 79] [--hop 0.1]
    python -m perf.embed CLIPS MODEL --scaling 3 [--clips 79] [--hop 0.1]
    python -m perf.embed CLIPS MODEL --assert       # exits with 1 if a bound does not hold

The three kinds of work are done in turn on each clip, after one clip that warms up; a round is some of the clips.
Processor time is that of the program and of the process that decodes for it. With --scaling, the command runs instead
so many times with one worker and with two, of one thread each, in turn; their start counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from earshot.embedding import files
from earshot.embedding.files import EmbedTask
from earshot.embedding.loading import load
from earshot.embedding.moments import AT_ONCE
from earshot.media.clips import MediaFile, write_listing
from perf.rounds import Ratio, Rounds, Speed, end, in_turns, parser_of, print_speeds, report, timed

ROUNDS = 6
COST, SCALING = 1.3, 1.7
Seconds = tuple[float, float]  # of the processors and by the clock


def main() -> None:
    """Run the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=79)
    parser.add_argument("--hop", type=float, default=0.1)
    parser.add_argument("--scaling", type=int, default=0, metavar="ROUNDS")
    options = parser.parse_args()
    clips = sorted(options.folder.glob("*.mp4"))[: options.clips]
    if len(clips) < 2:
        sys.exit(f"{options.folder}: {len(clips)} clips (*.mp4), expected two or more; name a folder of clips")
    if options.scaling:
        kinds = {f"{workers} workers": partial(command, options, clips, workers) for workers in (1, 2)}
        speeds = in_turns(kinds, options.scaling, warm_up=0)
    else:
        speeds = measure(options, clips)
    print_speeds("clips a second", speeds)
    end(options, report(ratios(speeds)))


def ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """What was measured beside its bound."""
    if "embed" not in speeds:
        return [Ratio.of("two workers / one", speeds["2 workers"], speeds["1 workers"], by="clock", least=SCALING)]
    return [Ratio.of("cost over decode + forward", speeds["bare"], speeds["embed"], by="processor", most=COST)]


def measure(options: argparse.Namespace, clips: list[Path]) -> dict[str, list[Speed]]:
    """Clips a second of `embed`, of its two parts, and of both parts together."""
    torch.set_num_threads(1)
    model, reader = load(options.model), files._reader()
    seconds: list[dict[str, Seconds]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = EmbedTask(options.model, "encoder", None, options.hop, True, False, 600.0, folder / "a.parquet", folder)
        for number, path in enumerate(clips):
            clip = MediaFile(path.stem, "", path.resolve(), 0, path.stat().st_size, source=str(path))
            write_listing(task.listing(number), [clip])
            pieces: list[Any] = []
            decode = spent(reader, lambda clip=clip, pieces=pieces: pieces.extend(read(reader, model, clip, options)))
            windows, frames = inputs_like(pieces, model, options.hop)
            forward = spent(reader, partial(run, model, windows, frames))
            embed = spent(reader, partial(files.embed_shard, task, number))  # the first loads the model once more
            bare = decode[0] + forward[0], decode[1] + forward[1]
            seconds.append({"embed": embed, "decode": decode, "forward": forward, "bare": bare})
    return in_rounds(seconds[1:])


def in_rounds(seconds: list[dict[str, Seconds]], rounds: int = ROUNDS) -> dict[str, list[Speed]]:
    """Clips a second in each round, from the seconds of every clip; each round has its share of all clips."""
    parts = [seconds[first::rounds] for first in range(min(rounds, len(seconds)))]
    return {
        name: [Speed(*(len(part) / sum(clip[name][i] for clip in part) for i in range(2))) for part in parts]
        for name in seconds[0]
    }


def read(reader: Any, model: Any, clip: MediaFile, options: argparse.Namespace) -> list[Any]:
    """The pieces of a clip."""
    return list(reader.read(clip.path, model.stream_options(options.hop)))


def inputs_like(pieces: list[Any], model: Any, hop: float) -> tuple[np.ndarray, np.ndarray]:
    """As many windows of sound and images as the pieces give."""
    samples = sum(len(piece.samples()) for piece in pieces) / max(piece.rate for piece in pieces)
    windows = np.random.default_rng(0).standard_normal((round(samples / hop) - 4, 48_000, 1), "float32")
    images = sum(len(piece.counts) for piece in pieces)
    return windows, np.zeros((images, model.image_size, model.image_size, 3), np.uint8)


def run(model: Any, windows: np.ndarray, frames: np.ndarray) -> None:
    """The network on windows and images."""
    for first in range(0, len(windows), AT_ONCE):
        model.embed_windows(windows[first : first + AT_ONCE], 48_000)
    for first in range(0, len(frames), AT_ONCE):
        model.embed_frames(frames[first : first + AT_ONCE])


def spent(reader: Any, work: Callable[[], object]) -> Seconds:
    """Seconds of work: of the processors, with the process that decodes, and by the clock."""
    processor, clock = processor_time(reader), time.perf_counter()
    work()
    return processor_time(reader) - processor, time.perf_counter() - clock


def processor_time(reader: Any) -> float:
    """Processor seconds of this process and of the one that decodes."""
    running = reader.child._running
    own = time.process_time()
    if running is None:
        return own
    used = psutil.Process(running.process.pid).cpu_times()
    return own + used.user + used.system


def command(options: argparse.Namespace, clips: list[Path], workers: int) -> Speed:
    """Clips a second of the command with so many workers."""
    # One worker works in the command's own process, where torch would use all cores.
    settings = os.environ | {"EARSHOT_WORKERS": str(workers), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        output = ["--output", str(Path(name) / "a.parquet"), "--hop", str(options.hop)]
        words = [*map(str, clips), "--model", options.model, *output]
        run_command = partial(
            subprocess.run, [sys.executable, "-m", "earshot", "embed", *words], check=True, env=settings
        )
        return timed(run_command, len(clips))


if __name__ == "__main__":
    main()
