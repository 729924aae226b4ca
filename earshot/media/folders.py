"""A folder of videos and its sub-folders: every file in sorted order, with one folder's names in memory at a time.

The rows of its manifest.csv are matched to the files by name. Where no file has exactly this name, the case of letters,
the form of accents (NFC, NFD), outer spaces and the direction of slashes do not count.
"""

import csv
import io
import itertools
import json
import os
import posixpath
import re
import sqlite3
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from earshot.core.errors import EarshotError
from earshot.core.files import real_path
from earshot.core.messages import printable
from earshot.core.text import SEPARATORS, encoding_of, separator_of
from earshot.core.untrusted import check_text, open_without_links
from earshot.media.clips import (
    LONE_SIDECAR,
    ClipAnnotations,
    MediaFile,
    Skipped,
    clip_name,
    ignored_kind,
    may_be_clip,
    one_line,
)
from earshot.media.sidecars import MAX_SIDECAR_BYTES, annotations_of, read_json

MANIFEST = "manifest.csv"
FILE_COLUMNS = ("file", "path", "filename", "file_name", "filepath")
ANNOTATION_COLUMNS = ("annotations", "annotation", "labels", "label")
DVC_CACHE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}")  # the end of a path in DVC's cache, after 2 and 30 digits of MD5
NAMED = 3  # names in a message
HEADER_LENGTH = 200  # characters of a header in a message
TABLES = """
create table files (name blob primary key, loose blob, stem blob, line integer, group_name text, annotations text);
create index loose_names on files (loose);
create index stems on files (stem);
create table sidecars (stem blob primary key, name blob);
"""


@dataclass(frozen=True)
class Folder:
    """A folder of clips, and the folders outside to which links in it may lead.

    Links within the folder and those that DVC made to its cache are always followed.
    """

    root: Path
    follow_links: Sequence[Path] = ()

    def leads_out(self, path: Path) -> bool:
        """Whether a path is a link to a place to which no link may lead."""
        if not path.is_symlink():
            return False
        target, inside = real_path(path), (real_path(self.root), *map(real_path, self.follow_links))
        return not any(map(target.is_relative_to, inside)) and not _in_dvc_cache(path)

    def refused_link(self, path: Path) -> tuple[str, str] | None:
        """Reason and detail of the refusal of a link that leads out, else None."""
        if not self.leads_out(path):
            return None
        detail = f"a link that leads out of the folder, to {os.readlink(path)}; corpus.follow_links may name its folder"
        return "unsupported", detail

    def is_folder(self, entry: os.DirEntry, above: Path) -> bool:
        """Whether to list the contents of an entry: a folder, or a link to one of `follow_links` or a folder in it.

        A link to a folder that holds it is a file, since its contents would never end.
        """
        if not entry.is_symlink():
            return entry.is_dir()
        target = real_path(Path(entry.path))
        followed = any(target.is_relative_to(real_path(link)) for link in self.follow_links)
        return followed and target.is_dir() and not real_path(above).is_relative_to(target)


def walk(root: Path, follow_links: Sequence[Path] = ()) -> Iterator[str]:
    """The sorted relative names of all files below `root`, without names that begin with a dot.

    A link is a file, unless it leads to a folder in `follow_links`.
    """
    folder = Folder(root, follow_links)
    waiting = [_names(folder, "")]
    while waiting:
        name = next(waiting[-1], None)
        if name is None:
            waiting.pop()
        elif name.endswith("/"):
            waiting.append(_names(folder, name))
        else:
            yield name


def _names(folder: Folder, inner: str) -> Iterator[str]:
    """The sorted names in a folder; a sub-folder's name ends with a slash, so that it sorts like its contents."""
    above = folder.root / inner
    with os.scandir(above) as entries:
        names = [e.name + "/" * folder.is_folder(e, above) for e in entries if not e.name.startswith(".")]
    return (inner + name for name in sorted(names))


def _in_dvc_cache(link: Path) -> bool:
    target = os.readlink(link)
    return os.path.isabs(target) and DVC_CACHE.fullmatch("/".join(Path(target).parts[-2:])) is not None


