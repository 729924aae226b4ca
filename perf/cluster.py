"""The gain of a second worker, and the cost of a Dask cluster relative to local workers, on real clips.

    EARSHOT_REAL_DATA=/path/to/material python -m perf.cluster
    python -m perf.cluster --assert          # exits with 1 if a bound does not hold

Takes two minutes of a free machine's two processors. Reads the folder clips under the one that EARSHOT_REAL_DATA names,
extracts ten frames of 256 px (as in the papers) and all the sound, and starts a scheduler and two workers of its own.
Other work on the machine slows the clock times, so everything is also measured in processor time:
of all processes, the stage's, its workers', their decoders', the scheduler's. What is compared runs in turns. On a very
busy machine both mislead: a cluster that waits still talks to itself, a few hundredths of a processor all the while.

- a second worker: clips a second with two workers over clips a second with one. By the processors: how much more
  processor time the same clips take when two workers share the machine, as the gain that two free processors give
- Dask: the time with two workers of a cluster over the time with two of this machine's own
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from perf.extract import PAPERS, extract, list_shards, real_clips
from perf.rounds import end, parser_of

REPOSITORY = Path(__file__).parent.parent
SHARDS, WORKERS = 10, 2
GAIN, COST = 1.7, 1.1


class Cluster:
    """A scheduler and its workers as processes of this one."""

    def __init__(self, folder: Path) -> None:
        self.log = open(folder / "cluster.log", "wb")  # noqa: SIM115
        file = folder / "scheduler.json"
        here = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        self.processes = [self._start("scheduler", *here, "--scheduler-file", str(file))]
        while not file.exists():
            if self.processes[0].poll() is not None:
                sys.exit(f"dask scheduler: {(folder / 'cluster.log').read_text()}")
            time.sleep(0.1)
        self.address = "tcp://" + file.read_text().partition("tcp://")[2].partition('"')[0]
        options = ["--nworkers", str(WORKERS), "--nthreads", "1", "--dashboard-address", "127.0.0.1:0"]
        self.processes.append(self._start("worker", self.address, *options, "--local-directory", str(folder)))

    def _start(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *words]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=self.log, stderr=self.log)

    def family(self) -> set[psutil.Process]:
        """All of its processes."""
        heads = [psutil.Process(process.pid) for process in self.processes]
        return {*heads, *(member for head in heads for member in head.children(recursive=True))}

    def end(self) -> None:
        """End the workers, then the scheduler."""
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


def processor_time(processes: set[psutil.Process]) -> float:
    """Seconds of processor time of these processes and of their children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def no_work(number: int) -> dict[str, int]:
    """Do nothing: lets a worker start."""
    return {}


def measured(folder: Path, cluster: Cluster, on_cluster: bool, workers: int) -> tuple[float, float]:
    """Seconds of processor time and on the clock to extract all shards, with workers that have started before."""
    os.environ["EARSHOT_WORKERS"] = str(workers)
    settings.cache_clear()
    markers = folder / "finished"
    run = partial(map_shards, title="extracting", cluster=cluster.address if on_cluster else None)
    for work in (no_work, partial(extract, folder=folder, overrides=PAPERS)):
        shutil.rmtree(markers, ignore_errors=True)
        members = cluster.family()
        here = psutil.Process()
        family = {here, *members} if on_cluster else {here, *here.children(recursive=True)} - members
        before, start = processor_time(family), time.perf_counter()
        run(work, range(SHARDS), markers)
        seconds = processor_time(family) - before, time.perf_counter() - start
    return seconds


def measure(clips: list, rounds: int, folder: Path, cluster: Cluster) -> list[dict[str, tuple[float, float]]]:
    """Seconds by the processors and by the clock of each kind of run, a round after the other."""
    list_shards(clips, SHARDS, folder)
    kinds: dict[str, Callable[[], tuple[float, float]]] = {
        "one": partial(measured, folder, cluster, False, 1),
        "two": partial(measured, folder, cluster, False, WORKERS),
        "dask": partial(measured, folder, cluster, True, WORKERS),
    }
    return [{name: run() for name, run in kinds.items()} for _ in range(rounds)]


def report(rounds: list[dict[str, tuple[float, float]]]) -> list[str]:
    """Print the measurements; return the bounds that do not hold."""
    gains = [(WORKERS * each["one"][0] / each["two"][0], each["one"][1] / each["two"][1]) for each in rounds]
    costs = [tuple(each["dask"][i] / each["two"][i] for i in range(2)) for each in rounds]
    print(f"{'':<44}{'processors':>11}{'clock':>8}")
    for name in rounds[0]:
        seconds = [median(each[name][i] for each in rounds) for i in range(2)]
        print(f"{f'seconds: {name}':<46}{seconds[0]:>9.1f}{seconds[1]:>8.1f}")
    medians = {}
    for name, ratios in (
        ("gain from a second worker (at least 1.7)", gains),
        ("Dask over own workers (at most 1.1)", costs),
    ):
        medians[name] = middle = [median(ratio[i] for ratio in ratios) for i in range(2)]
        print(f"{name:<46}{middle[0]:>9.2f}{middle[1]:>8.2f}")
        print(f"{'  lowest and highest by the processors':<46}{min(ratios)[0]:>9.2f}{max(ratios)[0]:>8.2f}")
    gain, cost = medians.values()
    faults = [f"gain {max(gain):.2f}"] if max(gain) < GAIN else []
    return faults + ([f"Dask costs {min(cost):.2f}"] if min(cost) > COST else [])


def main() -> None:
    """Measure everything and print it; with --assert, fail if a bound does not hold."""
    parser = parser_of(__doc__)
    parser.add_argument("--clips", type=int, help="how many of the clips (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of one run of each kind (default: 3)")
    options = parser.parse_args()
    clips = real_clips()
    with tempfile.TemporaryDirectory() as name:
        cluster = Cluster(Path(name))
        try:
            rounds = measure(clips[: options.clips], options.rounds, Path(name), cluster)
        finally:
            cluster.end()
    faults = report(rounds)
    end(options, faults)


if __name__ == "__main__":
    main()
