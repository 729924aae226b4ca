"""Shards on a Dask cluster instead of this machine's processes; its workers share this machine's files and code.

If a worker dies, other workers redo its running shards. Dask sends pickles between client, scheduler and workers, so
anyone who reaches the scheduler can run code as its user. Use a cluster of one user, on a private network or behind
tls:// with certificates in Dask's configuration.
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
WITHOUT_WORKERS_SECONDS = 300.0  # a cluster that starts machines on demand takes minutes
POLL_SECONDS = 2.0  # between two looks for new workers, if no shard ends
FILE_CACHE_SECONDS = 60.0  # a network file system may show a state that is this old
# With other versions of these packages the output may differ.
PACKAGES = ("av", "faiss-cpu", "numpy", "pillow", "pyarrow", "scipy", "soundfile", "soxr", "torch")

# Pickled by value, not by name: the scheduler unpickles it too and may not have our code.
OPEN_AND_DO = lambda work, number: pickle.loads(work)(number)  # noqa: E731


@dataclass(frozen=True)
class WorkerEnvironment:
    """What client and workers must share: the code, and paths with the second of their last change."""

    code: str
    changed: tuple[tuple[str, int | None], ...]

    @classmethod
    def here(cls, paths: Iterable[Path]) -> "WorkerEnvironment":
        """The environment of this process."""
        return cls(code_digest(), tuple((str(path), _last_change(str(path))) for path in paths))


@dataclass(frozen=True)
class WorkerCheck:
    """The state of a worker: its machine, its `fault` or None, and the versions of the packages that affect results."""

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
    """Run `work(number)` for every number on the workers of the scheduler at `address`; return the numbers that failed.

    A number is set aside if more of its workers died than the scheduler allows (Dask's setting
    distributed.scheduler.allowed-failures, 3); at the end these are retried once, one at a time. As many numbers run at
    a time as the workers have threads. Workers write below `scratch` and read the files and folders `reads`; `done` is
    called after each finished number.

    Raises whatever `work` raises; EarshotError if there is no scheduler, no worker for five minutes, or a worker with
    other code or other files.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors that matter are raised
    token = scratch / f".visible-to-workers-{uuid.uuid4().hex}"
    token.touch()
    try:
        with _connected(address) as client:
            return _Cluster(client, address, WorkerEnvironment.here([token, *reads])).run(work, numbers, done)
    finally:
        token.unlink(missing_ok=True)


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECTING_SECONDS, name="earshot")
    except (OSError, ValueError, TypeError) as error:  # TypeError: no certificates are configured for tls://
        raise EarshotError(
            f"EARSHOT_CLUSTER is {address}: {error}; start a scheduler there (python -m dask scheduler) or unset it"
        ) from None


