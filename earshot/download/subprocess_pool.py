"""Work on material from strangers, in a process that can hang or crash without harm.

A decoder that hangs in native code hears no signal handler and no exception: only a process of its own can be ended.
One process does item after item; when an item outlasts its time or takes the process down, only that item is lost, and
a fresh process goes on with the next. It answers in JSON, so that its parent runs nothing that it says. Time that the
work waits on purpose (`pause`) is not counted.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

STARTING_SECONDS = 120.0  # a fresh process may take to import what it needs, on a machine that is busy
LONGEST_PAUSES = 86400.0  # seconds that one item may pause in all: a process that was taken over might go on for ever
ANSWER_BYTES = 1 << 24  # the most that an answer may have; the words of a site may be a whole page
SERVE = "from earshot.download.subprocess_pool import serve; serve()"


@dataclass(frozen=True)
class Lost:
    """An item without a result: it hung, or the process died with `exit_code` (negative: by that signal).

    Where it did neither, it gave an answer that cannot be read.
    """

    hung: bool
    exit_code: int | None = None


def guarded_map(work: Callable[[Any], Any], items: Sequence[Any], *, seconds: float) -> Iterator[tuple[Any, Any]]:
    """Each item with `work(item)`, or with `Lost` where that took more than `seconds` or killed the process.

    `work` is a function of an importable module; it and items are picklable, and its results are what JSON can hold,
    in which a tuple is a list. Whatever the process has started is ended with it.

    Raises OSError where `work` did, and RuntimeError with the words of any other exception.
    """
    waiting = list(items)
    while waiting:
        with _process(work, waiting) as (process, answers):
            for item in list(waiting):
                answer = _receive(process, answers, seconds)
                waiting.pop(0)
                if isinstance(answer, Lost):
                    yield item, answer
                    break
                if "error" in answer:
                    raise _error(**answer)
                yield item, answer["result"]


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
        with Connection(receiving, writable=False) as answers:
            pickle.dump((work, items), process.stdin)
            process.stdin.flush()
            if _receive(process, answers, STARTING_SECONDS) != {"result": "ready"}:
                raise RuntimeError("a guarded process did not start")
            yield process, answers
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def pause(seconds: float) -> None:
    """Sleep; in work that is guarded, without counting it against the time that an item may take."""
    if _answers:
        _answers.send_bytes(json.dumps({"pause": seconds}).encode())
    time.sleep(seconds)


_answers: Connection | None = None  # of this process, where it is a guarded one


def _receive(process: subprocess.Popen, answers: Connection, seconds: float) -> dict[str, Any] | Lost:
    """The next answer, or what became of the process; every pause that it tells of puts off the end of its time."""
    end, last = time.monotonic() + seconds, time.monotonic() + seconds + LONGEST_PAUSES
    try:
        while answers.poll(max(0.0, min(end, last) - time.monotonic())):
            answer = json.loads(answers.recv_bytes(ANSWER_BYTES))
            if not isinstance(answer, dict) or len(answer.keys() & {"result", "error", "pause"}) != 1:
                return Lost(hung=False)
            if "pause" not in answer:
                return answer
            end += max(0.0, float(answer["pause"]))
        return Lost(hung=True)
    except EOFError:
        return Lost(hung=False, exit_code=process.wait())
    except (OSError, ValueError, TypeError):  # too long, cut off, or not what is answered
        return Lost(hung=False)


def _error(error: list, trace: str) -> Exception:
    """What the parent raises for an exception of `work`, which it knows by its words alone."""
    raised = OSError(*error) if len(error) > 1 else RuntimeError(*error)
    raised.add_note(trace)
    return raised


def serve() -> None:
    """What the process does: read the work and the items, send an answer for each, end when the parent is gone."""
    work, items = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _answers
    with Connection(int(sys.argv[1]), readable=False) as answers:
        _answers = answers
        answers.send_bytes(json.dumps({"result": "ready"}).encode())
        for item in items:
            answers.send_bytes(json.dumps(_answer(work, item)).encode())


def _answer(work: Callable, item: Any) -> dict[str, Any]:
    try:
        return {"result": work(item)}
    except OSError as error:
        # A stage tells a full disk by these.
        words = [error.errno, error.strerror or str(error), error.filename and str(error.filename)]
        return {"error": words, "trace": traceback.format_exc()}
    except Exception as error:
        return {"error": [f"{type(error).__name__}: {error}"], "trace": traceback.format_exc()}


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent does, however it ends
    os.killpg(os.getpid(), signal.SIGKILL)
