"""One run in several processes, on this machine or more of them, as torchrun starts them.

The first process is the run: it locks, writes and prints. The others join it.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence

from earshot.core.errors import EarshotError

GRACE_SECONDS = 15.0  # in which torchrun ends the processes that only failed because another one had


def is_started() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """The number of this process among all: 0 for the first."""
    return int(os.environ["RANK"]) if is_started() else 0


def launch(module: str, arguments: Sequence[str], processes: int) -> int:
    """Do `python -m module` in several processes on this machine; return the exit status of the first that failed.

    Raises EarshotError where one was killed.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable()  # a process that fails says so itself
    # Not --standalone, whose rendezvous takes minutes of processor time in a process of thousands of modules.
    words = ["--master-port", str(free_port()), "--nproc-per-node", str(processes), "--module", module, *arguments]
    try:
        run.run(run.parse_args(words))
    except SignalException:
        return 130
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0:
            found = f"process {number} was ended by signal {-failure.exitcode}, most often for want of memory"
            raise EarshotError(f"{found}; finished work is kept: run it again and it goes on") from None
        return failure.exitcode
    return 0


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def report_first_error() -> Iterator[None]:
    """Let the process that failed first tell of it: the others wait for torchrun to end them."""
    try:
        yield
    except Exception as error:
        if rank() or is_started() and not isinstance(error, EarshotError):
            time.sleep(GRACE_SECONDS)
        raise