class _Cluster:
    """A connection to a scheduler, and the workers that have been checked."""

    def __init__(self, client: Client, address: str, environment: WorkerEnvironment) -> None:
        self.client, self.address, self.environment = client, address, environment
        self.checked: set[str] = set()
        self.versions = _versions()
        self.worked = time.monotonic()  # when there last was a worker

    def run(self, work: Callable[[int], None], numbers: Sequence[int], done: Callable[[], object]) -> list[int]:
        """As `run_on_cluster`."""
        packed = cloudpickle.dumps(partial(_do, work, self.environment))
        given_up = self._do_all(packed, numbers, len(numbers), done)
        if given_up:
            # They may all be fine: workers that die together pass a shard from one to the next.
            text = f"{self.address}: workers died; retrying {len(given_up)} shards once, one at a time"
            warnings.warn(text, stacklevel=5)
        return self._do_all(packed, given_up, 1, done)

    def _do_all(self, work: bytes, numbers: Sequence[int], at_once: int, done: Callable[[], object]) -> list[int]:
        """Run all numbers, at most `at_once` at a time; return those that were set aside."""
        waiting, given_up = deque(numbers), []
        running: dict[Future, int] = {}
        while waiting or running:
            for _ in range(min(self._threads(), at_once, len(running) + len(waiting)) - len(running)):
                number = waiting.popleft()
                key = f"earshot-{number}-{uuid.uuid4().hex}"  # Dask would take an equal key for the same, finished work
                running[self.client.submit(OPEN_AND_DO, work, number, key=key, pure=False)] = number
            for future in self._ended(running):
                number = running.pop(future)
                if self._is_done(future):
                    done()
                else:
                    given_up.append(number)
        return sorted(given_up)

    def _threads(self) -> int:
        """Check new workers; return the number of threads of all workers."""
        try:
            threads = self.client.nthreads()
            self._check(set(threads) - self.checked)
        except (OSError, CancelledError):
            raise self._scheduler_gone() from None
        if threads:
            self.worked = time.monotonic()
        elif time.monotonic() - self.worked > WITHOUT_WORKERS_SECONDS:
            raise EarshotError(
                f"{self.address}: no worker for {WITHOUT_WORKERS_SECONDS:.0f} s; finished shards are kept: start "
                f"workers in the repository's folder (python -m dask worker {self.address} --nthreads 1) and run again"
            )
        return sum(threads.values())

    def _check(self, workers: Collection[str]) -> None:
        """Raise EarshotError if a worker has a fault; warn if it has other versions."""
        if not workers:
            return  # Dask takes an empty list as all workers
        checks = self.client.run(
            check_worker, self.environment, FILE_CACHE_SECONDS, workers=list(workers), on_error="return"
        )
        for worker, check in checks.items():
            if isinstance(check, OSError):  # it has left
                continue
            if not isinstance(check, WorkerCheck):
                raise EarshotError(
                    f"worker {worker} cannot import this code ({check}); start it in the repository's folder with "
                    f"the repository's environment: python -m dask worker {self.address}"
                )
            if check.fault:
                raise EarshotError(f"worker {worker} on {check.host} {check.fault}")
            other = [f"{k} {v}, here {self.versions[k]}" for k, v in check.versions.items() if v != self.versions[k]]
            if other:
                text = f"worker {worker} on {check.host} has {'; '.join(other)}: results may differ between machines"
                warnings.warn(f"{text}; install the same versions", stacklevel=5)
            self.checked.add(worker)

    def _ended(self, running: Collection[Future]) -> Iterable[Future]:
        """The futures that have ended; waits a few seconds at most."""
        if not running:
            time.sleep(POLL_SECONDS)
            return ()
        try:
            return wait(list(running), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return ()
        except CancelledError:
            raise self._scheduler_gone() from None

    def _is_done(self, future: Future) -> bool:
        """Whether the shard is done; False if its workers died. Raises what its work raised."""
        try:
            error = future.exception()
        except CancelledError:
            raise self._scheduler_gone() from None
        if error is None or isinstance(error, KilledWorker):
            return error is None
        self._threads()  # a worker that has just joined may cause the error; this checks it
        raise error

    def _scheduler_gone(self) -> EarshotError:
        return EarshotError(f"{self.address}: the scheduler is gone; finished shards are kept: start it and run again")


# The code below runs on the workers.


def _do(work: Callable[[int], None], environment: WorkerEnvironment, number: int) -> None:
    check = check_worker(environment, FILE_CACHE_SECONDS)
    if check.fault:  # a worker that joined after the check of the others
        raise EarshotError(f"a worker on {check.host} {check.fault}")
    threadpool_limits(
        1
    )  # permanently: sums depend on the number of threads, and the workers already use all processors
    work(number)


@cache
def check_worker(environment: WorkerEnvironment, patience: float) -> WorkerCheck:
    """Compare this process with the client's environment; waits up to `patience` seconds for files to appear."""
    fault = None
    if code_digest() != environment.code:
        fault = f"has other code in {_package()}: update it to the same revision and restart the worker"
    until = time.monotonic() + patience
    while fault is None and (
        path := next((path for path, at in environment.changed if _last_change(path) != at), None)
    ):
        if time.monotonic() >= until:
            state = "in another state" if os.path.exists(path) else "missing"
            fault = (
                f"finds {path} {state}: put root, inputs and EARSHOT_SCRATCH on a file system that all machines share"
            )
        else:
            time.sleep(1)
    return WorkerCheck(socket.gethostname(), fault, _versions())


@cache
def code_digest() -> str:
    """A hash of all source files of this package."""
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
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    return versions
