"""Files that are written whole or not at all, and the numbered files (shards) of a table."""

import contextlib
import errno
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from earshot.core.errors import EarshotError

# The stage that writes each output: errors about a missing or damaged output name it.
WRITERS = {
    "data/sample": "sample",
    "data/clips": "download",
    "data/scenes": "extract",
    "data/annotations": "extract",
    "data/sounds": "describe",
    "models/descriptor": "describe",
    "data/labels": "label",
    "models/labeler": "label",
    "models/pretrain": "pretrain",
    "models/correspond": "correspond",
    "data/predictions": "evaluate",
    "data/explain": "explain",
}


def shard_name(number: int) -> str:
    """Five digits, as the WebDataset convention has it: 3 is "00003"."""
    return f"{number:05d}"


def writing_stage(path: Path) -> str | None:
    """The stage that writes this output or a file in it; None for what no stage writes."""
    return next((stage for output, stage in WRITERS.items() if f"/{output}/" in f"/{path.as_posix()}/"), None)


def run_again(path: Path) -> str:
    """What to do about a missing or damaged file, for the end of an error."""
    stage = writing_stage(path)
    return f"run the stage {stage} again" if stage else "write it again"


def real_path(path: Path) -> Path:
    """The absolute path without links; a link to itself stays one (Path.resolve raises for it before Python 3.13)."""
    return Path(os.path.realpath(path))


def shard_paths(folder: Path, suffix: str) -> list[Path]:
    """The shards of a table, in order.

    Raises EarshotError if the folder holds no shards or a number is missing.
    """
    paths = sorted((p for p in folder.glob(f"*{suffix}") if p.stem.isdigit()), key=lambda path: int(path.stem))
    if not paths:
        raise EarshotError(f"{folder}: holds no shards such as {shard_name(0)}{suffix}; {run_again(folder)}")
    for number, path in enumerate(paths):
        if int(path.stem) != number:
            expected = f"{shard_name(number)}{suffix}"
            raise EarshotError(f"{folder}: found {path.name}, expected {expected}; {run_again(folder)}")
    return paths


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A random name: two machines of a cluster may write the same shard from processes with the same id.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_lock(path: Path) -> BinaryIO:
    """Open a lock file, which stays empty.

    Raises EarshotError for a link or anything else that is not a file: opening it could harm what it leads to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _no_lock(path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_lock(path)
    return os.fdopen(descriptor, "r+b")


def _no_lock(path: Path) -> EarshotError:
    return EarshotError(f"{path}: a link or no regular file, expected a lock file; remove it")


def link_file(source: Path, target: Path) -> None:
    """Put a file at `target` too: atomically, as a hard link, or as a copy on another file system."""
    with write_atomically(target) as temporary_path:
        _link_or_copy(source, temporary_path)


def link_tree(source: Path, target: Path) -> None:
    """Put a folder at `target`: link (or copy) its files into a folder beside `target`, then rename that folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.placing"):
        _remove(leftover)  # of a run that was killed
    # A random name, so that nothing can be in the way.
    temporary_path = target.with_name(f".{target.name}.{secrets.token_hex(6)}.placing")
    shutil.copytree(source, temporary_path, copy_function=_link_or_copy)
    if target.is_symlink():
        target.unlink()
    if target.exists():
        replaced = target.with_name(f".{target.name}.{secrets.token_hex(6)}.placing")
        os.replace(target, replaced)
        os.replace(temporary_path, target)
        _remove(replaced)
    else:
        os.replace(temporary_path, target)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link; what cannot be removed stays."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