def clips_in_folder(
    root: Path,
    follow_links: Sequence[Path] = (),
    unmatched: Literal["stop", "warn"] = "warn",
    skipped: Skipped | None = None,
) -> Iterator[MediaFile]:
    """The clips of a folder in sorted order, with groups and annotations from its manifest or from a .json beside each.

    Links that lead out of the folder, and whatever is not a regular file, are refused; so is a clip whose .json is
    damaged.

    Args:
        root: the folder.
        follow_links: folders outside to which links may lead.
        unmatched: whether rows of the manifest without a file, and files without a row, stop or warn.
        skipped: counts the files that are no clips.

    Raises EarshotError for a manifest that cannot be read, that names none of the files beside it, or that has two
    rows for one file with other values; and for unmatched rows and files, if they stop.
    """
    folder, skipped = Folder(root, follow_links), Skipped() if skipped is None else skipped
    with closing(sqlite3.connect("")) as index:  # a temporary file of SQLite's, so that memory stays flat
        index.executescript(TABLES)
        _load_names(folder, index, skipped)
        manifest = next((root / name for name in sorted(os.listdir(root)) if name.lower() == MANIFEST), None)
        if manifest and folder.leads_out(manifest):
            raise EarshotError(
                f"{manifest}: a link that leads out of the folder, to {os.readlink(manifest)}; copy the file, or name "
                "its folder in corpus.follow_links"
            )
        if manifest and manifest.is_file():
            _Matching(manifest, root, index, unmatched).run()
        rows = index.execute(
            "select files.name, line, group_name, annotations, sidecars.name from files "
            "left join sidecars using (stem) order by files.rowid"
        )
        for name, line, group, annotations, sidecar in rows:
            clip = _clip(folder, _text(name))
            if line is not None:
                clip = replace(clip, group=group, annotations=tuple(json.loads(annotations)))
            yield clip if sidecar is None or clip.group or clip.refusal else _with_sidecar(folder, clip, _text(sidecar))


def _load_names(folder: Folder, index: sqlite3.Connection, skipped: Skipped) -> None:
    """Load the names of clips and of .json files, and count the files that are neither, nor the manifest."""
    for name in walk(folder.root, folder.follow_links):
        stem = _key(_composed(posixpath.splitext(name)[0]))
        if may_be_clip(PurePosixPath(name).name):
            row = _key(name), _key(_loose(name)), stem
            index.execute("insert into files (name, loose, stem) values (?, ?, ?)", row)
        elif name.lower().endswith(".json"):
            index.execute("insert or replace into sidecars values (?, ?)", (stem, _key(name)))
        elif name.lower() != MANIFEST:
            skipped.add(ignored_kind(name), name)
    for (name,) in index.execute("select name from sidecars where stem not in (select stem from files) order by name"):
        skipped.add(LONE_SIDECAR, _text(name))


def _clip(folder: Folder, source: str) -> MediaFile:
    path = folder.root / source
    clip = MediaFile(clip_name(source), "", path, 0, 0, source=source)
    if refused := folder.refused_link(path):
        return replace(clip, refusal=refused)
    path = real_path(path)  # the decoder follows no link, so that nobody can exchange the file for one
    if not path.is_file():
        return replace(clip, refusal=("unsupported", "not a regular file"))
    return replace(clip, path=path, size=path.stat().st_size)


def _with_sidecar(folder: Folder, clip: MediaFile, name: str) -> MediaFile:
    """The clip with what a .json beside it says; annotations of a manifest stay."""
    path = folder.root / name
    if not path.is_file() or folder.leads_out(path):
        return clip
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise ValueError(f"not a file of at most {MAX_SIDECAR_BYTES} bytes")
        with open_without_links(real_path(path)) as file:
            sidecar = annotations_of(read_json(file.read(MAX_SIDECAR_BYTES + 1)))
    except (OSError, ValueError) as error:
        return replace(clip, refusal=("unreadable", f"its .json: {error}"))
    return replace(clip, group=sidecar.group, annotations=clip.annotations or sidecar.annotations)


