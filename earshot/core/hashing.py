"""Names made by hashing: of what a stage is about to do, and of a list of clips or other items.

Unfinished work is kept under the name of its inputs, parameters and code, so that it is taken up again only by a run
that would do the same. What no code has made, as what was downloaded, goes by inputs and parameters alone. Scores carry
the names of the lists that they come from, so that those of different lists can be told apart.
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

CONTENT_BYTES = 256 << 20  # of inputs that are read for a fingerprint: a second at most
UNDECODABLE = "utf-8", "surrogateescape"  # names of files may be any bytes


def fingerprint(inputs: Iterable[Path], values: dict[str, Any], sources: Iterable[Path] = ()) -> str:
    """Sixteen hexadecimal digits that change with any input file, parameter value or line of the source files.

    Input files count by their names below the input and by their content, until `CONTENT_BYTES` are read; what would
    take more than that counts by size and time of change: reading terabytes to name a scratch folder would cost more
    than the work it might save.
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
    """The SHA-256 of a plain file that can be read."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(status.st_mode):
            with open(file, "rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
    return None


def list_hash(items: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that change with any item of a list and not with their order.

    They are the first of the SHA-256 of the items' own SHA-256 digests, sorted and joined; an item counts as UTF-8.
    Memory holds the digests, 32 bytes an item.
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
    """Eight bytes of a text as a number, the same for ever and everywhere, which Python's own hash is not."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
