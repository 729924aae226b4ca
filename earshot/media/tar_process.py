"""Listing tars in a child process, so that a tar whose headers hang or fill its reader harms no other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from earshot.core.files import real_path
from earshot.core.messages import first_line
from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.media.clips import MediaFile, Skipped, clip_name, from_json, to_json
from earshot.media.tars import clips_in_tar

MAX_MEMORY = 1 << 30  # bytes
# An honest tar takes less than a second for 100 MB of headers; the rest is for slow disks.
MIN_SECONDS, BYTES_PER_SECOND = 30.0, 1_000_000


def list_tar(item: tuple[Path, str]) -> dict[str, Any]:
    """The work of the child: the clips of a tar as JSON, and the files that are none."""
    (path, source), skipped = item, Skipped()
    try:
        clips = list(clips_in_tar(path, source, skipped))
    except MemoryError:
        raise
    except Exception as error:  # an unforeseen fault of the file
        clips = [refused_shard(path, source, "unreadable", f"the shard cannot be listed: {first_line(error)}")]
    return {"clips": to_json(clips).encode(), "skipped": skipped.kinds}


class TarLister:
    """A child process that lists `tars` one after another, and can read no others; it starts with the first."""

    def __init__(self, tars: Iterable[Path]) -> None:
        reads = tuple(map(real_path, tars))
        limits = Limits(MIN_SECONDS, memory=MAX_MEMORY, file_size=0, starts_processes=False, reads=reads)
        self.child = ChildProcess(list_tar, limits)

    def __enter__(self) -> "TarLister":
        return self

    def __exit__(self, *raised: object) -> None:
        self.child.__exit__(*raised)

    def clips(self, path: Path, source: str, skipped: Skipped) -> list[MediaFile]:
        """The clips of a tar, whose name in the corpus is `source`, or one refusal if it cannot be listed.

        `skipped` counts what is no clip.
        """
        seconds = MIN_SECONDS + (path.stat().st_size / BYTES_PER_SECOND if path.is_file() else 0)
        result = self.child.run((path, source), seconds)
        if isinstance(result, Failure) and not (result.hung or result.out_of_memory):
            result = self.child.run((path, source), seconds)  # something else may have killed the child
        if isinstance(result, Failure):
            return [refused_shard(path, source, *_problem(result, seconds))]
        for kind, (count, first) in result["skipped"].items():
            skipped.add(kind, first, count)
        return from_json(result["clips"])


def refused_shard(path: Path, source: str, reason: str, detail: str) -> MediaFile:
    """The refusal of a whole tar."""
    return MediaFile(clip_name(source), "", path, 0, 0, (), source, (reason, detail))


def _problem(failure: Failure, seconds: float) -> tuple[str, str]:
    if failure.hung:
        return "timeout", f"the shard is not listed within {seconds:.0f} s"
    if failure.out_of_memory:
        return "too-large", f"listing the shard needs more than {MAX_MEMORY >> 20} MB of memory"
    return "unreadable", f"the process that lists the shard crashed ({failure.ending})"
