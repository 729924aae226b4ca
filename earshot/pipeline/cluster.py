"""Shards on a Dask cluster: what this machine's workers would do, done by processes that share its files and code.

A worker that is lost costs the shards that it had in hand, which go to others. Between client, scheduler and workers
Dask sends pickles, so whoever reaches the scheduler can run code as its user: a cluster belongs to one user, on a
network of their own or behind tls:// with Dask's own configuration of certificates.
"""

import hashlib
import logging
import os
import pickle
import socket
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cloudpickle
from dask.distributed import Client, Future, KilledWorker, wait
from threadpoolctl import threadpool_limits

import earshot
from earshot.core.errors import EarshotError

CONNECTING_SECONDS = 30.0
WITHOUT_WORKERS_SECONDS = 300.0  # a cluster that starts its machines on demand takes minutes
LOOKING_SECONDS = 2.0  # new workers are looked for as often, where no shard ends before
SEEING_SECONDS = 60.0  # a network file system may show what it saw as long ago
# Other versions of these may write other bytes.
PACKAGES = ("av", "faiss-cpu", "numpy", "pillow", "pyarrow", "scipy", "soundfile", "soxr", "torch")

# Pickled as it stands, not by name, so that the scheduler, which unpickles it too, needs none of our code.
OPEN_AND_DO = lambda work, number: pickle.loads(work)(number)  # noqa: E731


@dataclass(frozen=True)
class WorkerEnvironment:
    """What client and workers must have in common: the code, and paths with the second of their last change."""

    code: str
    changed: tuple[tuple[str, int | None], ...]

    @classmethod
    def here(cls, paths: Iterable[Path]) -> "WorkerEnvironment":
        """The ground as this process sees it."""
        return cls(code_digest(), tuple((str(path), _last_change(str(path))) for path in paths))


@dataclass(frozen=True)
class WorkerCheck:
    """What a worker says of itself: its machine, its `fault` or None, and the versions of what makes the results."""

    host: str
    fault: str | None
    versions: dict[str, str]


