"""Processor seconds of `earshot embed` on real clips, beside decoding them and running the network on their windows.

    python -m perf.embed CLIPS MODEL [--clips 79] [--hop 0.1] [--scaling 3]

The three kinds of work are done in turn on each clip, so that a busy machine slows all alike. With --scaling, the
command runs instead so many times with one worker and with two, in turn, and the times by the clock are compared.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from earshot.embedding import files
from earshot.embedding.files import EmbedTask
from earshot.embedding.loading import load
from earshot.embedding.moments import AT_ONCE
from earshot.media.clips import MediaFile, write_listing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=79)
    parser.add_argument("--hop", type=float, default=0.1)
    parser.add_argument("--scaling", type=int, default=0, metavar="ROUNDS")
    options = parser.parse_args()
    if options.scaling:
        compare_workers(options)
        return
    torch.set_num_threads(1)
    model, reader = load(options.model), files._reader()
    totals = dict.fromkeys(("decode", "forward", "embed"), 0.0)
    with tempfile.TemporaryDirectory() as name:
        task = EmbedTask(
            options.model, "encoder", None, options.hop, True, False, 600.0, Path(name) / "a.parquet", Path(name)
        )
        for number, path in enumerate(sorted(options.folder.glob("*.mp4"))[: options.clips]):
            clip = MediaFile(path.stem, "", path.resolve(), 0, path.stat().st_size, source=str(path))
            write_listing(task.listing(number), [clip])
            began = seconds(reader)
            pieces = list(reader.read(clip.path, model.stream_options(options.hop)))
            images = sum(len(piece.counts) for piece in pieces)
            totals["decode"] += seconds(reader) - began
            samples = sum(len(piece.samples()) for piece in pieces) / max(piece.rate for piece in pieces)
            windows = np.random.default_rng(0).standard_normal((round(samples / options.hop) - 4, 48_000, 1), "float32")
            frames = np.zeros((images, model.image_size, model.image_size, 3), np.uint8)
            began = seconds(reader)
            for first in range(0, len(windows), AT_ONCE):
                model.embed_windows(windows[first : first + AT_ONCE], 48_000)
            for first in range(0, len(frames), AT_ONCE):
                model.embed_frames(frames[first : first + AT_ONCE])
            totals["forward"] += seconds(reader) - began
            began = seconds(reader)
            files.embed_shard(task, number)
            if number:  # the first loads the model once more
                totals["embed"] += seconds(reader) - began
            else:
                totals = dict.fromkeys(totals, 0.0)
    bare = totals["decode"] + totals["forward"]
    print(
        {name: round(value, 2) for name, value in totals.items()},
        f"embed / (decode + forward) {totals['embed'] / bare:.2f}",
    )


def compare_workers(options: argparse.Namespace) -> None:
    """The command's time by the clock with one worker over that with two, of one thread each; their start counts."""
    clips = sorted(options.folder.glob("*.mp4"))[: options.clips]
    ratios = []
    for _ in range(options.scaling):
        took = []
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as name:
                output = ("--output", str(Path(name) / "a.parquet"), "--hop", str(options.hop))
                command = [
                    sys.executable,
                    "-m",
                    "earshot",
                    "embed",
                    *map(str, clips),
                    "--model",
                    options.model,
                    *output,
                ]
                began = time.perf_counter()
                # One worker works in the command's own process, where torch would use all cores.
                settings = {"EARSHOT_WORKERS": str(workers), "OMP_NUM_THREADS": "1"}
                subprocess.run(command, check=True, env=os.environ | settings)
                took.append(time.perf_counter() - began)
        ratios.append(took[0] / took[1])
        print(f"one worker {took[0]:.1f} s, two {took[1]:.1f} s: {ratios[-1]:.2f} times")
    print(f"two workers are {statistics.median(ratios):.2f} times as fast as one (median of {len(ratios)})")


def seconds(reader) -> float:
    """Processor seconds of this process and of the one that decodes."""
    running = reader.child._running
    own = time.process_time()
    if running is None:
        return own
    used = psutil.Process(running.process.pid).cpu_times()
    return own + used.user + used.system


if __name__ == "__main__":
    main()
