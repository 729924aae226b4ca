"""Decoding in a child process, so that a file that hangs or crashes the decoder costs itself and nothing else.

The child runs decoders, written in C, on files from strangers. It gets a line of JSON for each clip and answers with a
line of JSON and plain bytes, so that its parent runs nothing that it says. It limits its own memory, writes no file, is
ended by its own alarm when a clip takes too long, and does not outlive its parent.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from earshot.corpus.ledger import Refusal
from earshot.media.decoding import Decoded, Wanted, decode_clip
from earshot.media.quality import Measured

MEMORY_LIMIT = 2 << 30  # bytes; ten minutes of 48 kHz stereo take 320 MB, H.264 of 40 megapixels 350 MB
PARTS = ("sound", "frames", "sequence")  # of an answer: their sizes stand in its line, their bytes follow in this order
OUT_OF_MEMORY = 77  # exit status; the clip may be innocent, so a fresh child tries it again
PR_SET_PDEATHSIG = 1  # prctl(2)
COMMAND = (sys.executable, "-c", "from earshot.media.decoder_process import serve; serve()")


class Window:
    """A part of a file as a file of its own, open for reading and seeking."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self.descriptor, self.offset, self.size, self.position = descriptor, offset, size, 0

    def read(self, count: int = -1) -> bytes:
        left = max(self.size - self.position, 0)
        data = os.pread(self.descriptor, left if count < 0 else min(count, left), self.offset + self.position)
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position


class Decoder:
    """A child process that decodes clips one after another, started when it is needed.

    `seconds` bounds the time for one clip. `command` is what starts the child.
    """

    def __init__(self, seconds: float, command: tuple[str, ...] = COMMAND) -> None:
        self.seconds, self.command = seconds, command
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def decode(self, path: Path, offset: int, size: int, wanted: Wanted) -> Decoded:
        """Decode the clip that is `size` bytes of `path` from `offset` on.

        A child that dies is replaced and gets the clip once more: it may have been ended from outside. Raises Refusal
        for a clip that yields nothing, or that ends the child (timeout, too-large or unreadable).
        """
        request = {"path": str(path), "offset": offset, "size": size, "seconds": self.seconds, "wanted": asdict(wanted)}
        for _ in range(2):
            try:
                return self._ask(request)
            except (EOFError, BrokenPipeError):
                status = self._end()
            if status == -signal.SIGALRM:
                raise Refusal("timeout", f"not decoded within {self.seconds:g} s")
        if status == OUT_OF_MEMORY:
            raise Refusal("too-large", f"needs more than {MEMORY_LIMIT >> 20} MB of memory")
        raise Refusal("unreadable", f"the decoder crashed ({_name(status)})")

    def _ask(self, request: dict[str, Any]) -> Decoded:
        child = self._child or self._start()
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        answer = json.loads(_line(child.stdout))
        if "refusal" in answer:
            raise Refusal(*answer["refusal"])
        parts = {name: [_exactly(child.stdout, size) for size in answer.pop(name)] for name in PARTS}
        return Decoded(**answer | parts | {"sound": parts["sound"][0], "measured": Measured(**answer["measured"])})

    def _start(self) -> subprocess.Popen:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in (str(Path(__file__).parents[2]), *sys.path) if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [*self.command, str(os.getpid())]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        if self._child.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the decoding process does not start (exit status {self._end()})")
        return self._child

    def _end(self) -> int:
        """End the child if it runs; return its exit status."""
        child, self._child = self._child, None
        if child is None:
            return 0
        child.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            return child.wait(timeout=1)  # it ends by itself when nothing more can come
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def serve() -> None:
    """The child: answer requests from standard input until it ends; the parent's process id is the last argument."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _confine(int(sys.argv[-1]))
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        _answer(json.loads(line), answers)
        answers.flush()


def _confine(parent: int) -> None:
    """Die with the parent, eat no more than `MEMORY_LIMIT`, write nothing but answers, leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process, whatever native code is doing
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent has ended")
    for limit, value in ((resource.RLIMIT_DATA, MEMORY_LIMIT), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nothing, stream.fileno())


def _answer(request: dict[str, Any], answers: BinaryIO) -> None:
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        decoded = asdict(_decode(request))
    except Refusal as refusal:
        answers.write(json.dumps({"refusal": [refusal.reason, refusal.detail]}).encode() + b"\n")
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    else:
        parts = decoded | {"sound": [decoded["sound"]]}
        sizes = {name: [len(part) for part in parts[name]] for name in PARTS}
        answers.write(json.dumps(decoded | sizes).encode() + b"\n")
        answers.writelines(part for name in PARTS for part in parts[name])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _decode(request: dict[str, Any]) -> Decoded:
    wanted = Wanted(**request["wanted"])
    try:
        descriptor = os.open(request["path"], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refusal("unreadable", error.strerror) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refusal("unsupported", "not a regular file")
        return decode_clip(Window(descriptor, request["offset"], request["size"]), wanted)
    finally:
        os.close(descriptor)
