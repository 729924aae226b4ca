"""Unpacking .tar.gz files into a scratch folder: gzip has no places to begin reading at, and a clip is read twice.

Each is unpacked by a child process that can read this file alone and write one folder. What a damaged file gives before
its fault is kept. A file that unpacks to much more than a tar of videos does is refused whole.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

from earshot.core.files import real_path, write_atomically
from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.core.untrusted import open_without_links

GZIPPED = re.compile(r"\.(tar\.gz|tgz)$", re.IGNORECASE)
TAR, OUTCOME = "unpacked.tar", "outcome.json"  # in the folder of a tar
MAX_RATIO, MIN_LIMIT = 10, 64 << 20  # a tar of videos unpacks to about its size; that of few small clips, to more
MAX_MEMORY = 1 << 28  # bytes
PIECE = 1 << 20  # bytes
# As for listing a tar: an honest one takes a tenth of it.
MIN_SECONDS, BYTES_PER_SECOND = 30.0, 1_000_000


def unpack(item: tuple[Path, Path, int]) -> dict[str, Any]:
    """The work of the child: unpack a file to `target`, at most `limit` bytes; return how it ended."""
    (packed, target, limit), written = item, 0
    with open_without_links(packed) as file, open(target, "wb") as tar:
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                while data := stream.read1(PIECE):
                    written += len(data)
                    if written > limit:
                        detail = f"the shard unpacks to more than {limit:,} bytes, {MAX_RATIO} times its size"
                        return {"refusal": ("too-large", detail)}
                    tar.write(data)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return {"damaged": f"the shard is damaged or truncated after {written:,} bytes, unpacked"}
    return {}


class Unpacked:
    """A .tar.gz and the folder below `scratch` that it is unpacked into, once."""

    def __init__(self, packed: Path, source: str, scratch: Path) -> None:
        self.packed, self.source = packed, source
        changed = packed.stat().st_mtime_ns if packed.exists() else 0
        self.folder = scratch / hashlib.sha256(os.fsencode(f"{source}\0{changed}")).hexdigest()[:16]

    @property
    def tar(self) -> Path:
        """The plain tar: it exists unless the whole file was refused."""
        return self.folder / TAR

    @property
    def problem(self) -> tuple[str, str] | None:
        """Reason and detail where the file could not be unpacked to its end."""
        outcome = json.loads((self.folder / OUTCOME).read_text())
        return (outcome[0], outcome[1]) if outcome else None

    def unpack(self) -> None:
        """Unpack the file, unless this was done.

        Raises OSError if the disk is full.
        """
        if (self.folder / OUTCOME).exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        problem, useless = self._unpack()
        if useless:
            self.tar.unlink(missing_ok=True)
        with write_atomically(self.folder / OUTCOME) as temporary:
            temporary.write_text(json.dumps(problem))

    def _unpack(self) -> tuple[tuple[str, str] | None, bool]:
        """The problem, if there is one, and whether it makes all of the tar useless."""
        if not self.packed.is_file():  # a link to nowhere, a pipe
            return ("unreadable", "the shard is not a file"), True
        packed, size = real_path(self.packed), self.packed.stat().st_size
        limit, seconds = max(MIN_LIMIT, MAX_RATIO * size), MIN_SECONDS + size / BYTES_PER_SECOND
        limits = Limits(
            seconds,
            memory=MAX_MEMORY,
            file_size=limit,
            starts_processes=False,
            reads=(packed,),
            writes=(self.folder,),
        )
        with ChildProcess(unpack, limits) as child:
            result = child.run((packed, self.tar, limit))
            if isinstance(result, Failure) and not result.hung:
                result = child.run((packed, self.tar, limit))  # something else may have killed the child
        if isinstance(result, Failure):
            if result.hung:
                return ("timeout", f"the shard is not unpacked within {seconds:.0f} s"), True
            return ("unreadable", f"the process that unpacks the shard crashed ({result.ending})"), True
        if "refusal" in result:
            reason, detail = result["refusal"]
            return (reason, detail), True
        return (("unreadable", result["damaged"]), False) if "damaged" in result else (None, False)
