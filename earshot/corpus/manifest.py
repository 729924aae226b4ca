"""Manifests: the lists of clips that people publish and write, read as one stream of rows.

Four kinds are told apart by their first row:

- AudioSet's segments: `YTID, start, end, "label,label"`, comment lines above;
- VGGSound's table: `YTID,start,label,split`, no header, 10 s a clip;
- VGGSound's list of files: `YTID_000030.mp4,label`, the start in the name, 10 s a clip;
- a plain table with a header: `url,start,end` or `path,start,end`, and where wanted `group` and `annotations`
  (or `label`; several are separated by semicolons). Other columns are left alone.
"""

import csv
import hashlib
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from earshot.pipeline.errors import EarshotError

VGGSOUND_SECONDS = 10.0
LONGEST = 1_000_000.0  # seconds into a source, more than eleven days: above it a column is not in seconds
NAME_LENGTH = 64  # characters of a source's name in a clip_id: with hash and start well under the 100 of a tar header

YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)
YOUTUBE_ADDRESS = re.compile(
    r"https?://(?:(?:www|m|music)\.)?(?:youtube\.com/(?:watch\?(?:[^#]*&)?v=|shorts/|embed/|live/)|youtu\.be/)"
    r"([\w-]{11})(?![\w-])",
    re.ASCII,
)
VGGSOUND_FILE = re.compile(r"([\w-]{11})_(\d{6})\.mp4", re.ASCII)
TEXT_COLUMNS = ("annotations", "labels", "label")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One clip asked for: seconds `start` to `end` of `source`.

    `source` is an address, or where `is_local` a path below the manifest's folder. `clip_id` is the name of the source
    and the start in milliseconds, safe as a file name; `group` is the source video.
    """

    clip_id: str
    source: str
    start: float
    end: float
    group: str
    annotations: tuple[str, ...]
    is_local: bool


class _BadField(Exception):
    """What is wrong with one field of a row; the reader knows file and line."""


def manifest_file(manifest: Path) -> Path:
    """The csv file of a manifest: itself, or manifest.csv in a folder.

    Raises EarshotError where there is none.
    """
    file = manifest / "manifest.csv" if manifest.is_dir() else manifest
    if not file.is_file():
        raise EarshotError(f"{file}: no such file; corpus.manifest is a csv file or a folder with manifest.csv")
    return file


def read_manifest(manifest: Path) -> Iterator[ManifestRow]:
    """The rows of a manifest in order, one at a time: memory does not grow with its length.

    Raises EarshotError, naming file, line and field, for the first row that cannot be understood.
    """
    for _, row in numbered_rows(manifest):
        yield row


def numbered_rows(manifest: Path) -> Iterator[tuple[int, ManifestRow]]:
    """As `read_manifest`, with the line in the file on which each row ends."""
    file = manifest_file(manifest)
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines, skipinitialspace=True, strict=True)
        try:
            yield from _rows(file, reader)
        except UnicodeDecodeError:
            raise EarshotError(f"{file}, after line {reader.line_num}: not UTF-8 text; save it as UTF-8") from None
        except csv.Error as error:
            raise EarshotError(f"{file}, line {reader.line_num}: not a CSV row ({error}); mend the line") from None


def _rows(file: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, ManifestRow]]:
    records = (fields for fields in reader if any(fields) and not fields[0].startswith("#"))
    first = next(records, None)
    if first is None:
        raise EarshotError(f"{file}: holds no rows; wanted a list of clips")
    header = [field.strip().lower() for field in first]
    parse = _recognise(file, reader.line_num, first, header)
    # A header is no row; the lists without one begin at once.
    for fields in records if _is_header(header) else itertools.chain([first], records):
        try:
            yield reader.line_num, parse([field.strip() for field in fields])
        except _BadField as error:
            raise EarshotError(f"{file}, line {reader.line_num}: {error}") from None


def _is_header(header: list[str]) -> bool:
    return "url" in header or "path" in header


def _recognise(file: Path, line: int, first: list[str], header: list[str]) -> Callable[[list[str]], ManifestRow]:
    """The parser of this kind of manifest."""
    if _is_header(header):
        missing = [name for name in ("start", "end") if name not in header]
        if missing or len(set(header)) < len(header):
            problem = f"the column {missing[0]} is missing" if missing else "a column is there twice"
            raise EarshotError(f"{file}, line {line}: {problem}; wanted url,start,end or path,start,end")
        return lambda fields: _plain(fields, header)
    if VGGSOUND_FILE.fullmatch(first[0].strip()):
        return _vggsound_file
    if YOUTUBE_ID.fullmatch(first[0].strip()) and len(first) >= 3:
        return _audioset if _is_number(first[2]) else _vggsound
    shown = ",".join(first)[:60]
    raise EarshotError(
        f"{file}, line {line}: found {shown!r}, wanted AudioSet's or VGGSound's rows or a header with url,start,end "
        "or path,start,end; add that header"
    )


def _audioset(fields: list[str]) -> ManifestRow:
    """`YTID, start, end, "label,label"`."""
    if len(fields) != 4:
        raise _BadField(f"{len(fields)} fields, wanted 4: YTID, start, end, labels")
    labels = tuple(label.strip() for label in fields[3].split(",") if label.strip())
    return _youtube(fields[0], _seconds("start", fields[1]), _seconds("end", fields[2]), labels)


def _vggsound(fields: list[str]) -> ManifestRow:
    """`YTID,start,label,split`; the split is not ours to follow, groups are split by their hash."""
    if len(fields) not in (3, 4):
        raise _BadField(f"{len(fields)} fields, wanted 4: YTID,start,label,split")
    start = _seconds("start", fields[1])
    return _youtube(fields[0], start, start + VGGSOUND_SECONDS, (fields[2],))


def _vggsound_file(fields: list[str]) -> ManifestRow:
    """`YTID_000030.mp4,label`."""
    match = VGGSOUND_FILE.fullmatch(fields[0])
    if not match or len(fields) != 2:
        raise _BadField(f"file {fields[0]!r}: wanted two fields, such as --PJHxphWEs_000030.mp4,label")
    start = float(match[2])
    return _youtube(match[1], start, start + VGGSOUND_SECONDS, (fields[1],))


def _youtube(video: str, start: float, end: float, annotations: tuple[str, ...]) -> ManifestRow:
    if not YOUTUBE_ID.fullmatch(video):
        raise _BadField(f"YTID {video!r}: wanted the 11 letters, digits, - and _ of a YouTube video")
    return _row(f"https://www.youtube.com/watch?v={video}", video, start, end, video, annotations, is_local=False)


def _plain(fields: list[str], header: list[str]) -> ManifestRow:
    if len(fields) != len(header):
        raise _BadField(f"{len(fields)} fields, the header has {len(header)}; quote a field that holds a comma")
    values = dict(zip(header, fields, strict=True))
    path, address = values.get("path", ""), values.get("url", "")
    if bool(path) == bool(address):
        raise _BadField("path and url: " + ("both are given" if path else "nothing is given") + ", wanted one of them")
    name = path_name(path) if path else address_name(address)
    text = next((values[column] for column in TEXT_COLUMNS if values.get(column)), "")
    annotations = tuple(part.strip() for part in text.split(";") if part.strip())
    start, end = _seconds("start", values["start"]), _seconds("end", values["end"])
    return _row(path or address, name, start, end, values.get("group") or name, annotations, is_local=bool(path))


def _row(
    source: str, name: str, start: float, end: float, group: str, annotations: tuple[str, ...], *, is_local: bool
) -> ManifestRow:
    if end <= start:
        raise _BadField(f"end {end:g}: wanted more than start, {start:g}")
    return ManifestRow(f"{name}_{round(start * 1000)}", source, start, end, group, annotations, is_local)


def _seconds(field: str, text: str) -> float:
    value = float(text) if _is_number(text) else -1.0
    if not 0 <= value <= LONGEST:
        raise _BadField(f"{field} {text!r}: wanted seconds from 0 to {LONGEST:,.0f}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def address_name(address: str) -> str:
    """The name of an address in a clip_id: YouTube's own id, or the last word of the path and a hash of the whole."""
    match = YOUTUBE_ADDRESS.match(address)
    if match:
        return match[1]
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise _BadField(f"url {address!r}: {error}") from None
    last = unquote(parts.path).rstrip("/").rpartition("/")[2]
    return _safe(posixpath.splitext(last)[0] or parts.netloc, address)


def path_name(path: str) -> str:
    """The name of a local file in a clip_id: its path without the suffix, and a hash where that might not be unique.

    Raises _BadField for a path that leaves the manifest's folder.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\0" in path or "\\" in path:
        raise _BadField(f"path {path!r}: wanted a path below the manifest's folder, with / and without ..")
    stem, suffix = posixpath.splitext(path)
    name = stem.replace("/", "-")
    if suffix.lower() == ".mp4" and re.fullmatch(rf"[\w-]{{1,{NAME_LENGTH}}}", name, re.ASCII):
        return name
    return _safe(name, path)


def _safe(name: str, whole: str) -> str:
    letters = re.sub(r"[^\w-]+", "-", name, flags=re.ASCII)[:NAME_LENGTH]
    return f"{letters}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"
