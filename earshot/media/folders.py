"""A folder of videos and its sub-folders: every file in it, by sorted name, one folder's names in memory at a time."""

import csv
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

from earshot.core.errors import EarshotError
from earshot.core.text import printable
from earshot.media.clips import Annotations, Clip, clip_name, may_be_clip, one_line
from earshot.media.sidecars import MAX_SIDECAR_BYTES, annotations_of, read_json

MANIFEST = "manifest.csv"
FILE_COLUMNS = ("file", "path")
ANNOTATION_COLUMNS = ("annotations", "annotation", "labels", "label")


def walk(root: Path) -> Iterator[str]:
    """The relative names of all files below `root`, sorted; what begins with a dot is left out, links are files."""
    waiting = [_names(root, "")]
    while waiting:
        name = next(waiting[-1], None)
        if name is None:
            waiting.pop()
        elif name.endswith("/"):
            waiting.append(_names(root, name))
        else:
            yield name


def _names(root: Path, folder: str) -> Iterator[str]:
    """What is in a folder, sorted; a folder sorts as what is in it does, by its name and a slash."""
    with os.scandir(root / folder) as found:
        names = [e.name + "/" * e.is_dir(follow_symlinks=False) for e in found if not e.name.startswith(".")]
    return (folder + name for name in sorted(names))


def clips_in_folder(root: Path) -> Iterator[Clip]:
    """The clips of a folder by sorted name, with what its manifest or the .json beside each says.

    Whatever leads out of the folder or is no file is refused.

    Raises EarshotError for a manifest that is none or that names none of the files beside it.
    """
    files = (name for name in walk(root) if may_be_clip(PurePosixPath(name).name))
    with closing(sqlite3.connect("")) as said:  # a file of the system's own, so that memory does not grow
        if not _read_manifest(root / MANIFEST, said):
            yield from (_with_sidecar(root, _clip(root, name)) for name in files)
            return
        first, count, named, above = "", 0, 0, root.resolve().name
        for name in files:
            row, clip = _lookup(said, above, name), _clip(root, name)
            first, count, named = first or name, count + 1, named + (row is not None)
            yield replace(clip, group=row.group, annotations=row.annotations) if row else _with_sidecar(root, clip)
        if count and not named:
            raise EarshotError(f"{root / MANIFEST}: names none of the {count} files beside it, the first is {first}")


def _clip(root: Path, source: str) -> Clip:
    path = root / source
    clip = Clip(clip_name(source), "", path, 0, 0, source=source)
    if _leads_out(root, path):
        return replace(clip, refusal=("unsupported", "a link that leads out of the folder"))
    if not path.is_file():
        return replace(clip, refusal=("unsupported", "not a regular file"))
    return replace(clip, size=path.stat().st_size)


def _leads_out(root: Path, path: Path) -> bool:
    """Whether a file is a link to somewhere else; folders on the way to it are none, since links are not followed."""
    return path.is_symlink() and not path.resolve().is_relative_to(root.resolve())


def _with_sidecar(root: Path, clip: Clip) -> Clip:
    """A .json of another kind than ours and video2dataset's says nothing: anything may lie in a folder."""
    path = clip.path.with_suffix(".json")
    try:
        if not path.is_file() or path.stat().st_size > MAX_SIDECAR_BYTES or _leads_out(root, path):
            return clip
        said = annotations_of(read_json(path.read_bytes()))
    except (OSError, ValueError):
        return clip
    return replace(clip, group=said.group, annotations=said.annotations)


def _read_manifest(path: Path, said: sqlite3.Connection) -> bool:
    """Put the rows of a folder's manifest into a table by file, the last of several; whether there is one."""
    if not path.is_file():
        return False
    said.execute("create table said (file blob primary key, group_name text, annotations text) without rowid")
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        column = next((name for name in FILE_COLUMNS if name in columns), None)
        if column is None:
            found = ", ".join(columns) or "nothing"
            raise EarshotError(f"{path}: has the columns {printable(found)}, wanted one named file or path")
        rows = ((_key(PurePosixPath(row[column] or "").as_posix()), *_values(row)) for row in reader)
        try:
            said.executemany("insert or replace into said values (?, ?, ?)", rows)
        except csv.Error as error:
            raise EarshotError(f"{path}: line {reader.line_num}: {error}; mend or remove the manifest") from error
    return True


def _values(row: dict[str, str]) -> tuple[str, str]:
    """Group and annotations of a row; annotations in a cell are separated by semicolons."""
    cell = next((row[name] for name in ANNOTATION_COLUMNS if row.get(name)), "")
    return one_line(row.get("group")), json.dumps([one_line(part) for part in cell.split(";") if part.strip()])


def _lookup(said: sqlite3.Connection, above: str, source: str) -> Annotations | None:
    """What the manifest says of a file; rows start from the manifest's folder, or from above it with its name."""
    for name in (source, f"{above}/{source}"):
        row = said.execute("select group_name, annotations from said where file = ?", (_key(name),)).fetchone()
        if row:
            return Annotations(row[0], tuple(json.loads(row[1])))
    return None


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
