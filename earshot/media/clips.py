"""Clips before decoding: the name of a clip, where its bytes are, its group and its annotations."""

import json
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from earshot.core.files import write_atomically
from earshot.core.messages import printable

# Files that lie beside videos: notes, tables, subtitles, thumbnails. Names that begin with a dot are skipped too.
NOT_CLIPS = re.compile(
    r"\.(csv|tsv|json|jsonl|txt|cls|md|ya?ml|xml|html|pdf|dvc|py|sh|log|description|srt|vtt|ass|lrc|jpe?g|png|webp|md5"
    r"|sha256|zip|gz|parquet|feather|arrow|idx|np[yz]|part|ytdl|tar)",
    re.IGNORECASE,
)
# What systems and programs leave beside videos; these files are counted by suffix instead of refused one by one.
LEFTOVER = re.compile(
    r"\.(tmp|temp|bak|swp|nfo|sfv|db|ini|lnk|url|torrent|crdownload|download|aria2|!qb|filepart|exe|dll|.*~)",
    re.IGNORECASE,
)
MAX_KIND = 20  # characters of a suffix
LONE_SIDECAR = ".json without a clip"


@dataclass(frozen=True)
class MediaFile:
    """A clip and where its bytes are: `size` bytes of `path` from `offset` on.

    `source` is its name within the corpus. An unusable clip has a `refusal`: reason and detail. `group` is empty where
    the source video is unknown; the clip is then a group of its own. `split` is empty where the group decides it.
    """

    clip_id: str
    group: str
    path: Path
    offset: int
    size: int
    annotations: tuple[str, ...] = ()
    source: str = ""
    refusal: tuple[str, str] | None = None
    split: str = ""


@dataclass(frozen=True)
class ClipAnnotations:
    """The group and the annotations of a clip, from a manifest or a sidecar."""

    group: str = ""
    annotations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Files that are no clips: of each kind, a suffix or words, their number and the first name."""

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, name: str, number: int = 1) -> None:
        """Count `number` files, of which `name` is the first."""
        count, first = self.kinds.get(kind, (0, name))
        self.kinds[kind] = count + number, first

    def warn(self, root: Path) -> None:
        """Print one line that counts the files of each kind, if there are any that a user may take for clips."""
        kinds = [kind for kind in sorted(self.kinds) if " " in kind or LEFTOVER.fullmatch(kind)]
        if kinds:
            named = ((kind, *self.kinds[kind]) for kind in kinds)
            counts = (f"{count:,} {kind} (the first is {first})" for kind, count, first in named)
            text = f"{root}: skipped {', '.join(counts)}; rename those that belong to the clips"
            warnings.warn(printable(text), stacklevel=2)


def may_be_clip(name: str) -> bool:
    """Whether a file of this name counts as a clip: every file does unless its suffix names another kind."""
    suffix = PurePosixPath(name).suffix
    return not (name.startswith(".") or NOT_CLIPS.fullmatch(suffix) or LEFTOVER.fullmatch(suffix))


def ignored_kind(name: str) -> str:
    """The kind of a file that is no clip: its suffix."""
    return "hidden" if PurePosixPath(name).name.startswith(".") else PurePosixPath(name).suffix.lower()[:MAX_KIND]


def clip_name(name: str) -> str:
    """A file's relative name without its last suffix, with only letters, digits, dots, hyphens and underscores."""
    path = PurePosixPath(name)
    stem = str(path.with_suffix("")) if path.name else "_"  # a member of a tar may have the name "." or an empty name
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem))


def one_line(value: object) -> str:
    """Untrusted text as one line of valid UTF-8; None becomes an empty string."""
    return "" if value is None else printable(str(value).strip())


def write_listing(path: Path, clips: Sequence[MediaFile]) -> None:
    """Save the clips of a shard for the worker that extracts them."""
    with write_atomically(path) as temporary_path:
        temporary_path.write_text(to_json(clips))


def read_listing(path: Path) -> list[MediaFile]:
    """Read a listing that `write_listing` wrote."""
    return from_json(path.read_text())


def to_json(clips: Sequence[MediaFile]) -> str:
    """The clips of a shard as text, in ASCII."""
    return json.dumps([vars(clip) | {"path": str(clip.path)} for clip in clips])


def from_json(text: str | bytes) -> list[MediaFile]:
    """The clips that `to_json` wrote."""
    return [_from_json(row) for row in json.loads(text)]


def _from_json(row: dict) -> MediaFile:
    refusal = tuple(row["refusal"]) if row["refusal"] else None
    return MediaFile(**row | {"path": Path(row["path"]), "annotations": tuple(row["annotations"]), "refusal": refusal})
