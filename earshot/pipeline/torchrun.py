"""One run in several processes, on one or more machines, started by torchrun.

The first process locks the scratch folder, writes the outputs and prints; the others join it.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence

from earshot.core.errors import EarshotError

GRACE_SECONDS = 15.0  # time for torchrun to end processes that failed only because another one failed first


def is_started() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """The rank of this process; 0 for the first."""
    return int(os.environ["RANK"]) if is_started() else 0


def launch(module: str, arguments: Sequence[str], processes: int) -> int:
    """Run `python -m module` in several processes on this machine; return the exit status of the first that failed.

    Raises EarshotError if one was killed.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable()  # a process that fails prints its own error
    # Not --standalone: its rendezvous takes minutes of processor time in a process with thousands of modules.
    words = ["--master-port", str(free_port()), "--nproc-per-node", str(processes), "--module", module, *arguments]
    try:
        run.run(run.parse_args(words))
    except SignalException:
        return 130
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0:
            problem = f"process {number} was killed by signal {-failure.exitcode}, usually because of too little memory"
            raise EarshotError(f"{problem}; finished work is kept: run again to continue") from None
        return failure.exitcode
    return 0


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def report_first_error() -> Iterator[None]:
    """Let only the process that failed first report its error; the others wait for torchrun to end them."""
    try:
        yield
    except Exception as error:
        if rank() or is_started() and not isinstance(error, EarshotError):
            time.sleep(GRACE_SECONDS)
        raise
