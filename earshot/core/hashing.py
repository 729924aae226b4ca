"""Hashes that name things: the work of a stage, and a list of clips or other items.

A stage keeps unfinished work under a hash of its inputs, parameters and code, so that only an identical run resumes it.
Downloads do not depend on the code, so their hash leaves the code out. Scores carry the hashes of the lists that they
come from, so that scores of different lists can be distinguished.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_BYTES = 256 << 20  # the most that a fingerprint reads of the inputs: at most a second
UNDECODABLE = "utf-8", "surrogateescape"  # file names may be any bytes


def fingerprint(inputs: Iterable[Path], values: dict[str, Any], sources: Iterable[Path] = ()) -> str:
    """Sixteen hexadecimal digits that change with any input file, parameter value or line of the source files.

    Each input file contributes its name below the input and its content, until `CONTENT_BYTES` are read. Files beyond
    that contribute size and modification time, because reading terabytes would take longer than the work it saves.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    left = CONTENT_BYTES
    for path in inputs:
        digest.update(b"input\n")
        for file, status in _files(path):
            name = os.path.relpath(file, path)
            content = _content(file, status) if status.st_size <= left else None
            left -= status.st_size if content else 0
            digest.update(f"{name}\0{status.st_size}\0{content or status.st_mtime_ns}\n".encode(*UNDECODABLE))
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """A file, or all files of a folder in order."""
    if not path.is_dir():
        yield path, path.stat()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            yield file, file.stat() if file.exists() else file.lstat()


def _content(file: Path, status: os.stat_result) -> str | None:
    """The SHA-256 of a regular file; None if the file cannot be read."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(status.st_mode):
            with open(file, "rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
    return None


def list_hash(items: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that depend on the items of a list and not on their order.

    They begin the SHA-256 of the items' own SHA-256 digests (of their UTF-8), sorted and joined. Memory holds 32 bytes
    for each item.
    """
    digests = bytearray()
    for item in items:
        digests += hashlib.sha256(item.encode(*UNDECODABLE)).digest()
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    order = np.lexsort(words.T[::-1])
    return hashlib.sha256(words[order].tobytes()).hexdigest()[:16]


def loaded_sources() -> list[Path]:
    """The source files of every module of this project that the running stage has imported."""
    files = (getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if _is_ours(name))
    return sorted(Path(file) for file in files if file)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in ("earshot", "stages") or name == "__main__"


def stable_hash(text: str) -> int:
    """Hash a text to an 8-byte number, the same on every machine and in every process, unlike Python's `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
