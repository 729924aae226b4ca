"""Where clips are: tar shards (`<clip_id>.mp4` beside `<clip_id>.json`), or a folder of videos and its sub-folders.

Every file that is not known to be something else counts as a clip, so that what cannot be used is refused by name.
"""

import csv
import hashlib
import json
import os
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath

from earshot.corpus.ledger import printable
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.shards import write_atomically

MANIFEST = "manifest.csv"
FILE_COLUMNS = ("file", "path")
ANNOTATION_COLUMNS = ("annotations", "annotation", "labels", "label")
# What lies beside videos: notes, tables, subtitles, thumbnails. Files whose names begin with a dot are passed over too.
NOT_CLIPS = re.compile(
    r"\.(csv|tsv|json|jsonl|txt|md|ya?ml|xml|html|pdf|dvc|py|sh|log|description|srt|vtt|ass|lrc|jpe?g|png|webp|md5|sha256"
    r"|zip|gz|parquet|np[yz]|part|ytdl|tar)",
    re.IGNORECASE,
)
SIDECAR_LIMIT = 1 << 20  # bytes of a clip's .json
DIGITS = 8  # of the hash that tells apart clips whose names come to the same


@dataclass(frozen=True)
class Clip:
    """A clip and where its bytes are: `size` bytes of `path` from `offset` on.

    `source` is its name within the corpus. A clip that is known to be unusable carries the `refusal`: reason, detail.
    """

    clip_id: str
    group: str
    path: Path
    offset: int
    size: int
    annotations: tuple[str, ...] = ()
    source: str = ""
    refusal: tuple[str, str] | None = None


def list_shards(root: Path, shard_clips: int) -> list[list[Clip]]:
    """The clips under `root` by shard: one a tar file if there are any, else `shard_clips` files by sorted name.

    Raises EarshotError where there are none, where tar files and videos are mixed, and for a manifest that is none.
    """
    if not root.is_dir():
        raise EarshotError(f"{root}: no such folder; corpus.clips wants a folder of videos or of tar shards")
    tars = sorted(root.glob("*.tar"))
    loose = [_within(root, path) for path in _files(root)]
    if tars and loose:
        raise EarshotError(f"{root}: holds tar shards and also {loose[0].source}; keep one kind in the folder")
    if tars:
        shards = [list(_in_tar(root, tar)) for tar in tars]
    else:
        clips = _with_manifest(root, loose)
        shards = [clips[start : start + shard_clips] for start in range(0, len(clips), shard_clips)]
    if not any(shards):
        raise EarshotError(f"{root}: holds no videos; corpus.clips wants a folder of videos or of tar shards")
    return _with_unique_ids(shards)


def write_listing(path: Path, clips: Sequence[Clip]) -> None:
    """Keep a shard's clips for the worker that will read them."""
    with write_atomically(path) as growing:
        growing.write_text(json.dumps([asdict(clip) | {"path": str(clip.path)} for clip in clips]))


def read_listing(path: Path) -> list[Clip]:
    """Read back what `write_listing` wrote."""
    return [_from_json(row) for row in json.loads(path.read_text())]


def _from_json(row: dict) -> Clip:
    refusal = tuple(row["refusal"]) if row["refusal"] else None
    return Clip(**row | {"path": Path(row["path"]), "annotations": tuple(row["annotations"]), "refusal": refusal})


# A folder of videos.


def _files(root: Path) -> Iterator[Path]:
    """Files that may be clips, and links to folders (which are not followed), by sorted relative name."""
    found = []
    for folder, folders, names in os.walk(root):
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in (*names, *linked) if _may_be_clip(name)]
    yield from sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _may_be_clip(name: str) -> bool:
    return not name.startswith(".") and not NOT_CLIPS.fullmatch(PurePosixPath(name).suffix)


def _within(root: Path, path: Path) -> Clip:
    """The clip that a file is; whatever leads out of the folder or is no file is refused."""
    source = path.relative_to(root).as_posix()
    clip = Clip(_clip_id(source), "", path, 0, 0, source=source)
    if not path.resolve().is_relative_to(root.resolve()):
        return replace(clip, refusal=("unsupported", "a link that leads out of the folder"))
    if not path.is_file():
        return replace(clip, refusal=("unsupported", "not a regular file"))
    return replace(clip, size=path.stat().st_size)


@dataclass(frozen=True)
class _Said:
    """What a manifest or sidecar says of one clip."""

    group: str = ""
    annotations: tuple[str, ...] = field(default=())


def _with_manifest(root: Path, clips: list[Clip]) -> list[Clip]:
    """Give each clip the group and annotations that the folder's manifest has for it."""
    path = root / MANIFEST
    if not path.is_file():
        return clips
    said = _read_manifest(path)
    # Rows name files from the manifest's folder or from the folder above it.
    rows = [said.get(clip.source) or said.get(f"{root.resolve().name}/{clip.source}") for clip in clips]
    if clips and not any(rows):
        raise EarshotError(f"{path}: names none of the {len(clips)} files beside it, the first is {clips[0].source}")
    return [
        replace(clip, group=row.group, annotations=row.annotations) if row else clip
        for clip, row in zip(clips, rows, strict=True)
    ]


