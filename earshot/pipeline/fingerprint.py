"""A name for what a stage is about to do: its inputs, its parameters and its code.

Unfinished work is kept under this name, so that it is taken up again only by a run that would do the same.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def fingerprint(inputs: Iterable[Path], values: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that change with any input file, parameter value or line of loaded Earshot code.

    Input files count by path, size and time of change: reading terabytes to name a scratch folder would cost more than
    the work it might save.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for path in inputs:
        for name, size, changed in _files(path):
            digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    for source in loaded_sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


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