def run_on_cluster(
    work: Callable[[int], None],
    numbers: Sequence[int],
    address: str,
    *,
    scratch: Path,
    reads: Sequence[Path],
    done: Callable[[], object],
) -> list[int]:
    """Do `work(number)` for every number on the workers of the scheduler at `address`; return those that killed theirs.

    A number is put aside when more of its workers died than the scheduler allows (Dask's setting
    distributed.scheduler.allowed-failures, 3); in the end those are tried once more, alone. As many are in hand at a
    time as the workers have threads. `scratch` is a folder that workers write below, `reads` are the files and folders
    that they read; `done` is called when a number is done.

    Raises whatever `work` raises; EarshotError where there is no scheduler, no worker for five minutes, or a worker
    that has other code or sees other files.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is raised
    token = scratch / f".seen-by-{uuid.uuid4().hex}"
    token.touch()
    try:
        with _connected(address) as client:
            return _Cluster(client, address, WorkerEnvironment.here([token, *reads])).run(work, numbers, done)
    finally:
        token.unlink(missing_ok=True)


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECTING_SECONDS, name="earshot")
    except (OSError, ValueError, TypeError) as error:  # the last where tls:// has no certificates configured
        raise EarshotError(
            f"EARSHOT_CLUSTER is {address}: {error}; start a scheduler there (python -m dask scheduler) or unset it"
        ) from None


class _Cluster:
    """A connection to a scheduler, and those of its workers that stand on the same ground."""

    def __init__(self, client: Client, address: str, ground: WorkerEnvironment) -> None:
        self.client, self.address, self.ground = client, address, ground
        self.checked: set[str] = set()
        self.versions = _versions()
        self.worked = time.monotonic()  # when there was a worker last

    def run(self, work: Callable[[int], None], numbers: Sequence[int], done: Callable[[], object]) -> list[int]:
        """As `run_on_cluster`."""
        packed = cloudpickle.dumps(partial(_do, work, self.ground))
        given_up = self._do_all(packed, numbers, len(numbers), done)
        if given_up:
            # Not one of them need be at fault: workers that are lost together hand a shard from one to the next.
            text = f"{self.address}: workers died; {len(given_up)} shards are tried once more, one at a time"
            warnings.warn(text, stacklevel=5)
        return self._do_all(packed, given_up, 1, done)

    def _do_all(self, work: bytes, numbers: Sequence[int], at_once: int, done: Callable[[], object]) -> list[int]:
        """Do all numbers, so many at once or as many as there are threads; return those that are given up."""
        waiting, given_up = deque(numbers), []
        hand: dict[Future, int] = {}
        while waiting or hand:
            for _ in range(min(self._threads(), at_once, len(hand) + len(waiting)) - len(hand)):
                number = waiting.popleft()
                key = f"earshot-{number}-{uuid.uuid4().hex}"  # Dask takes the same key for the same, finished work
                hand[self.client.submit(OPEN_AND_DO, work, number, key=key, pure=False)] = number
            for future in self._ended(hand):
                number = hand.pop(future)
                if self._is_done(future):
                    done()
                else:
                    given_up.append(number)
        return sorted(given_up)

    def _threads(self) -> int:
        """How many threads the workers have, after those that are new were looked at."""
        try:
            threads = self.client.nthreads()
            self._check(set(threads) - self.checked)
        except (OSError, CancelledError):
            raise self._lost() from None
        if threads:
            self.worked = time.monotonic()
        elif time.monotonic() - self.worked > WITHOUT_WORKERS_SECONDS:
            raise EarshotError(
                f"{self.address}: no worker for {WITHOUT_WORKERS_SECONDS:.0f} s; finished shards are kept: start "
                f"some in the repository's folder (python -m dask worker {self.address} --nthreads 1) and run again"
            )
        return sum(threads.values())

    def _check(self, workers: Collection[str]) -> None:
        """Raise EarshotError where a worker stands on other ground; warn where it has other versions."""
        if not workers:
            return  # Dask would take none for all
        found = self.client.run(check_worker, self.ground, SEEING_SECONDS, workers=list(workers), on_error="return")
        for worker, standing in found.items():
            if isinstance(standing, OSError):  # gone again
                continue
            if not isinstance(standing, WorkerCheck):
                raise EarshotError(
                    f"worker {worker} cannot load this code ({standing}); start it in the repository's folder and with "
                    "its environment: python -m dask worker"
                )
            if standing.fault:
                raise EarshotError(f"worker {worker} on {standing.host} {standing.fault}")
            other = [f"{k} {v}, here {self.versions[k]}" for k, v in standing.versions.items() if v != self.versions[k]]
            if other:
                text = f"worker {worker} on {standing.host} has {'; '.join(other)}: results may differ by machine"
                warnings.warn(text, stacklevel=5)
            self.checked.add(worker)

    def _ended(self, hand: Collection[Future]) -> Iterable[Future]:
        """Those that have ended, after at most a few seconds."""
        if not hand:
            time.sleep(LOOKING_SECONDS)
            return ()
        try:
            return wait(list(hand), timeout=LOOKING_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return ()
        except CancelledError:
            raise self._lost() from None

    def _is_done(self, future: Future) -> bool:
        """Whether the shard is done, or else has killed its workers; raises what its work has raised."""
        try:
            error = future.exception()
        except CancelledError:
            raise self._lost() from None
        if error is None or isinstance(error, KilledWorker):
            return error is None
        self._threads()  # the fault may be that of a worker which has just joined
        raise error

    def _lost(self) -> EarshotError:
        return EarshotError(f"{self.address}: the scheduler is gone; finished shards are kept: start it and run again")


# What runs on the workers.


def _do(work: Callable[[int], None], ground: WorkerEnvironment, number: int) -> None:
    standing = check_worker(ground, SEEING_SECONDS)
    if standing.fault:  # of a worker that joined after the others were looked at
        raise EarshotError(f"a worker on {standing.host} {standing.fault}")
    threadpool_limits(1)  # for good: sums depend on the number of threads, and workers already fill the processors
    work(number)


@cache
def check_worker(ground: WorkerEnvironment, patience: float) -> WorkerCheck:
    """What this process lacks of the ground; files that are not there yet are waited for, `patience` seconds."""
    fault = None
    if code_digest() != ground.code:
        fault = f"has other code in {_package()}: bring it to the same state and start it again"
    until = time.monotonic() + patience
    while fault is None and (path := next((path for path, at in ground.changed if _last_change(path) != at), None)):
        if time.monotonic() >= until:
            state = "in another state" if os.path.exists(path) else "nowhere"
            fault = f"sees {path} {state}: scratch, root and inputs must lie on a file system that all machines share"
        else:
            time.sleep(1)
    return WorkerCheck(socket.gethostname(), fault, _versions())


@cache
def code_digest() -> str:
    """Changes with any line of this package."""
    digest = hashlib.sha256()
    for source in sorted(_package().rglob("*.py")):
        digest.update(f"{source.relative_to(_package())}\0".encode() + source.read_bytes())
    return digest.hexdigest()


def _package() -> Path:
    return Path(earshot.__file__).parent


def _last_change(path: str) -> int | None:
    try:
        return int(os.stat(path).st_mtime)
    except OSError:
        return None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
