"""Runs a command; records what it and its Python processes write, start and connect to, and how large they get.

An audit hook in each process reports through a named pipe, which a limit on the size of files does not close. Decoders
written in C open files without a report; `strace` would show those.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

HOOK = """
import json, os, sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {"os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
         "os.chmod": 1, "sqlite3.connect": 1}
OTHERS = {"socket.connect", "socket.sendto", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}

def report(event, arguments):
    if event == "open":
        if not isinstance(arguments[0], (str, bytes)) or not (arguments[2] or 0) & WRITES:
            return
        event, values = "write", [os.path.abspath(os.fsdecode(arguments[0]))]
    elif event in PATHS:
        paths = [path for path in arguments[:PATHS[event]] if isinstance(path, (str, bytes, os.PathLike))]
        # Of a rename and of a link, the second is written; the first of a symbolic link is a text.
        if not paths or paths[-1] in ("", ":memory:"):
            return
        folder = arguments[-1] if event not in ("os.truncate", "sqlite3.connect") else -1
        above = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else ""
        event, values = "write", [os.path.abspath(os.path.join(above, os.fsdecode(paths[-1])))]
    elif event in OTHERS:
        last = arguments[1] if event.startswith("socket") else arguments[0]
        values = [*last] if isinstance(last, tuple) else [os.fsdecode(last) if isinstance(last, bytes) else str(last)]
    else:
        return
    line = json.dumps([os.getpid(), event, [str(value)[:600] for value in values]])
    os.write(pipe, line.encode("ascii", "replace") + b"\\n")

if os.environ.get("WATCH_PIPE"):
    pipe = os.open(os.environ["WATCH_PIPE"], os.O_WRONLY)
    sys.addaudithook(report)
"""
EVERY = 0.03  # s between two looks at the memory of all processes


@dataclass(frozen=True)
class Watched:
    """What a command did: its status and output, its events (kind, values), and the largest of its processes in MB."""

    status: int
    output: str
    events: list[tuple[str, tuple[str, ...]]]
    peak: float

    def of(self, kind: str) -> set[tuple[str, ...]]:
        """The different events of a kind: write, or the name of an audit event such as socket.connect."""
        return {values for event, values in self.events if event == kind}


def run(
    command: Sequence[object], folder: Path, seconds: float, cwd: Path, environment: Mapping[str, str] = os.environ
) -> Watched:
    """Run a command in `cwd` with temporary files in `folder`/tmp; raises subprocess.TimeoutExpired."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK)
    pipe = folder / "events"
    if not pipe.exists():
        os.mkfifo(pipe)
    temporary = dict.fromkeys(("TMPDIR", "JOBLIB_TEMP_FOLDER", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(folder / "tmp"))
    python = {"PYTHONPATH": os.pathsep.join([str(folder), str(cwd)]), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=cwd,
        env={**environment, **temporary, **python, "WATCH_PIPE": str(pipe)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    events: list[tuple[str, tuple[str, ...]]] = []
    reading = os.open(pipe, os.O_RDWR)  # its own end for writing: it never reports an end
    threading.Thread(target=_read, args=(reading, events), daemon=True).start()
    peaks: dict[int, float] = {}
    ended = threading.Event()
    looking = threading.Thread(target=_look, args=(process.pid, peaks, ended), daemon=True)
    looking.start()
    try:
        output = process.communicate(timeout=seconds)[0]
    finally:
        ended.set()
        process.kill()
        looking.join()
        os.write(reading, b"\n")  # the reader ends
    return Watched(process.returncode, output.decode("utf-8", "replace"), events, max(peaks.values(), default=0.0))


def python(*words: object) -> list[object]:
    """The command of a Python program."""
    return [sys.executable, *words]


def _read(pipe: int, events: list) -> None:
    with os.fdopen(pipe, "rb", buffering=0) as stream:
        left = b""
        while piece := stream.read(1 << 16):
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                if not line:
                    return
                _, kind, values = json.loads(line)
                events.append((kind, tuple(values)))


def _look(process: int, peaks: dict[int, float], ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        try:
            family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
        except psutil.Error:
            return
        for member in family:
            try:
                status = Path(f"/proc/{member.pid}/status").read_text()
                peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            except (OSError, StopIteration):
                continue
            peaks[member.pid] = max(peaks.get(member.pid, 0.0), peak / 1024)
