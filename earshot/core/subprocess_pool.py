"""Work on material from strangers, in a child process that can hang or crash without harm.

A decoder that hangs in native code hears no signal handler and no exception: only a process of its own can be ended.
A child does item after item; when an item outlasts its time or takes the child down, only that item is lost, and a
fresh child goes on with the next. It answers in JSON and plain bytes, so that its parent runs nothing that it says. It
does not outlive its parent, nor does anything that it has started.
"""

import contextlib
import ctypes
import json
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

STARTING_SECONDS = 120.0  # a fresh child may take to import what it needs, on a machine that is busy
LONGEST_PAUSES = 86400.0  # seconds that one item may pause in all: a child that was taken over might go on for ever
ANSWER_BYTES = 1 << 24  # the most that an answer may have, without its parts: a site's message may be a whole page
PART_BYTES = 1 << 32  # the most that one part of an answer may have
PIECE = 1 << 20  # bytes read at once
BYTES = "__bytes__"  # in an answer: the size of a part, whose bytes follow the answer
OUT_OF_MEMORY = 77  # exit status of a child that reached the limit of its memory
PR_SET_PDEATHSIG = 1  # prctl(2)
SERVE = "from earshot.core.subprocess_pool import serve; serve()"


@dataclass(frozen=True)
class Limits:
    """What the work on one item may take.

    Args:
        seconds: on the clock, without what it waits on purpose (`pause`).
        memory: bytes of data of the child; None: as many as there are.
        file_size: bytes of any file that it writes; None: as many as it likes.
        starts_processes: whether the work starts processes. Where it does not, the kernel ends the child with its
            parent, whatever native code is doing then.
    """

    seconds: float
    memory: int | None = None
    file_size: int | None = None
    starts_processes: bool = True


@dataclass(frozen=True)
class Failure:
    """An item without a result: it hung, or the child died with `exit_code` (negative: by that signal).

    Where it did neither, it gave an answer that cannot be read.
    """

    hung: bool
    exit_code: int | None = None


@dataclass(frozen=True)
class _Running:
    """A child that runs: its process, the stream for requests, and the descriptor of its answers."""

    process: subprocess.Popen[bytes]
    requests: BinaryIO
    answers: int


