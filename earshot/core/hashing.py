"""Names made by hashing: of what a stage is about to do, and of a list of clips or other items.

Unfinished work is kept under the name of its inputs, parameters and code, so that it is taken up again only by a run
that would do the same. What no code has made, as what was downloaded, goes by inputs and parameters alone. Scores carry
the names of the lists that they come from, so that those of different lists can be told apart.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def fingerprint(inputs: Iterable[Path], values: dict[str, Any], sources: Iterable[Path] = ()) -> str:
    """Sixteen hexadecimal digits that change with any input file, parameter value or line of the source files.

    Input files count by path, size and time of change: reading terabytes to name a scratch folder would cost more than
    the work it might save.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for path in inputs:
        for name, size, changed in _files(path):
            digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def list_hash(items: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that change with any item of a list and not with their order.

    They are the first of the SHA-256 of the items' own SHA-256 digests, sorted and joined; an item counts as UTF-8.
    Memory holds the digests, 32 bytes an item.
    """
    digests = bytearray()
    for item in items:
        digests += hashlib.sha256(item.encode("utf-8", "surrogateescape")).digest()
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    order = np.lexsort(words.T[::-1])
    return hashlib.sha256(words[order].tobytes()).hexdigest()[:16]


def loaded_sources() -> list[Path]:
    """The source files of every module of this project that the running stage has imported."""
    files = (getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if _is_ours(name))
    return sorted(Path(file) for file in files if file)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in ("earshot", "stages") or name == "__main__"


def _files(path: Path) -> Iterable[tuple[str, int, int]]:
    if not path.is_dir():
        status = path.stat()
        yield str(path), status.st_size, status.st_mtime_ns
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(folder, name), follow_symlinks=False)
            yield os.path.join(folder, name), status.st_size, status.st_mtime_ns


def stable_hash(text: str) -> int:
    """Eight bytes of a text as a number, the same for ever and everywhere, which Python's own hash is not."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
