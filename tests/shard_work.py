"""What workers of the tests import: a module without the heavy imports of the tests themselves."""

import os
import signal
import time
from pathlib import Path

from earshot.core.errors import EarshotError


def work_on(folder: Path, number: int) -> dict[str, int]:
    """Record the process of the shard, and sleep half a second, in which it can be killed."""
    (folder / f"started-{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    with (folder / f"done-{number}").open("a") as file:
        file.write("x")
    return {"sum": number * number, "shards": 1}


def die_at(folder: Path, bad: int, number: int) -> dict[str, int]:
    counts = work_on(folder, number)
    if number == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return counts


def fail_at(folder: Path, bad: int, number: int) -> dict[str, int]:
    if number == bad:
        raise EarshotError(f"shard {number} is bad")
    return work_on(folder, number)


def answer(folder: Path) -> int:
    """The process that answers; half a second later, so that all workers do."""
    (folder / f"answered-{os.getpid()}").touch()
    time.sleep(0.5)
    return os.getpid()


def grow(folder: Path, number: int) -> dict[str, int]:
    """Keep 400 MB more, and take longer than loky waits from one look at the memory to the next."""
    kept.append(b"x" * 400_000_000 if len(kept) < 1 else b"")
    (folder / f"grew-{os.getpid()}").touch()
    time.sleep(1.1)
    return {"shards": 1}


kept: list[bytes] = []


def an_hour_later() -> float:
    """A clock that is an hour fast, Unix time in s."""
    return time.time() + 3700