class ChildProcess:
    """A child process that does `work(item)` for one item after another, started when it is needed.

    `work` is a function of an importable module; it and items are picklable, and its results are what JSON can hold, in
    which a tuple is a list, and bytes.
    """

    def __init__(self, work: Callable[[Any], Any], limits: Limits) -> None:
        self.work, self.limits = work, limits
        self._running: _Running | None = None

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, item: Any) -> Any:
        """The result of `work(item)`, or `Lost`, after which the next item gets a fresh child.

        Raises OSError where `work` did, and RuntimeError with the message of any other exception, or where no child
        can be started.
        """
        request = pickle.dumps(item)
        running = self._running or self._start()
        try:
            answer = _ask(running, request, self.limits.seconds)
            if "result" in answer:
                return answer["result"]
            failure = _error(**answer)
        except TimeoutError:
            self._end()
            return Failure(hung=True)
        except (EOFError, BrokenPipeError):
            return Failure(hung=False, exit_code=self._end())
        except (OSError, ValueError, TypeError, RecursionError):  # too long, or not what is answered
            self._end()
            return Failure(hung=False)
        raise failure

    def start(self) -> int:
        """Start the child; return its process id. Raises RuntimeError where it does not start."""
        return self._start().process.pid

    def _start(self) -> _Running:
        answers, sending = os.pipe()
        taking, requests = os.pipe()
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(sending)],
            stdin=taking,
            pass_fds=[sending],
            start_new_session=True,  # so that ffmpeg and whatever else it starts can be ended with it
            env=os.environ | one_thread | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        os.close(taking)
        os.close(sending)
        self._running = _Running(process, os.fdopen(requests, "wb"), answers)
        with contextlib.suppress(EOFError, OSError, ValueError):
            beginning = pickle.dumps((self.work, self.limits, os.getpid()))
            if _ask(self._running, beginning, STARTING_SECONDS) == {"result": "ready"}:
                return self._running
        raise RuntimeError(f"a child process does not start (exit status {self._end()})")

    def _end(self) -> int:
        """End the child if it runs, and all that it has started; return its exit status."""
        running, self._running = self._running, None
        if running is None:
            return 0
        os.close(running.answers)
        with contextlib.suppress(BrokenPipeError):
            running.requests.close()  # a child that is well ends itself now
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(timeout=1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        return running.process.wait()


def guarded_map(work: Callable[[Any], Any], items: Iterable[Any], limits: Limits) -> Iterator[tuple[Any, Any]]:
    """Each item with `work(item)`, or with `Lost`; as `ChildProcess.ask`, whose child ends with the last item."""
    with ChildProcess(work, limits) as child:
        for item in items:
            yield item, child.ask(item)


def _ask(running: _Running, request: bytes, seconds: float) -> dict[str, Any]:
    """The answer to a request; every pause that the child tells of puts off the end of its time.

    Raises TimeoutError, EOFError or BrokenPipeError where the child is gone, and others for what is no answer.
    """
    running.requests.write(request)
    running.requests.flush()
    end, last = time.monotonic() + seconds, time.monotonic() + seconds + LONGEST_PAUSES
    while True:
        read = _Reader(running.answers, min(end, last))
        (size,) = struct.unpack("!I", read(4, 4))
        answer = json.loads(read(size, ANSWER_BYTES), object_hook=read.part)
        if not isinstance(answer, dict) or len(answer.keys() & {"result", "error", "pause"}) != 1:
            raise ValueError("no answer")
        if "pause" not in answer:
            return answer
        end += max(0.0, float(answer["pause"]))


class _Reader:
    """Reads bytes until a time on the monotonic clock."""

    def __init__(self, descriptor: int, end: float) -> None:
        self.descriptor, self.end = descriptor, end
        self._readable = select.poll()
        self._readable.register(descriptor, select.POLLIN)

    def __call__(self, size: int, most: int) -> bytes:
        if not 0 <= size <= most:
            raise ValueError(f"{size} bytes, expected at most {most}")
        data = bytearray()
        while len(data) < size:
            if not self._readable.poll(max(0.0, self.end - time.monotonic()) * 1000):
                raise TimeoutError
            piece = os.read(self.descriptor, min(size - len(data), PIECE))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def part(self, value: dict[str, Any]) -> Any:
        """An object of an answer, or the bytes that it stands for, which follow in the same order."""
        return self(value[BYTES], PART_BYTES) if value.keys() == {BYTES} else value


def _error(error: list, trace: str) -> Exception:
    """What the parent raises for an exception of `work`, which it knows by its message alone."""
    raised = OSError(*error) if len(error) > 1 else RuntimeError(*error)
    raised.add_note(trace)
    return raised


# What follows runs in the child.

_stream: BinaryIO | None = None  # for answers


def serve() -> None:
    """What the child does: read the work, then answer item after item, until the parent is gone."""
    global _stream
    os.set_inheritable(int(sys.argv[1]), False)
    _stream = os.fdopen(int(sys.argv[1]), "wb")
    work, limits, parent = pickle.load(sys.stdin.buffer)
    _confine(limits, parent)
    _answer(_stream, {"result": "ready"})
    with contextlib.suppress(EOFError):
        while True:
            _answer(_stream, _do(work, pickle.load(sys.stdin.buffer), limits))


def pause(seconds: float) -> None:
    """Sleep; in the work of a child, without counting it against the time that an item may take."""
    if _stream:
        _answer(_stream, {"pause": seconds})
    time.sleep(seconds)


def _confine(limits: Limits, parent: int) -> None:
    """End with the parent, keep the limits, and say nothing but answers."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.platform == "linux" and not limits.starts_processes:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent has ended")
    kinds = (resource.RLIMIT_DATA, limits.memory), (resource.RLIMIT_FSIZE, limits.file_size), (resource.RLIMIT_CORE, 0)
    for kind, value in kinds:
        if value is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nothing, stream.fileno())


def _end_with_parent() -> None:
    parent = select.poll()
    parent.register(sys.stdin.fileno(), 0)  # tells only that the other end is closed, however the parent ends
    parent.poll()
    os.killpg(os.getpid(), signal.SIGKILL)


def _do(work: Callable[[Any], Any], item: Any, limits: Limits) -> dict[str, Any]:
    try:
        return {"result": work(item)}
    except OSError as error:
        # A stage tells a full disk by these.
        words = [error.errno, error.strerror or str(error), error.filename and str(error.filename)]
        return {"error": words, "trace": traceback.format_exc()}
    except Exception as error:
        if isinstance(error, MemoryError) and limits.memory is not None:
            os._exit(OUT_OF_MEMORY)
        return {"error": [f"{type(error).__name__}: {error}"], "trace": traceback.format_exc()}


def _answer(stream: BinaryIO, values: dict[str, Any]) -> None:
    parts: list[bytes] = []

    def part(value: Any) -> dict[str, int]:
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} is nothing that JSON holds")
        parts.append(value)
        return {BYTES: len(value)}

    text = json.dumps(values, default=part).encode()
    stream.writelines([struct.pack("!I", len(text)), text, *parts])
    stream.flush()
