"""Clips before anything of them is decoded: what a clip is called, where its bytes are, and what is said of it."""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from earshot.core.files import write_atomically
from earshot.core.text import printable

# What lies beside videos: notes, tables, subtitles, thumbnails. Files whose names begin with a dot are passed over too.
NOT_CLIPS = re.compile(
    r"\.(csv|tsv|json|jsonl|txt|cls|md|ya?ml|xml|html|pdf|dvc|py|sh|log|description|srt|vtt|ass|lrc|jpe?g|png|webp|md5"
    r"|sha256|zip|gz|parquet|feather|arrow|idx|np[yz]|part|ytdl|tar)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Clip:
    """A clip and where its bytes are: `size` bytes of `path` from `offset` on.

    `source` is its name within the corpus. A clip that is known to be unusable carries the `refusal`: reason, detail.
    Where nothing says which video a clip is of, its `group` is empty: it is a group of its own.
    """

    clip_id: str
    group: str
    path: Path
    offset: int
    size: int
    annotations: tuple[str, ...] = ()
    source: str = ""
    refusal: tuple[str, str] | None = None


@dataclass(frozen=True)
class Annotations:
    """What a manifest, or what lies beside a clip, says of it: the video that it is of, and its annotations."""

    group: str = ""
    annotations: tuple[str, ...] = ()


def may_be_clip(name: str) -> bool:
    """Whether a file of this name counts: all do that are not known to be something else."""
    return not name.startswith(".") and not NOT_CLIPS.fullmatch(PurePosixPath(name).suffix)


def clip_name(name: str) -> str:
    """A file's relative name without its last suffix, of letters, digits, dots, hyphens and underscores."""
    path = PurePosixPath(name)
    stem = str(path.with_suffix("")) if path.name else "_"  # a member of a tar may be called "." or nothing at all
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem))


def one_line(value: object) -> str:
    """A stranger's text as one line of valid UTF-8; nothing is an empty text."""
    return "" if value is None else printable(str(value).strip())


def write_listing(path: Path, clips: Sequence[Clip]) -> None:
    """Keep a shard's clips for the worker that will read them."""
    with write_atomically(path) as temporary_path:
        temporary_path.write_text(json.dumps([vars(clip) | {"path": str(clip.path)} for clip in clips]))


def read_listing(path: Path) -> list[Clip]:
    """Read back what `write_listing` wrote."""
    return [_from_json(row) for row in json.loads(path.read_text())]


def _from_json(row: dict) -> Clip:
    refusal = tuple(row["refusal"]) if row["refusal"] else None
    return Clip(**row | {"path": Path(row["path"]), "annotations": tuple(row["annotations"]), "refusal": refusal})