@dataclass
class _Matching:
    """The rows of a folder's manifest, matched to the files of the index."""

    path: Path
    root: Path
    index: sqlite3.Connection
    unmatched: str

    def run(self) -> None:
        """Give each file its row; raises EarshotError as `clips_in_folder` does."""
        lost, names = 0, []
        for line, name, values in self._rows():
            file = self._file(line, name)
            if file is None:
                lost += 1
                names += [f"{name} (line {line})"] if lost <= NAMED else []
            else:
                self._assign(line, file, values)
        count, named = self.index.execute("select count(*), count(line) from files").fetchone()
        if count and not named:
            first = _text(self.index.execute("select name from files order by rowid").fetchone()[0])
            raise EarshotError(
                f"{self.path}: names none of the {count} files beside it; the first is {printable(first)}"
                + (f", the first row names {printable(names[0])}" if names else "")
            )
        alone = "line is null and stem not in (select stem from sidecars)"
        files = self.index.execute(f"select count(*) from files where {alone}").fetchone()[0]
        first_files = self.index.execute(f"select name from files where {alone} order by rowid limit {NAMED}")
        problems = [
            _several(lost, "rows name no file", names),
            _several(files, "files have no row", [_text(name) for (name,) in first_files]),
        ]
        if text := " and ".join(filter(None, problems)):
            if self.unmatched == "stop":
                raise EarshotError(f"{self.path}: {text}; correct the manifest, or set corpus.unmatched=warn")
            warnings.warn(f"{self.path}: {text}; a file without a row is a group of its own", stacklevel=2)

    def _rows(self) -> Iterator[tuple[int, str, ClipAnnotations]]:
        """Line, file and values of each row, without empty rows."""
        path = real_path(self.path)
        encoding = encoding_of(path)
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"  # a file's name may be any bytes
        with io.TextIOWrapper(open_without_links(path), newline="", encoding=encoding, errors=errors) as file:
            try:
                first = file.readline().removeprefix("\ufeff")
            except UnicodeError as error:
                raise EarshotError(f"{self.path}: cannot be read ({error}); save the file as UTF-8") from None
            separator = separator_of(first, lambda fields: _file_column(fields) is not None and len(fields) > 1)
            reader = csv.reader(itertools.chain([first], file), delimiter=separator, skipinitialspace=True, strict=True)
            try:
                header = next(reader, [])
                parse = self._parser(header)
                for fields in reader:
                    if any(map(str.strip, fields)):
                        if any(map(str.strip, fields[len(header) :])):
                            expected = f"expected {len(header)} as in the header; quote a field that contains "
                            expected += SEPARATORS[separator]
                            raise EarshotError(f"{self.path}: line {reader.line_num}: {len(fields)} fields, {expected}")
                        yield reader.line_num, *parse(fields)
            except (csv.Error, ValueError) as error:
                raise EarshotError(
                    f"{self.path}: line {reader.line_num}: {error}; correct or remove the manifest"
                ) from error

    def _parser(self, header: list[str]) -> Callable[[list[str]], tuple[str, ClipAnnotations]]:
        """A function that returns the file and the values of a row."""
        columns = [name.strip().lower() for name in header]
        column = _file_column(header)
        if column is None:
            names = printable(", ".join(header))[:HEADER_LENGTH] or "none"
            raise EarshotError(
                f"{self.path}: has the columns {names}, expected one named file or path; separate columns by commas, "
                "semicolons or tabs"
            )
        for name in (column, "group", *ANNOTATION_COLUMNS):
            if columns.count(name) > 1:
                raise EarshotError(f"{self.path}: has the column {name} twice, expected it once; remove one of them")

        def parse(fields: list[str]) -> tuple[str, ClipAnnotations]:
            row = dict(zip(columns, fields, strict=False))
            cell = next((row[name] for name in ANNOTATION_COLUMNS if row.get(name)), "")
            words = tuple(check_text(one_line(part)) for part in cell.split(";") if part.strip())
            return row.get(column, ""), ClipAnnotations(check_text(one_line(row.get("group"))), words)

        return parse

    def _file(self, line: int, name: str) -> bytes | None:
        """The file that a row names, relative to the manifest's folder or, with this folder's name, to its parent.

        Raises EarshotError if the name fits several files and is equal to none.
        """
        names = list(dict.fromkeys([name, *_within(_clean(name), self.root)]))
        for text in names:
            if self.index.execute("select 1 from files where name = ?", (_key(text),)).fetchone():
                return _key(text)
        for text in names:
            matches = self.index.execute("select name from files where loose = ? limit 2", (_key(_loose(text)),))
            files = [file for (file,) in matches]
            if len(files) > 1:
                both = " and ".join(printable(_text(file)) for file in files)
                raise EarshotError(
                    f"{self.path}: line {line}: {printable(name)} may be {both}; write the exact name of one"
                )
            if files:
                return files[0]
        return None

    def _assign(self, line: int, file: bytes, values: ClipAnnotations) -> None:
        """Give a file the values of its row; raises EarshotError if another row has given it others."""
        new = values.group, json.dumps(values.annotations)
        query = "select line, group_name, annotations from files where name = ?"
        earlier, *old = self.index.execute(query, (file,)).fetchone()
        if earlier is not None and tuple(old) != new:
            raise EarshotError(
                f"{self.path}: lines {earlier} and {line} both name {printable(_text(file))}, with different groups or "
                "annotations; keep one row for a file, with its annotations separated by semicolons"
            )
        change = "update files set line = ?, group_name = ?, annotations = ? where name = ?"
        self.index.execute(change, (line, *new, file))


def _file_column(header: list[str]) -> str | None:
    """The column of a header that names the files."""
    columns = [name.strip().lower() for name in header]
    return next((name for name in FILE_COLUMNS if name in columns), None)


def _several(count: int, what: str, names: list[str]) -> str:
    """`2 rows name no file: a, b`; empty for none."""
    if not count:
        return ""
    return f"{count:,} {what}: {printable(', '.join(names))}{', ...' if count > len(names) else ''}"


def _clean(name: str) -> str:
    """A path of a manifest with / between its parts and without outer spaces and `.` parts."""
    return posixpath.normpath(name.strip().replace("\\", "/")) if name.strip() else ""


def _within(name: str, root: Path) -> list[str]:
    """The names that a path of a manifest, absolute or not, may have below `root`."""
    places = (os.path.abspath(root), str(real_path(root)))
    whole = [(place, posixpath.normpath(posixpath.join(place, name))) for place in places]
    inner = [path[len(place) + 1 :] for place, path in whole if path.startswith(f"{place}/")]
    first, _, rest = name.partition("/")
    return [name, *inner, rest] if rest and _loose(first) == _loose(real_path(root).name) else [name, *inner]


def _loose(name: str) -> str:
    """The form in which names are compared if none is equal."""
    return _composed(name).strip().casefold()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")
