"""Manifests: published and own lists of clips, read as one stream of rows.

The first row of a CSV file decides its kind:

- AudioSet's segments: `YTID, start, end, "label,label"`, comment lines above;
- VGGSound's table: `YTID,start,label,split`, no header, 10 s a clip;
- VGGSound's list of files: `YTID_000030.mp4,label`, the start in the name, 10 s a clip;
- Kinetics' table: `label,youtube_id,time_start,time_end,split` and maybe `is_cc`; lists of test clips have no label;
- VGGSounder's table: `video_id,label,modality,...`, a row a label, the start in `YTID_000030`, 10 s a clip;
- a plain table with a header: `url,start,end` or `path,start,end`, and optionally `group` and `annotations`
  (or `label`; semicolons separate several) and `split`. Other columns are ignored.

Columns are separated by commas, semicolons or tabs; the text is UTF-8 or UTF-16. Comment lines, which begin with `#`,
may stand above the first row only.

A Parquet file has the columns of the plain table; `annotations` is such a text or a list of texts. Every form of a
YouTube address is converted to one. Paths and other addresses that differ only in form name the same source.
"""

import csv
import hashlib
import itertools
import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import Failure, Limits, guarded_iter
from earshot.core.text import SEPARATORS, encoding_of, separator_of
from earshot.core.untrusted import check_text

VGGSOUND_SECONDS = 10.0
MAX_SECONDS = 1_000_000.0  # seconds into a source, more than eleven days: a larger value is not in seconds
NAME_LENGTH = (
    64  # characters of a source's name in a clip_id; with hash and start it stays below the 100 of a tar header
)

YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)
YOUTUBE_PAGE = "https://www.youtube.com/watch?v={video}"
YOUTUBE_SITES = ("youtube.com", "youtube-nocookie.com")
YOUTUBE_PATHS = ("shorts", "embed", "live", "v", "e", "watch")  # before the video's id
NOT_VIDEOS = ("videoseries", "live_stream")  # a playlist and a channel in the place of an id
DEFAULT_PORTS = {"http": 80, "https": 443}
PERCENT_CODE = re.compile("%[0-9a-fA-F]{2}")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
SPREADSHEET_ERROR = re.compile(r"#([A-Z0-9/_]+[!?]|N/A)")  # what a spreadsheet puts in place of a value
VGGSOUND_NAME = re.compile(r"([\w-]{11})_(\d{6})", re.ASCII)
VGGSOUND_FILE = re.compile(rf"{VGGSOUND_NAME.pattern}\.mp4", re.ASCII)
VGGSOUNDER_COLUMNS = ("video_id", "label")
# What lists call the splits.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
TEXT_COLUMNS = ("annotations", "labels", "label")
PLAIN_COLUMNS = ("url", "path", "start", "end", "group", "split", *TEXT_COLUMNS)
KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
AVE_COLUMNS = "category&videoid&quality&starttime&endtime"
MAX_LINE_LENGTH = 1 << 20  # characters; a file without line ends is not a list
PARQUET_MAGIC = b"PAR1"
PARQUET_ROWS = 100  # in memory at once, beside the compressed row group
PARQUET_READING = Limits(60.0, memory=1 << 30, file_size=0, starts_processes=False)
NAMES = ("manifest.csv", "manifest.parquet")  # the manifest of a folder


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One requested clip: seconds `start` to `end` of `source`.

    `source` is an address, or, if `is_local`, a path below the manifest's folder. `clip_id` is the name of the source
    and the start in milliseconds, safe as a file name; `group` is the source video. `split` is the list's own: "train",
    "val", "test" or empty; downloads ignore it.
    """

    clip_id: str
    source: str
    start: float
    end: float
    group: str
    annotations: tuple[str, ...]
    is_local: bool
    split: str = field(default="", compare=False)  # no reason to fetch a clip again


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
    line = 0
    with open(file, newline="", encoding=encoding_of(file)) as text:
        try:
            lines = _lines(file, text)
            above: list[str] = []  # the first row, below comments and blank lines
            for above_row in lines:
                above.append(above_row)
                if above_row.strip() and not above_row.lstrip().startswith("#"):
                    break
            separator = separator_of(above[-1] if above else "", _is_known)
            reader = csv.reader(itertools.chain(above, lines), delimiter=separator, skipinitialspace=True, strict=True)
            try:
                yield from _rows(file, reader, separator)
            finally:
                line = reader.line_num
        except UnicodeError:
            raise EarshotError(f"{file}, after line {line}: not UTF-8 text; save it as UTF-8") from None
        except csv.Error as error:
            raise EarshotError(f"{file}, line {line}: not a CSV row ({error}); correct the line") from None


def _lines(file: Path, text: TextIO) -> Iterator[str]:
    """The lines of a text; raises EarshotError for a line that is too long."""
    for number, line in enumerate(iter(lambda: text.readline(MAX_LINE_LENGTH), ""), 1):
        if len(line) == MAX_LINE_LENGTH:
            raise EarshotError(
                f"{file}, line {number}: longer than {MAX_LINE_LENGTH:,} characters; expected a list of clips"
            )
        yield line


def _rows(file: Path, reader: Any, separator: str) -> Iterator[tuple[int, ManifestRow]]:
    records = (fields for fields in reader if any(fields))
    first = next((fields for fields in records if not _is_comment(file, reader.line_num, fields)), None)
    if first is None:
        raise EarshotError(f"{file}: holds no rows; expected a list of clips")
    header = [field.strip().lower() for field in first]
    parse = _recognize(file, reader.line_num, first, header, SEPARATORS[separator])
    # A header is not a row; lists without a header begin with a row.
    for fields in records if _is_header(header) else itertools.chain([first], records):
        try:
            yield reader.line_num, parse(_values(fields))
        except BadField as error:
            raise EarshotError(f"{file}, line {reader.line_num}: {error}") from None


def _is_comment(file: Path, line: int, fields: list[str]) -> bool:
    """Whether a line above the first row is a comment; raises EarshotError for a row that a spreadsheet damaged."""
    try:
        return fields[0].startswith("#") and bool(_checked(fields))
    except BadField as error:
        raise EarshotError(f"{file}, line {line}: {error}") from None


def _values(fields: list[str]) -> list[str]:
    """The stripped fields of a row; raises BadField for a comment among the rows and for errors of a spreadsheet."""
    values = _checked(fields)
    if values[0].startswith("#"):
        raise BadField(
            f"begins with {values[0][:60]!r}, expected comments above the first row only; remove the line, or write "
            "./ before the name of a file"
        )
    return values


def _checked(fields: list[str]) -> list[str]:
    values = [field.strip() for field in fields]
    wrong = next((value for value in values if value.startswith("#") and SPREADSHEET_ERROR.fullmatch(value)), None)
    if wrong is not None:
        raise BadField(f"{wrong!r} is an error of a spreadsheet, expected a value; restore the line from its source")
    return values


def _is_header(header: list[str]) -> bool:
    return any(name in header for name in ("url", "path", "youtube_id")) or set(VGGSOUNDER_COLUMNS) <= {*header}


def _is_known(first: list[str]) -> bool:
    """Whether these fields begin a manifest of any kind."""
    name = first[0].strip()
    if _is_header([field.strip().lower() for field in first]):
        return len(first) > 1
    return bool(VGGSOUND_FILE.fullmatch(name) or (YOUTUBE_ID.fullmatch(name) and len(first) >= 3))


def _recognize(
    file: Path, line: int, first: list[str], header: list[str], separator: str
) -> Callable[[list[str]], ManifestRow]:
    """The parser of this kind of manifest."""
    if _is_header(header):
        parse: Callable[[dict[str, str]], ManifestRow] = _plain
        needed: tuple[str, ...] = ("start", "end")
        if "youtube_id" in header:
            parse, needed = _kinetics, KINETICS_COLUMNS
        elif "url" not in header and "path" not in header:
            parse, needed = _vggsounder, VGGSOUNDER_COLUMNS
        _check_columns(f"{file}, line {line}", header, needed)
        return lambda fields: parse(_by_name(fields, header, separator))
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
        "url,start,end or path,start,end, separated by commas, semicolons or tabs; add that header"
    )


def _check_columns(where: str, header: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in header]
    if missing or len(set(header)) < len(header):
        problem = f"the column {missing[0]} is missing" if missing else "a column occurs twice"
        expected = "url,start,end or path,start,end" if "start" in needed else "label,youtube_id,time_start,time_end"
        raise EarshotError(f"{where}: {problem}; expected {expected}")


def _by_name(fields: list[str], header: list[str], separator: str) -> dict[str, str]:
    if len(fields) != len(header):
        raise BadField(
            f"{len(fields)} fields, expected {len(header)} as in the header; quote a field that contains {separator}"
        )
    return dict(zip(header, fields, strict=True))


def _parquet_rows(file: Path) -> Iterator[tuple[int, ManifestRow]]:
    number = 0
    for result in guarded_iter(_parquet_records, file, replace(PARQUET_READING, reads=(file,))):
        if isinstance(result, Failure):
            reason = "it unpacks to more memory than a list may take"
            if not result.out_of_memory:
                reason = "it takes too long" if result.hung else f"its reader crashed: {result.ending}"
            raise EarshotError(f"{file}: cannot be read as Parquet ({reason}); write the file again")
        if isinstance(result, str):
            raise EarshotError(f"{file}{result}")
        for record in result:
            number += 1
            try:
                yield number, _plain(record)
            except BadField as error:
                raise EarshotError(f"{file}, row {number}: {error}") from None
    if not number:
        raise EarshotError(f"{file}: holds no rows; expected a list of clips")


def _parquet_records(file: Path) -> Iterator[list[dict[str, str]] | str]:
    """The work of a child: records of texts by column, some at once; at a fault a message instead, without the file."""
    # Imported here, because every decoding process imports this module and does not need Arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    number, records = 0, list[dict[str, str]]()
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            header = [name.strip().lower() for name in names]
            if "url" not in header and "path" not in header:
                actual = ", ".join(names)[:200] or "none"
                yield f": has the columns {actual}; expected url,start,end or path,start,end"
                return
            try:
                _check_columns("", header, ("start", "end"))
            except EarshotError as error:
                yield str(error)
                return
            columns = [name for name, plain in zip(names, header, strict=True) if plain in PLAIN_COLUMNS]
            for batch in table.iter_batches(PARQUET_ROWS, columns=columns, use_threads=False):
                for record in batch.to_pylist():
                    number += 1
                    records.append({name.strip().lower(): _cell(name, record[name]) for name in record})
                yield records
                records = []
    except BadField as error:
        yield records
        yield f", row {number}: {error}"
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield f": cannot be read as Parquet ({str(error)[:200]}); write the file again"


def _cell(column: str, value: Any) -> str:
    """A cell of Parquet in the form of CSV; None, and NaN unless it is a time, is an empty cell."""
    name = column.strip().lower()
    if isinstance(value, list) and name in TEXT_COLUMNS:
        words = [word for word in value if not _is_missing(word)]
        wrong = next((word for word in words if not isinstance(word, str) or ";" in word), None)
        if wrong is not None:
            raise BadField(f"{column} {wrong!r}: expected texts without semicolons")
        return _short(column, ";".join(words))
    if value is None or (_is_missing(value) and name not in ("start", "end")):
        return ""
    if not isinstance(value, str | int | float):
        raise BadField(f"{column} {str(value)[:60]!r}: expected a text or a number, found a {type(value).__name__}")
    return _short(column, str(value).strip())


def _short(column: str, text: str) -> str:
    try:
        return check_text(text)
    except ValueError as error:
        raise BadField(f"{column}: {error}") from None


def _is_missing(value: Any) -> bool:
    """Whether a cell holds None or NaN, with which tables mark a missing value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _audioset(fields: list[str]) -> ManifestRow:
    """`YTID, start, end, "label,label"`."""
    if len(fields) != 4:
        raise BadField(f"{len(fields)} fields, expected 4: YTID, start, end, labels")
    labels = tuple(label.strip() for label in fields[3].split(",") if label.strip())
    return _youtube(fields[0], _seconds("start", fields[1]), _seconds("end", fields[2]), labels)


