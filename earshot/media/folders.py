"""A folder of videos and its sub-folders: every file in sorted order, with one folder's names in memory at a time."""

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
from earshot.media.clips import ClipAnnotations, MediaFile, clip_name, may_be_clip, one_line
from earshot.media.sidecars import MAX_SIDECAR_BYTES, annotations_of, read_json

MANIFEST = "manifest.csv"
FILE_COLUMNS = ("file", "path")
ANNOTATION_COLUMNS = ("annotations", "annotation", "labels", "label")


def walk(root: Path) -> Iterator[str]:
    """The sorted relative names of all files below `root`, without names that begin with a dot; a link is a file."""
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
    """The sorted names in a folder; a sub-folder's name ends with a slash, so that it sorts like its contents."""
    with os.scandir(root / folder) as entries:
        names = [e.name + "/" * e.is_dir(follow_symlinks=False) for e in entries if not e.name.startswith(".")]
    return (folder + name for name in sorted(names))


def clips_in_folder(root: Path) -> Iterator[MediaFile]:
    """The clips of a folder in sorted order, with groups and annotations from its manifest or from a .json beside each.

    Links that lead out of the folder, and whatever is not a regular file, are refused.

    Raises EarshotError for a manifest without a column of files, or that names none of the files beside it.
    """
    files = (name for name in walk(root) if may_be_clip(PurePosixPath(name).name))
    with closing(sqlite3.connect("")) as manifest:  # a temporary file of SQLite's, so that memory stays flat
        if not _read_manifest(root / MANIFEST, manifest):
            yield from (_with_sidecar(root, _clip(root, name)) for name in files)
            return
        first, count, named, above = "", 0, 0, root.resolve().name
        for name in files:
            row, clip = _lookup(manifest, above, name), _clip(root, name)
            first, count, named = first or name, count + 1, named + (row is not None)
            yield replace(clip, group=row.group, annotations=row.annotations) if row else _with_sidecar(root, clip)
        if count and not named:
            raise EarshotError(f"{root / MANIFEST}: names none of the {count} files beside it; the first is {first}")


def _clip(root: Path, source: str) -> MediaFile:
    path = root / source
    clip = MediaFile(clip_name(source), "", path, 0, 0, source=source)
    if _leads_out(root, path):
        return replace(clip, refusal=("unsupported", "a link that leads out of the folder"))
    if not path.is_file():
        return replace(clip, refusal=("unsupported", "not a regular file"))
    return replace(clip, size=path.stat().st_size)


def _leads_out(root: Path, path: Path) -> bool:
    """Whether a file is a link to a place outside; its folders cannot be links, since `walk` does not follow them."""
    return path.is_symlink() and not path.resolve().is_relative_to(root.resolve())


def _with_sidecar(root: Path, clip: MediaFile) -> MediaFile:
    """The clip with what a .json beside it says; a .json of an unknown format is ignored."""
    path = clip.path.with_suffix(".json")
    try:
        if not path.is_file() or path.stat().st_size > MAX_SIDECAR_BYTES or _leads_out(root, path):
            return clip
        sidecar = annotations_of(read_json(path.read_bytes()))
    except (OSError, ValueError):
        return clip
    return replace(clip, group=sidecar.group, annotations=sidecar.annotations)


def _read_manifest(path: Path, manifest: sqlite3.Connection) -> bool:
    """Load a folder's manifest into a table by file; the last row of a file counts. False where there is none."""
    if not path.is_file():
        return False
    manifest.execute("create table rows (file blob primary key, group_name text, annotations text) without rowid")
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        column = next((name for name in FILE_COLUMNS if name in columns), None)
        if column is None:
            names = printable(", ".join(columns)) or "none"
            raise EarshotError(f"{path}: has the columns {names}, expected one named file or path")
        rows = ((_key(PurePosixPath(row[column] or "").as_posix()), *_values(row)) for row in reader)
        try:
            manifest.executemany("insert or replace into rows values (?, ?, ?)", rows)
        except csv.Error as error:
            raise EarshotError(f"{path}: line {reader.line_num}: {error}; correct or remove the manifest") from error
    return True


def _values(row: dict[str, str]) -> tuple[str, str]:
    """Group and annotations of a row; semicolons separate the annotations in a cell."""
    cell = next((row[name] for name in ANNOTATION_COLUMNS if row.get(name)), "")
    return one_line(row.get("group")), json.dumps([one_line(part) for part in cell.split(";") if part.strip()])


def _lookup(manifest: sqlite3.Connection, above: str, source: str) -> ClipAnnotations | None:
    """The row of a file; rows name files relative to the manifest's folder or, with its name `above`, to its parent."""
    for name in (source, f"{above}/{source}"):
        row = manifest.execute("select group_name, annotations from rows where file = ?", (_key(name),)).fetchone()
        if row:
            return ClipAnnotations(row[0], tuple(json.loads(row[1])))
    return None


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
