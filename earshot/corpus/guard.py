"""Work on material from strangers, in a process that can hang or crash without harm.

A decoder that hangs in native code hears no signal handler and no exception: only a process of its own can be ended.
One process does item after item; when an item outlasts its time or takes the process down, only that item is lost, and
a fresh process goes on with the next.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

STARTING_SECONDS = 120.0  # a fresh process may take to import what it needs, on a machine that is busy
SERVE = "from earshot.corpus.guard import serve; serve()"


@dataclass(frozen=True)
class Lost:
    """An item without a result: it hung, or the process died with `exit_code` (negative: by that signal)."""

    hung: bool
    exit_code: int | None = None


def guarded_map(work: Callable[[Any], Any], items: Sequence[Any], *, seconds: float) -> Iterator[tuple[Any, Any]]:
    """Each item with `work(item)`, or with `Lost` where that took more than `seconds` or killed the process.

    `work` is a function of an importable module; it, items and results are picklable. An exception of `work` is raised
    here. Whatever the process has started is ended with it.
    """
    waiting = list(items)
    while waiting:
        with _process(work, waiting) as (process, results):
            for item in list(waiting):
                result = _receive(process, results, seconds)
                waiting.pop(0)
                if isinstance(result, Exception):
                    raise result
                yield item, result
                if isinstance(result, Lost):
                    break


@contextlib.contextmanager
def _process(work: Callable, items: list) -> Iterator[tuple[subprocess.Popen, Connection]]:
    receiving, sending = os.pipe()
    # A session of its own, so that ffmpeg and whatever else it starts can be ended with it.
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(sending)],
        stdin=subprocess.PIPE,
        pass_fds=[sending],
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    os.close(sending)
    try:
        with Connection(receiving, writable=False) as results:
            pickle.dump((work, items), process.stdin)
            process.stdin.flush()
            if _receive(process, results, STARTING_SECONDS) != "ready":
                raise RuntimeError("a guarded process did not start")
            yield process, results
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def _receive(process: subprocess.Popen, results: Connection, seconds: float) -> Any:
    try:
        return results.recv() if results.poll(seconds) else Lost(hung=True)
    except EOFError:
        return Lost(hung=False, exit_code=process.wait())


def serve() -> None:
    """What the process does: read the work and the items, send a result for each, end when the parent is gone."""
    work, items = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Connection(int(sys.argv[1]), readable=False) as results:
        results.send("ready")
        for item in items:
            try:
                result = work(item)
            except Exception as error:
                error.add_note(traceback.format_exc())  # the one that the parent raises has lost its own
                result = error
            results.send(result)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent does, however it ends
    os.killpg(os.getpid(), signal.SIGKILL)
