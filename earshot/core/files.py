"""Files that are there whole or not at all, and the numbered files of a table."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from earshot.core.errors import EarshotError


def shard_name(number: int) -> str:
    """Five digits, as the WebDataset convention has it: 3 is "00003"."""
    return f"{number:05d}"


def shard_paths(folder: Path, suffix: str) -> list[Path]:
    """The shards of a table, in order.

    Raises EarshotError where the folder holds none or where a number is missing.
    """
    paths = sorted((p for p in folder.glob(f"*{suffix}") if p.stem.isdigit()), key=lambda path: int(path.stem))
    if not paths:
        raise EarshotError(f"{folder}: holds no shards such as {shard_name(0)}{suffix}; run the stage that writes it")
    for number, path in enumerate(paths):
        if int(path.stem) != number:
            raise EarshotError(f"{folder}: found {path.name}, wanted {shard_name(number)}{suffix}: a shard is missing")
    return paths


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is gone when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of chance: machines of a cluster may give the same shard to processes of the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link_file(source: Path, target: Path) -> None:
    """Put a file at `target` too, whole: as a hard link, or copied across file systems."""
    with write_atomically(target) as temporary_path:
        _link_or_copy(source, temporary_path)


def link_tree(source: Path, target: Path) -> None:
    """Put `source` at `target` whole: hard links in a folder beside it, then one rename; copies across file systems."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary_path = target.with_name(f".{target.name}.placing")
    for leftover in (temporary_path, target.with_name(f".{target.name}.replaced")):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, temporary_path, copy_function=_link_or_copy)
    if target.is_symlink():
        target.unlink()
    if target.exists():
        replaced = target.with_name(f".{target.name}.replaced")
        os.replace(target, replaced)
        os.replace(temporary_path, target)
        shutil.rmtree(replaced)
    else:
        os.replace(temporary_path, target)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