def _vggsound(fields: list[str]) -> ManifestRow:
    """`YTID,start,label,split`."""
    if len(fields) not in (3, 4):
        raise BadField(f"{len(fields)} fields, expected 4: YTID,start,label,split")
    start = _seconds("start", fields[1])
    row = _youtube(fields[0], start, start + VGGSOUND_SECONDS, (fields[2],))
    return replace(row, split=_split(fields[3] if len(fields) > 3 else ""))


def _vggsound_file(fields: list[str]) -> ManifestRow:
    """`YTID_000030.mp4,label`."""
    match = VGGSOUND_FILE.fullmatch(fields[0])
    if not match or len(fields) != 2:
        raise BadField(f"file {fields[0]!r}: expected two fields, such as --PJHxphWEs_000030.mp4,label")
    start = float(match[2])
    return _youtube(match[1], start, start + VGGSOUND_SECONDS, (fields[1],))


def _vggsounder(values: dict[str, str]) -> ManifestRow:
    """`video_id,label,...`: a row a label; the video_id is that of VGGSound's files, without a suffix."""
    match = VGGSOUND_NAME.fullmatch(values["video_id"])
    if not match:
        raise BadField(f"video_id {values['video_id']!r}: expected one such as --PJHxphWEs_000030")
    return _vggsound([match[1], match[2], values["label"]])


