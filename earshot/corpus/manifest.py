"""Manifests: published and own lists of clips, read as one stream of rows.

The first row of a CSV file decides its kind:

- AudioSet's segments: `YTID, start, end, "label,label"`, comment lines above;
- VGGSound's table: `YTID,start,label,split`, no header, 10 s a clip;
- VGGSound's list of files: `YTID_000030.mp4,label`, the start in the name, 10 s a clip;
- Kinetics' table: `label,youtube_id,time_start,time_end,split` and maybe `is_cc`; lists of test clips have no label;
- a plain table with a header: `url,start,end` or `path,start,end`, and optionally `group` and `annotations`
  (or `label`; semicolons separate several). Other columns are ignored.

A Parquet file has the columns of the plain table; `annotations` is such a text or a list of texts. Every form of a
YouTube address is converted to one.
"""

import csv
import hashlib
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

from earshot.core.errors import EarshotError

VGGSOUND_SECONDS = 10.0
MAX_SECONDS = 1_000_000.0  # seconds into a source, more than eleven days: a larger value is not in seconds
NAME_LENGTH = (
    64  # characters of a source's name in a clip_id; with hash and start it stays below the 100 of a tar header
)

YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)
YOUTUBE_PAGE = "https://www.youtube.com/watch?v={video}"
YOUTUBE_ADDRESS = re.compile(
    r"https?://(?:(?:www|m|music)\.)?(?:youtube\.com/(?:watch\?(?:[^#]*&)?v=|shorts/|embed/|live/)|youtu\.be/)"
    r"([\w-]{11})(?![\w-])",
    re.ASCII,
)
VGGSOUND_FILE = re.compile(r"([\w-]{11})_(\d{6})\.mp4", re.ASCII)
TEXT_COLUMNS = ("annotations", "labels", "label")
PLAIN_COLUMNS = ("url", "path", "start", "end", "group", *TEXT_COLUMNS)
KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
AVE_COLUMNS = "category&videoid&quality&starttime&endtime"
MAX_LINE_LENGTH = 1 << 20  # characters; a file without line ends is not a list
PARQUET_MAGIC = b"PAR1"
PARQUET_ROWS = 1000  # in memory at once, beside the compressed row group
NAMES = ("manifest.csv", "manifest.parquet")  # the manifest of a folder


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One requested clip: seconds `start` to `end` of `source`.

    `source` is an address, or, if `is_local`, a path below the manifest's folder. `clip_id` is the name of the source
    and the start in milliseconds, safe as a file name; `group` is the source video.
    """

    clip_id: str
    source: str
    start: float
    end: float
    group: str
    annotations: tuple[str, ...]
    is_local: bool


class BadField(ValueError):
    """An error in one field of a row; the reader adds file and line."""


def manifest_file(manifest: Path) -> Path:
    """The file of a manifest: itself, or manifest.csv or manifest.parquet in a folder.

    Raises EarshotError if there is none.
    """
    names = [manifest / name for name in NAMES] if manifest.is_dir() else [manifest]
    file = next((name for name in names if name.is_file()), None)
    if file is None:
        expected = "a csv or Parquet file, a folder with manifest.csv, or one of manifests/*.json"
        raise EarshotError(f"{names[0]}: no such file; set corpus.manifest to {expected}")
    return file


def read_manifest(manifest: Path) -> Iterator[ManifestRow]:
    """The rows of a manifest in order, one at a time: memory does not grow with its length.

    Raises EarshotError for the first invalid row, with its file, line (of Parquet: row) and field.
    """
    for _, row in numbered_rows(manifest):
        yield row


def numbered_rows(manifest: Path) -> Iterator[tuple[int, ManifestRow]]:
    """As `read_manifest`, with the line on which each row ends (of Parquet: the row), both from 1."""
    file = manifest_file(manifest)
    yield from _parquet_rows(file) if is_parquet(file) else _csv_rows(file)


def is_parquet(file: Path) -> bool:
    """Whether a file is Parquet, by its first bytes."""
    with open(file, "rb") as beginning:
        return beginning.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def _csv_rows(file: Path) -> Iterator[tuple[int, ManifestRow]]:
    with open(file, newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(_lines(file, text), skipinitialspace=True, strict=True)
        try:
            yield from _rows(file, reader)
        except UnicodeDecodeError:
            raise EarshotError(f"{file}, after line {reader.line_num}: not UTF-8 text; save it as UTF-8") from None
        except csv.Error as error:
            raise EarshotError(f"{file}, line {reader.line_num}: not a CSV row ({error}); correct the line") from None


def _lines(file: Path, text: TextIO) -> Iterator[str]:
    """The lines of a text; raises EarshotError for a line that is too long."""
    for number, line in enumerate(iter(lambda: text.readline(MAX_LINE_LENGTH), ""), 1):
        if len(line) == MAX_LINE_LENGTH:
            raise EarshotError(
                f"{file}, line {number}: longer than {MAX_LINE_LENGTH:,} characters; expected a list of clips"
            )
        yield line


def _rows(file: Path, reader: Any) -> Iterator[tuple[int, ManifestRow]]:
    records = (fields for fields in reader if any(fields) and not fields[0].startswith("#"))
    first = next(records, None)
    if first is None:
        raise EarshotError(f"{file}: holds no rows; expected a list of clips")
    header = [field.strip().lower() for field in first]
    parse = _recognize(file, reader.line_num, first, header)
    # A header is not a row; lists without a header begin with a row.
    for fields in records if _is_header(header) else itertools.chain([first], records):
        try:
            yield reader.line_num, parse([field.strip() for field in fields])
        except BadField as error:
            raise EarshotError(f"{file}, line {reader.line_num}: {error}") from None


def _is_header(header: list[str]) -> bool:
    return "url" in header or "path" in header or "youtube_id" in header


def _recognize(file: Path, line: int, first: list[str], header: list[str]) -> Callable[[list[str]], ManifestRow]:
    """The parser of this kind of manifest."""
    if _is_header(header):
        plain = "youtube_id" not in header
        _check_columns(f"{file}, line {line}", header, ("start", "end") if plain else KINETICS_COLUMNS)
        parse = _plain if plain else _kinetics
        return lambda fields: parse(_by_name(fields, header))
    if VGGSOUND_FILE.fullmatch(first[0].strip()):
        return _vggsound_file
    if YOUTUBE_ID.fullmatch(first[0].strip()) and len(first) >= 3:
        return _audioset if _is_number(first[2]) else _vggsound
    if header[0] == AVE_COLUMNS:
        raise EarshotError(
            f"{file}: AVE's list does not give the start of its clips; use manifests/ave.json, which looks it up in "
            "AudioSet's lists, or write a manifest with earshot subsets ave"
        )
    row = ",".join(first)[:60]
    raise EarshotError(
        f"{file}, line {line}: found {row!r}, expected the rows of AudioSet, VGGSound or Kinetics or a header with "
        "url,start,end or path,start,end; add that header"
    )


def _check_columns(where: str, header: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in header]
    if missing or len(set(header)) < len(header):
        problem = f"the column {missing[0]} is missing" if missing else "a column occurs twice"
        expected = "url,start,end or path,start,end" if "start" in needed else "label,youtube_id,time_start,time_end"
        raise EarshotError(f"{where}: {problem}; expected {expected}")


def _by_name(fields: list[str], header: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise BadField(
            f"{len(fields)} fields, expected {len(header)} as in the header; quote a field that contains a comma"
        )
    return dict(zip(header, fields, strict=True))


def _parquet_rows(file: Path) -> Iterator[tuple[int, ManifestRow]]:
    # Imported here, because every decoding process imports this module and does not need Arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            header = [name.strip().lower() for name in names]
            if "url" not in header and "path" not in header:
                columns_found = ", ".join(names)[:200] or "none"
                raise EarshotError(f"{file}: has the columns {columns_found}; expected url,start,end or path,start,end")
            _check_columns(str(file), header, ("start", "end"))
            columns = [name for name, plain in zip(names, header, strict=True) if plain in PLAIN_COLUMNS]
            batches = table.iter_batches(PARQUET_ROWS, columns=columns)
            records = (record for batch in batches for record in batch.to_pylist())
            number = 0
            for number, record in enumerate(records, 1):
                try:
                    yield number, _plain({name.strip().lower(): _cell(name, record[name]) for name in record})
                except BadField as error:
                    raise EarshotError(f"{file}, row {number}: {error}") from None
            if not number:
                raise EarshotError(f"{file}: holds no rows; expected a list of clips")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{file}: cannot be read as Parquet ({str(error)[:200]}); write the file again") from None


def _cell(column: str, value: Any) -> str:
    """A cell of Parquet in the form of CSV."""
    if isinstance(value, list) and column.strip().lower() in TEXT_COLUMNS:
        wrong = next((word for word in value if not isinstance(word, str) or ";" in word), None)
        if wrong is not None:
            raise BadField(f"{column} {wrong!r}: expected texts without semicolons")
        return ";".join(value)
    if value is not None and not isinstance(value, str | int | float):
        raise BadField(f"{column} {str(value)[:60]!r}: expected a text or a number, found a {type(value).__name__}")
    return "" if value is None else str(value).strip()


def _audioset(fields: list[str]) -> ManifestRow:
    """`YTID, start, end, "label,label"`."""
    if len(fields) != 4:
        raise BadField(f"{len(fields)} fields, expected 4: YTID, start, end, labels")
    labels = tuple(label.strip() for label in fields[3].split(",") if label.strip())
    return _youtube(fields[0], _seconds("start", fields[1]), _seconds("end", fields[2]), labels)


def _vggsound(fields: list[str]) -> ManifestRow:
    """`YTID,start,label,split`; its split is ignored, because groups are split by their hash."""
    if len(fields) not in (3, 4):
        raise BadField(f"{len(fields)} fields, expected 4: YTID,start,label,split")
    start = _seconds("start", fields[1])
    return _youtube(fields[0], start, start + VGGSOUND_SECONDS, (fields[2],))


def _vggsound_file(fields: list[str]) -> ManifestRow:
    """`YTID_000030.mp4,label`."""
    match = VGGSOUND_FILE.fullmatch(fields[0])
    if not match or len(fields) != 2:
        raise BadField(f"file {fields[0]!r}: expected two fields, such as --PJHxphWEs_000030.mp4,label")
    start = float(match[2])
    return _youtube(match[1], start, start + VGGSOUND_SECONDS, (fields[1],))


def youtube_address(video: str) -> str:
    """The address of a YouTube video, in the form that rows use."""
    return YOUTUBE_PAGE.format(video=video)


def _youtube(video: str, start: float, end: float, annotations: tuple[str, ...], *, field: str = "YTID") -> ManifestRow:
    if not YOUTUBE_ID.fullmatch(video):
        raise BadField(f"{field} {video!r}: expected the 11 letters, digits, - and _ of a YouTube video")
    return _row(youtube_address(video), video, start, end, video, annotations, is_local=False)


def _kinetics(values: dict[str, str]) -> ManifestRow:
    """`label,youtube_id,time_start,time_end,split`; its split is ignored, because groups are split by their hash."""
    start, end = _seconds("time_start", values["time_start"]), _seconds("time_end", values["time_end"])
    label = values.get("label", "")
    return _youtube(values["youtube_id"], start, end, (label,) if label else (), field="youtube_id")


def _plain(values: dict[str, str]) -> ManifestRow:
    path, address = values.get("path", ""), values.get("url", "")
    if bool(path) == bool(address):
        raise BadField("path and url: " + ("both are given" if path else "neither is given") + ", expected one of them")
    name = path_name(path) if path else address_name(address)
    if YOUTUBE_ADDRESS.match(address):
        address = youtube_address(name)
    text = next((values[column] for column in TEXT_COLUMNS if values.get(column)), "")
    annotations = tuple(part.strip() for part in text.split(";") if part.strip())
    start, end = _seconds("start", values["start"]), _seconds("end", values["end"])
    return _row(path or address, name, start, end, values.get("group") or name, annotations, is_local=bool(path))


def _row(
    source: str, name: str, start: float, end: float, group: str, annotations: tuple[str, ...], *, is_local: bool
) -> ManifestRow:
    if end <= start:
        raise BadField(f"end {end:g}: expected more than start, {start:g}")
    return ManifestRow(f"{name}_{round(start * 1000)}", source, start, end, group, annotations, is_local)


def _seconds(field: str, text: str) -> float:
    value = float(text) if _is_number(text) else -1.0
    if not 0 <= value <= MAX_SECONDS:
        raise BadField(f"{field} {text!r}: expected seconds from 0 to {MAX_SECONDS:,.0f}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def address_name(address: str) -> str:
    """The name of an address in a clip_id: YouTube's id, or the last part of the path and a hash of the address."""
    match = YOUTUBE_ADDRESS.match(address)
    if match:
        return match[1]
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise BadField(f"url {address!r}: {error}") from None
    last = unquote(parts.path).rstrip("/").rpartition("/")[2]
    return _safe(posixpath.splitext(last)[0] or parts.netloc, address)


def path_name(path: str) -> str:
    """The name of a local file in a clip_id: its path without the suffix, and a hash if that might not be unique.

    Raises BadField for a path outside the manifest's folder.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\0" in path or "\\" in path:
        raise BadField(f"path {path!r}: expected a path below the manifest's folder, with / and without ..")
    stem, suffix = posixpath.splitext(path)
    name = stem.replace("/", "-")
    if suffix.lower() == ".mp4" and re.fullmatch(rf"[\w-]{{1,{NAME_LENGTH}}}", name, re.ASCII):
        return name
    return _safe(name, path)


def _safe(name: str, whole: str) -> str:
    letters = re.sub(r"[^\w-]+", "-", name, flags=re.ASCII)[:NAME_LENGTH]
    return f"{letters}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"
