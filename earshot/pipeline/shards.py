"""Shards: every table is a folder of numbered files, and a stage maps over their numbers.

Each shard is processed once: after its files, the worker writes its counts as a marker, so that a run after a kill
continues with the shards that have no marker.
"""

import contextlib
import json
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import joblib
from joblib.externals.loky import process_executor
from joblib.externals.loky.backend import resource_tracker
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.pipeline.settings import settings

Work = Callable[[int], dict[str, int]]
Result = TypeVar("Result")


def map_shards(
    work: Work,
    numbers: Sequence[int],
    markers: Path,
    *,
    title: str,
    cluster: str | None = None,
    reads: Sequence[Path] = (),
) -> Counter[str]:
    """Run `work(number)` for every number without a marker, on all workers; return the summed counts of all shards.

    The workers belong to this machine or to a Dask `cluster`, which must see the files and folders that the work
    `reads` at the same paths. `work` is picklable, writes its files atomically and returns its counts. If a worker
    dies (out of memory, killed), its shard is processed again.

    Raises whatever `work` raises; finished shards keep their markers. Raises EarshotError if the workers of a shard die
    repeatedly, after all other shards are done.
    """
    markers.mkdir(parents=True, exist_ok=True)
    pending = [number for number in numbers if not _marker(markers, number).exists()]
    with tqdm(
        total=len(numbers), initial=len(numbers) - len(pending), desc=title, unit="shard", leave=False, disable=None
    ) as bar:
        if cluster and pending:
            from earshot.pipeline.cluster import run_on_cluster  # takes a second to import

            marked = partial(do_and_mark, work, markers)
            died = run_on_cluster(marked, pending, cluster, scratch=markers, reads=reads, done=bar.update)
        else:
            died = _run_here(work, pending, markers, title, bar)
    if died:
        raise EarshotError(
            f"shards {', '.join(map(shard_name, died))}: their workers died repeatedly, usually because of too "
            "little memory; the other shards are kept: run again with EARSHOT_WORKERS=1, or with more memory"
        )
    return sum((Counter(json.loads(_marker(markers, number).read_text())) for number in numbers), Counter())


def first_result(work: Callable[[], Result], tasks: int) -> Result:
    """What `work()` returns. All workers that so many tasks will have compute it, so that they are ready for the tasks.

    With one worker it runs in this process. Raises whatever `work` raises, and EarshotError if a worker dies.
    """
    processes = min(settings().workers, max(tasks, 1))
    with joblib.parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
        calls = [joblib.delayed(_result_here)(work, os.getpid())] * processes
        with _interrupts_wait() if processes > 1 else contextlib.nullcontext():
            results = joblib.Parallel(batch_size=1, return_as="generator")(calls)
        try:
            return list(results)[0]
        except TerminatedWorkerError:
            advice = "run again with EARSHOT_WORKERS=1, or with more memory"
            raise EarshotError(f"a worker died at its start, usually because of too little memory; {advice}") from None


def _result_here(work: Callable[[], Result], parent: int) -> Result:
    end_with(parent)
    if os.getpid() != parent:
        # Loky restarts a worker that grows by 300 MB after its first task, as a leak. After this one all grow.
        process_executor._USE_PSUTIL = False
    return work()


def _run_here(work: Work, numbers: Sequence[int], markers: Path, title: str, bar: tqdm) -> list[int]:
    """Process all shards on this machine's workers; return those whose worker died twice."""
    try:
        _run_parallel(work, numbers, markers, settings().workers, bar)
    except TerminatedWorkerError:
        left = [number for number in numbers if not _marker(markers, number).exists()]
        warnings.warn(f"{title}: a worker died; retrying {len(left)} shards one at a time", stacklevel=3)
        return _run_one_by_one(work, left, markers, bar)
    return []


def _run_parallel(work: Work, numbers: Sequence[int], markers: Path, workers: int, bar: tqdm) -> None:
    tasks: Iterable = (joblib.delayed(_do_here)(work, number, markers, os.getpid()) for number in numbers)
    processes = min(workers, max(len(numbers), 1))
    with joblib.parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
        # A batch of one: otherwise joblib may reserve several shards for one worker while another is idle.
        with _interrupts_wait() if processes > 1 else contextlib.nullcontext():  # one works in this process
            finished = joblib.Parallel(batch_size=1, return_as="generator_unordered")(tasks)
        for _ in finished:
            bar.update()


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Block Ctrl-C while worker processes start: they inherit the block, and only this process ends with one line."""
    for tracker in (resource_tracker, multiprocessing.resource_tracker):
        tracker.ensure_running()  # otherwise its start would end the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_one_by_one(work: Work, numbers: Sequence[int], markers: Path, bar: tqdm) -> list[int]:
    """Process these shards one after another; return those whose worker died."""
    died = []
    for number in numbers:
        try:
            # Two workers, one task: with one worker joblib would run the task in this process.
            with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
                joblib.Parallel(batch_size=1)([joblib.delayed(_do_here)(work, number, markers, os.getpid())])
            bar.update()
        except TerminatedWorkerError:
            died.append(number)
    return died


def _do_here(work: Work, number: int, markers: Path, parent: int) -> None:
    end_with(parent)
    do_and_mark(work, markers, number)


def do_and_mark(work: Work, markers: Path, number: int) -> None:
    """Process one shard, then write its counts as its marker; skips a shard that has a marker.

    Dask repeats a task if it loses the worker that holds its result.
    """
    if _marker(markers, number).exists():
        return
    counts = work(number)
    with write_atomically(_marker(markers, number)) as temporary:
        temporary.write_text(json.dumps(counts))


@cache
def end_with(parent: int) -> None:
    """End this process when its parent is killed; otherwise it would compete with the next run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.getpid() != parent:
        threading.Thread(target=watch, daemon=True).start()


def _marker(markers: Path, number: int) -> Path:
    return markers / f"{shard_name(number)}.json"