def _read_manifest(path: Path) -> dict[str, _Said]:
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        column = next((name for name in FILE_COLUMNS if name in columns), None)
        if column is None:
            found = ", ".join(columns) or "nothing"
            raise EarshotError(f"{path}: has the columns {printable(found)}, wanted one named file or path")
        try:
            rows = list(reader)
        except csv.Error as error:
            raise EarshotError(f"{path}: line {reader.line_num}: {error}; mend or remove the manifest") from error
    return {PurePosixPath(row[column] or "").as_posix(): _said(row) for row in rows}


def _said(row: dict[str, str]) -> _Said:
    """Annotations in a cell are separated by semicolons."""
    cell = next((row[name] for name in ANNOTATION_COLUMNS if row.get(name)), "")
    return _Said(_text(row.get("group")), tuple(_text(part) for part in cell.split(";") if part.strip()))


# Tar shards.


def _in_tar(root: Path, path: Path) -> Iterator[Clip]:
    """The clips of a tar file; a shard that breaks off ends with a refusal of its own."""
    whole = False
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
                members = _members(tar)
                sidecars = {member.name: member for member in members if member.name.endswith(".json")}
                for member in members:
                    if _may_be_clip(PurePosixPath(member.name).name) and not member.isdir():
                        yield _member_clip(root, path, tar, member, sidecars)
                file.seek(tar.offset)
                whole = len(members) == len(tar.members) and not any(file.read(tarfile.BLOCKSIZE))
        except tarfile.TarError:
            pass
    if not whole:
        source = path.relative_to(root).as_posix()
        yield Clip(_clip_id(source), "", path, 0, 0, (), source, ("unreadable", "the shard is damaged or breaks off"))


def _members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """All members up to where the file breaks off."""
    members = []
    try:
        for member in tar:
            members.append(member)
    except tarfile.TarError:
        tar.members.append(tarfile.TarInfo("the part that cannot be read"))
    return members


def _member_clip(
    root: Path, path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, sidecars: dict[str, tarfile.TarInfo]
) -> Clip:
    source = f"{path.relative_to(root).as_posix()}/{member.name}"
    clip = Clip(_clip_id(member.name), "", path, member.offset_data, member.size, source=source)
    if not member.isreg() or member.issparse():
        return replace(clip, size=0, refusal=("unsupported", "not a regular file"))
    sidecar = sidecars.get(str(PurePosixPath(member.name).with_suffix(".json")))
    if sidecar is None:
        return clip
    try:
        said = _read_sidecar(tar, sidecar)
    except (ValueError, RecursionError, tarfile.TarError) as error:
        return replace(clip, refusal=("unreadable", f"its .json: {error}"))
    return replace(clip, group=said.group, annotations=said.annotations)


def _read_sidecar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Said:
    """Raises ValueError for anything but a mapping with a group that is text and annotations that are a list."""
    if not member.isreg() or member.size > SIDECAR_LIMIT:
        raise ValueError(f"not a file of at most {SIDECAR_LIMIT} bytes")
    values = json.loads(tar.extractfile(member).read())
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}, wanted a mapping")
    annotations = values.get("annotations") or []
    if not isinstance(annotations, list):
        raise ValueError(f"annotations are a {type(annotations).__name__}, wanted a list")
    return _Said(_text(values.get("group")), tuple(_text(said) for said in annotations))


# Names.


def _text(value: object) -> str:
    """A stranger's text as one line of valid UTF-8; nothing is an empty text."""
    return "" if value is None else printable(str(value).strip())


def _clip_id(name: str) -> str:
    """A file's relative name without its last suffix, of letters, digits, dots, hyphens and underscores."""
    stem = unicodedata.normalize("NFC", str(PurePosixPath(name).with_suffix("")))
    return re.sub(r"[^\w.-]+", "_", stem)


def _with_unique_ids(shards: Iterable[list[Clip]]) -> list[list[Clip]]:
    """Give clips whose names come to the same a hash of where they are; a clip without a group is its own."""
    shards = list(shards)
    counts = Counter(clip.clip_id for shard in shards for clip in shard)
    shards = [[_named(clip, counts[clip.clip_id] > 1) for clip in shard] for shard in shards]
    again = Counter(clip.clip_id for shard in shards for clip in shard)
    if repeated := next((clip_id for clip_id, count in again.items() if count > 1), None):
        raise EarshotError(f"several clips come to the name {repeated}; rename one of their files")
    return shards


def _named(clip: Clip, repeated: bool) -> Clip:
    clip_id = clip.clip_id
    if repeated:
        place = f"{clip.source}\0{clip.offset}".encode("utf-8", "surrogateescape")
        clip_id = f"{clip_id}-{hashlib.sha256(place).hexdigest()[:DIGITS]}"
    return replace(clip, clip_id=clip_id, group=clip.group or clip_id)
