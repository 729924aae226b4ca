"""Work on untrusted media in a child process, which may hang or crash without harm.

A decoder that hangs in native code ignores signal handlers and exceptions, so it must run in a process that can be
killed. A child processes one item after another. If an item exceeds its time or crashes the child, only that item
fails, and a new child continues with the next. The child responds in JSON and plain bytes, so the parent never executes
what it sends. The child and the processes that it starts end with the parent. Where the kernel has Landlock, they open
only the files that the work needs, and connect to nobody unless the work does.
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

from earshot.core import sandbox

STARTING_SECONDS = 120.0  # for a new child to import its modules on a busy machine
MAX_PAUSE_SECONDS = 86400.0  # total pause of one item: a compromised child could pause forever
RESPONSE_BYTES = 1 << 24  # maximum size of a response without its parts: a site's message may be a whole page
PART_BYTES = 1 << 32  # maximum size of the parts of a response, if the memory of the child has no limit
PIECE = 1 << 20  # bytes read at once
BYTES = "__bytes__"  # in a response: the size of a part, whose bytes follow the response
OUT_OF_MEMORY = 77  # exit status of a child that reached its memory limit
PR_SET_PDEATHSIG = 1  # prctl(2)
SERVE = "from earshot.core.subprocess_pool import serve; serve()"


@dataclass(frozen=True)
class Limits:
    """Limits on the work on one item.

    Args:
        seconds: wall-clock time, without deliberate waiting (`pause`).
        memory: bytes of data of the child; None: no limit.
        file_size: bytes of any file that it writes; None: no limit.
        starts_processes: whether the work starts processes. If not, the kernel kills the child with its parent,
            whatever native code is running.
        reads: files and folders that it may read, and run if it starts processes, besides programs and the system's
            own; None: no limit on what it opens and connects to.
        writes: folders in which it may write; the first is for temporary files.
        connects: whether it may connect to others.
    """

    seconds: float
    memory: int | None = None
    file_size: int | None = None
    starts_processes: bool = True
    reads: tuple[Path, ...] | None = None
    writes: tuple[Path, ...] = ()
    connects: bool = False

    @property
    def rights(self) -> dict[str | Path, int] | None:
        """The rights of the child (`sandbox.restrict`); None: no limit."""
        if self.reads is None:
            return None
        right = sandbox.RUN if self.starts_processes else sandbox.READ
        return sandbox.programs(right) | dict.fromkeys(self.reads, right) | dict.fromkeys(self.writes, sandbox.WRITE)


@dataclass(frozen=True)
class Failure:
    """An item without a result: it hung, or the child died with `exit_code` (negative: killed by that signal).

    If it did neither, its response could not be read.
    """

    hung: bool
    exit_code: int | None = None

    @property
    def out_of_memory(self) -> bool:
        """Whether the child reached its memory limit."""
        return self.exit_code == OUT_OF_MEMORY

    @property
    def ending(self) -> str:
        """How the child ended: the name of a signal, `exit status 3` or `no result`."""
        if self.exit_code is None:
            return "no result"
        return signal.Signals(-self.exit_code).name if self.exit_code < 0 else f"exit status {self.exit_code}"


@dataclass(frozen=True)
class _Running:
    """A running child: its process, the stream for requests, and the file descriptor of its responses."""

    process: subprocess.Popen[bytes]
    requests: BinaryIO
    responses: int


class ChildProcess:
    """A child process that computes `work(item)` for one item after another; it starts when first needed.

    `work` is a function of an importable module. It and the items are picklable. Its results hold JSON types, in which
    a tuple becomes a list, and bytes.
    """

    def __init__(self, work: Callable[[Any], Any], limits: Limits) -> None:
        self.work, self.limits = work, limits
        self._running: _Running | None = None

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, item: Any, seconds: float | None = None) -> Any:
        """The result of `work(item)`, or a `Failure`, after which the next item gets a new child.

        `seconds` replaces the time limit for this item.

        Raises OSError if `work` did, and RuntimeError with the message of any other exception, or if no child can be
        started.
        """
        request = pickle.dumps(item)
        running = self._running or self._start()
        try:
            response = _request(running, request, seconds or self.limits.seconds, self.limits.memory or PART_BYTES)
            if "result" in response:
                return response["result"]
            failure = _error(**response)
        except TimeoutError:
            self._end()
            return Failure(hung=True)
        except (EOFError, BrokenPipeError):
            return Failure(hung=False, exit_code=self._end())
        except (OSError, ValueError, TypeError, RecursionError):  # too long, or not a response
            self._end()
            return Failure(hung=False)
        raise failure

    def start(self) -> int:
        """Start the child; return its process id. Raises RuntimeError if it does not start."""
        return self._start().process.pid

    def _start(self) -> _Running:
        responses, sending = os.pipe()
        receiving, requests = os.pipe()
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        temporary = {"TMPDIR": str(self.limits.writes[0])} if self.limits.writes else {}
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(sending)],
            stdin=receiving,
            pass_fds=[sending],
            start_new_session=True,  # so that ffmpeg and other processes that it starts can be killed with it
            env=os.environ | one_thread | temporary | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        os.close(receiving)
        os.close(sending)
        self._running = _Running(process, os.fdopen(requests, "wb"), responses)
        with contextlib.suppress(EOFError, OSError, ValueError):
            # The rights come first: modules of the work may start threads, which would keep what they could do before.
            beginning = pickle.dumps((self.limits.rights, self.limits.connects))
            beginning += pickle.dumps((self.work, self.limits, os.getpid()))
            if _request(self._running, beginning, STARTING_SECONDS, 0) == {"result": "ready"}:
                return self._running
        raise RuntimeError(f"a child process did not start (exit status {self._end()})")

    def _end(self) -> int:
        """Kill the child, if it runs, and all processes that it started; return its exit status."""
        running, self._running = self._running, None
        if running is None:
            return 0
        os.close(running.responses)
        with contextlib.suppress(BrokenPipeError):
            running.requests.close()  # a healthy child exits now
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(timeout=1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        return running.process.wait()


def guarded_iter(work: Callable[[Any], Iterator[Any]], item: Any, limits: Limits) -> Iterator[Any]:
    """Yield what the iterator `work(item)` yields in a child, or a `Failure` at last; limits hold for each step."""
    with ChildProcess(_Steps(work, item), limits) as child:
        while (result := child.run(None)) is not None:
            yield result
            if isinstance(result, Failure):
                return


class _Steps:
    """Work that is done in steps: each call returns the next result, and None after the last."""

    def __init__(self, work: Callable[[Any], Iterator[Any]], item: Any) -> None:
        self.work, self.item = work, item
        self._results: Iterator[Any] | None = None

    def __call__(self, _: None) -> Any:
        self._results = self.work(self.item) if self._results is None else self._results
        return next(self._results, None)


def guarded_map(work: Callable[[Any], Any], items: Iterable[Any], limits: Limits) -> Iterator[tuple[Any, Any]]:
    """Yield each item with `work(item)` or a `Failure`, as `ChildProcess.run`; the child ends with the last item."""
    with ChildProcess(work, limits) as child:
        for item in items:
            yield item, child.run(item)


def _request(running: _Running, request: bytes, seconds: float, most: int) -> dict[str, Any]:
    """The response to a request, with at most `most` bytes of parts; each pause of the child extends its time.

    Raises TimeoutError, EOFError or BrokenPipeError if the child hangs or has ended, and others if the response is
    invalid.
    """
    running.requests.write(request)
    running.requests.flush()
    end, last = time.monotonic() + seconds, time.monotonic() + seconds + MAX_PAUSE_SECONDS
    while True:
        read = _Reader(running.responses, min(end, last), most)
        (size,) = struct.unpack("!I", read(4, 4))
        response = json.loads(read(size, RESPONSE_BYTES), object_hook=read.part)
        if not isinstance(response, dict) or len(response.keys() & {"result", "error", "pause"}) != 1:
            raise ValueError("not a response")
        if "pause" not in response:
            return response
        end += max(0.0, float(response["pause"]))


class _Reader:
    """Reads bytes until a deadline on the monotonic clock; `left` of them may come as parts."""

    def __init__(self, descriptor: int, end: float, left: int) -> None:
        self.descriptor, self.end, self.left = descriptor, end, left
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
        """An object of a response, or the bytes that it stands for, which follow in the same order."""
        if value.keys() != {BYTES}:
            return value
        data = self(value[BYTES], self.left)
        self.left -= len(data)
        return data


def _error(error: list, trace: str) -> Exception:
    """The exception that the parent raises for an exception of `work`, of which it has only the message."""
    raised = OSError(*error) if len(error) > 1 else RuntimeError(*error)
    raised.add_note(trace)
    return raised


# What follows runs in the child.

_stream: BinaryIO | None = None  # for responses


def serve() -> None:
    """The child: read the work, then respond to one item after another until the parent ends."""
    global _stream
    os.set_inheritable(int(sys.argv[1]), False)
    _stream = os.fdopen(int(sys.argv[1]), "wb")
    # The parent may end at any time, even in the middle of a request.
    with contextlib.suppress(EOFError, pickle.UnpicklingError, BrokenPipeError):
        rights, connects = pickle.load(sys.stdin.buffer)
        if rights is not None:
            sandbox.restrict(rights, connects=connects)
        work, limits, parent = pickle.load(sys.stdin.buffer)
        _confine(limits, parent)
        _respond(_stream, {"result": "ready"})
        while True:
            _respond(_stream, _do(work, pickle.load(sys.stdin.buffer), limits))


def pause(seconds: float) -> None:
    """Sleep; in a child, this does not count against the time limit of an item."""
    if _stream:
        _respond(_stream, {"pause": seconds})
    time.sleep(seconds)


def _confine(limits: Limits, parent: int) -> None:
    """End with the parent, set the limits, and send nothing but responses."""
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
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(devnull, stream.fileno())


def _end_with_parent() -> None:
    parent = select.poll()
    parent.register(sys.stdin.fileno(), 0)  # reports only that the other end is closed, however the parent ends
    parent.poll()
    os.killpg(os.getpid(), signal.SIGKILL)


def _do(work: Callable[[Any], Any], item: Any, limits: Limits) -> dict[str, Any]:
    try:
        return {"result": work(item)}
    except OSError as error:
        # A stage recognizes a full disk by these.
        words = [error.errno, error.strerror or str(error), error.filename and str(error.filename)]
        return {"error": words, "trace": traceback.format_exc()}
    except Exception as error:
        if isinstance(error, MemoryError) and limits.memory is not None:
            os._exit(OUT_OF_MEMORY)
        return {"error": [f"{type(error).__name__}: {error}"], "trace": traceback.format_exc()}


def _respond(stream: BinaryIO, values: dict[str, Any]) -> None:
    parts: list[bytes] = []

    def part(value: Any) -> dict[str, int]:
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
        parts.append(value)
        return {BYTES: len(value)}

    text = json.dumps(values, default=part).encode()
    stream.writelines([struct.pack("!I", len(text)), text, *parts])
    stream.flush()
