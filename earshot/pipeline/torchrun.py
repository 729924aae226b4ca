"""One run in several processes: on this machine, started here, or on several machines, started by torchrun.

The first process locks the scratch folder, writes the outputs and prints; the others join it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from earshot.core.errors import EarshotError

RENDEZVOUS_FILE = "RENDEZVOUS_FILE"  # the environment variable with the file through which the processes meet
POLL_SECONDS = 0.1
GRACE_SECONDS = 15.0  # time to end processes that failed only because another one failed first


def is_started() -> bool:
    """Whether torchrun or `launch` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or RENDEZVOUS_FILE in os.environ


def rendezvous() -> str:
    """Where the processes of a run meet, for torch: a file of this machine, or what torchrun has set."""
    file = os.environ.get(RENDEZVOUS_FILE)
    return Path(file).as_uri() if file else "env://"


def rank() -> int:
    """The rank of this process; 0 for the first."""
    return int(os.environ["RANK"]) if is_started() else 0


def launch(module: str, arguments: Sequence[str], processes: int) -> int:
    """Run `python -m module` in several processes on this machine; return the exit status of the first that failed.

    They meet through a file and talk on the loopback interface alone, so that no other machine can reach them. torchrun
    would listen on all interfaces.

    Raises EarshotError if one was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            RENDEZVOUS_FILE: str(Path(folder) / "rendezvous"),
            **dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), _loopback()),
            **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes)),
        }
        command = [sys.executable, "-m", module, *arguments]
        # In sessions of their own, so that Ctrl-C reaches this process alone, which ends them.
        started = [
            subprocess.Popen(
                command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, start_new_session=True
            )
            for rank in range(processes)
        ]
        try:
            return _first_failure(started)
        finally:
            for process in started:
                process.kill()
                process.wait()


def _first_failure(started: Sequence[subprocess.Popen]) -> int:
    """Wait for all processes, or for the first that fails; return its exit status, or 0."""
    while True:
        statuses = [process.poll() for process in started]
        for number, status in enumerate(statuses):
            if status is not None and status < 0:
                problem = f"process {number} was killed by signal {-status}, usually because of too little memory"
                raise EarshotError(f"{problem}; finished work is kept: run again to continue")
        if failed := next(filter(None, statuses), 0):
            return failed
        if None not in statuses:
            return 0
        time.sleep(POLL_SECONDS)


def _loopback() -> str:
    """The name of the loopback interface: lo, or lo0 on macOS."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


@contextlib.contextmanager
def report_first_error() -> Iterator[None]:
    """Let only the process that failed first report its error; the others wait until they are ended."""
    try:
        yield
    except Exception as error:
        if rank() or is_started() and not isinstance(error, EarshotError):
            time.sleep(GRACE_SECONDS)
        raise