def youtube_address(video: str) -> str:
    """The address of a YouTube video, in the form that rows use."""
    return YOUTUBE_PAGE.format(video=video)


def _youtube(video: str, start: float, end: float, annotations: tuple[str, ...], *, field: str = "YTID") -> ManifestRow:
    if not YOUTUBE_ID.fullmatch(video):
        raise BadField(f"{field} {video!r}: expected the 11 letters, digits, - and _ of a YouTube video")
    return _row(youtube_address(video), video, start, end, video, annotations, is_local=False)


def _kinetics(values: dict[str, str]) -> ManifestRow:
    """`label,youtube_id,time_start,time_end,split`."""
    start, end = _seconds("time_start", values["time_start"]), _seconds("time_end", values["time_end"])
    label = values.get("label", "")
    row = _youtube(values["youtube_id"], start, end, (label,) if label else (), field="youtube_id")
    return replace(row, split=_split(values.get("split", "")))


def _plain(values: dict[str, str]) -> ManifestRow:
    path, address = values.get("path", ""), values.get("url", "")
    if bool(path) == bool(address):
        raise BadField("path and url: " + ("both are given" if path else "neither is given") + ", expected one of them")
    name = path_name(path) if path else address_name(address)
    video = youtube_video(address)
    source = posixpath.normpath(path) if path else youtube_address(video) if video else address
    text = next((values[column] for column in TEXT_COLUMNS if values.get(column)), "")
    annotations = tuple(part.strip() for part in text.split(";") if part.strip())
    start, end = _seconds("start", values["start"]), _seconds("end", values["end"])
    group = unicodedata.normalize("NFC", values.get("group", "")) or name
    row = _row(source, name, start, end, group, annotations, is_local=bool(path))
    return replace(row, split=_split(values.get("split", "")))


def _split(text: str) -> str:
    """The split that a list names; empty for none, and for a name that is not known."""
    return SPLIT_NAMES.get(text.lower(), "")


def source_name(row: ManifestRow) -> str:
    """The name of a row's source, the same for all forms of its address or path and different for other sources."""
    return f"./{unicodedata.normalize('NFC', row.source)}" if row.is_local else row.clip_id.rpartition("_")[0]


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
    return NUMBER.fullmatch(text) is not None


def youtube_video(address: str) -> str | None:
    """The id of the YouTube video at an address of any form, with or without a scheme; None for other addresses."""
    try:
        parts = urlsplit(address if "://" in address else f"https://{address}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS:
        return None
    folder, _, last = parts.path.lstrip("/").partition("/")
    candidates = []
    if host in ("youtu.be", "www.youtu.be"):
        candidates = [folder]
    elif host.removeprefix("www.").removeprefix("m.").removeprefix("music.") in YOUTUBE_SITES:
        candidates = [last] if folder in YOUTUBE_PATHS and last else []
        query = parts.query or parts.fragment.removeprefix("!").removeprefix("/watch").lstrip("?")
        if folder in ("watch", "watch_popup", ""):
            candidates += [value for key, value in parse_qsl(query) if key.removeprefix("amp;") == "v"][::-1]
    matches = (re.match(r"([\w-]{11})(?![\w-])", candidate, re.ASCII) for candidate in candidates)
    return next((match[1] for match in matches if match and match[1] not in NOT_VIDEOS), None)


def address_name(address: str) -> str:
    """The name of an address in a clip_id: YouTube's id, or the last part of the path and a hash of the address.

    Addresses that differ only in form, as `_normalized` knows it, have one name.
    """
    video = youtube_video(address)
    if video:
        return video
    try:
        parts = urlsplit(address)
        whole = _normalized(parts)
    except ValueError as error:
        raise BadField(f"url {address!r}: {error}") from None
    last = unquote(urlsplit(whole).path).rstrip("/").rpartition("/")[2]
    return _safe(posixpath.splitext(last)[0] or parts.netloc.rpartition("@")[2].lower(), whole)


def _normalized(parts: SplitResult) -> str:
    """An address in normal form (RFC 3986, section 6.2): addresses of one file that differ in form become equal.

    http becomes https, the host lower case; a password, the default port, dot segments and a fragment, which names a
    place in a page, are removed. A fragment that begins with / or ! selects a page in applications and stays.

    Raises ValueError for an invalid port.
    """
    scheme = "https" if parts.scheme in DEFAULT_PORTS else parts.scheme
    user, at = (parts.username or "", "@") if "@" in parts.netloc else ("", "")  # a password is not for a name
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    path, query = _normal_quotes(parts.path), _normal_quotes(parts.query)
    if parts.netloc:
        path = _without_dot_segments(path) or "/"
    fragment = parts.fragment if parts.fragment.startswith(("/", "!")) else ""
    return SplitResult(scheme, user + at + host + port, path, query, fragment).geturl()


def _normal_quotes(text: str) -> str:
    """Percent codes only where they are required, in upper case."""

    def code(match: re.Match[str]) -> str:
        letter = chr(int(match[0][1:], 16))
        return letter if letter.isascii() and (letter.isalnum() or letter in "-._~") else match[0].upper()

    # A % that begins no code, and all that is neither ASCII nor printable, is quoted too.
    text = re.sub("%(?![0-9a-fA-F]{2})", "%25", text)
    return quote(PERCENT_CODE.sub(code, text), safe="%!\"#$&'()*+,/:;<=>?@[\\]^_`{|}~-.")


def _without_dot_segments(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def path_name(path: str) -> str:
    """The name of a local file in a clip_id: its path without the suffix, and a hash if that might not be unique.

    Paths that differ only in . and doubled / or in how Unicode composes letters (NFC, NFD) have one name.

    Raises BadField for a path outside the manifest's folder.
    """
    if path.startswith("/") or ".." in path.split("/") or "\0" in path or "\\" in path:
        raise BadField(f"path {path!r}: expected a path below the manifest's folder, with / and without ..")
    path = unicodedata.normalize("NFC", posixpath.normpath(path))
    stem, suffix = posixpath.splitext(path)
    name = stem.replace("/", "-")
    if suffix.lower() == ".mp4" and re.fullmatch(rf"[\w-]{{1,{NAME_LENGTH}}}", name, re.ASCII):
        return name
    return _safe(name, path)


def _safe(name: str, whole: str) -> str:
    letters = re.sub(r"[^\w-]+", "-", name, flags=re.ASCII)[:NAME_LENGTH]
    return f"{letters}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"
