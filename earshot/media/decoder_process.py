"""Decoding in a child process, so that a file that hangs or crashes the decoder harms no other clip.

The child runs decoders written in C on untrusted files. Its memory is limited, it cannot write files, and where the
kernel has Landlock it can read only the files that it is to decode.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.core.text import first_line
from earshot.core.untrusted import NotRegular, open_without_links
from earshot.corpus.ledger import Refusal
from earshot.media.decoding import Decoded, DecodeOptions, decode_clip
from earshot.media.quality import Measured

MAX_MEMORY = 5 << 28  # bytes; ten minutes of 48 kHz stereo take 320 MB, H.264 of 40 megapixels 350 MB


class FileSection:
    """A part of an open file, read and sought like a file of its own."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self.descriptor, self.offset, self.size, self.position = descriptor, offset, size, 0

    def read(self, count: int = -1) -> bytes:
        left = max(self.size - self.position, 0)
        data = os.pread(self.descriptor, left if count < 0 else min(count, left), self.offset + self.position)
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position


@dataclass(frozen=True)
class Request:
    """A clip to decode: `size` bytes of `path` from `offset` on."""

    path: Path
    offset: int
    size: int
    options: DecodeOptions


def decode_request(request: Request) -> dict[str, Any]:
    """The work of the child: the fields of `Decoded`, or the refusal."""
    try:
        return asdict(_decode(request))
    except Refusal as refusal:
        return {"refusal": refusal.args}
    except MemoryError:
        raise
    except Exception as error:  # an unforeseen fault of the file
        return {"refusal": ("unreadable", f"the decoder failed ({type(error).__name__}: {first_line(error)})")}


class Decoder:
    """A child process that decodes clips one after another; it starts with the first clip.

    Decoding one clip may take `timeout_s`. The child can read `files` alone. `work` is the function that it applies to
    each `Request`.
    """

    def __init__(
        self, timeout_s: float, files: Iterable[Path], work: Callable[[Request], dict[str, Any]] = decode_request
    ) -> None:
        reads = tuple(dict.fromkeys(files))
        limits = Limits(timeout_s, memory=MAX_MEMORY, file_size=0, starts_processes=False, reads=reads)
        self.child = ChildProcess(work, limits)

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *raised: object) -> None:
        self.child.__exit__(*raised)

    def decode(self, path: Path, offset: int, size: int, options: DecodeOptions) -> Decoded:
        """Decode the clip that is `size` bytes of `path` from `offset` on.

        Where the child dies, a new one tries the clip once more, because something else may have killed the first.
        Raises Refusal for a clip that cannot be decoded, hangs (timeout), exceeds the memory limit (too-large) or
        crashes the child (unreadable).
        """
        request = Request(path, offset, size, options)
        result = self.child.run(request)
        if isinstance(result, Failure) and not result.hung:
            result = self.child.run(request)
        if isinstance(result, Failure):
            raise self._refusal(result)
        if "refusal" in result:
            raise Refusal(*result["refusal"])
        return Decoded(**result | {"measured": Measured(**result["measured"])})

    def _refusal(self, failure: Failure) -> Refusal:
        if failure.hung:
            return Refusal("timeout", f"not decoded within {self.child.limits.seconds:g} s")
        if failure.out_of_memory:
            return Refusal("too-large", f"needs more than {MAX_MEMORY >> 20} MB of memory")
        return Refusal("unreadable", f"the decoder crashed ({failure.ending})")


def _decode(request: Request) -> Decoded:
    try:
        file = open_without_links(request.path)
    except NotRegular as error:
        raise Refusal("unsupported", str(error.strerror)) from error
    except OSError as error:
        raise Refusal("unreadable", error.strerror or "cannot be opened") from error
    with file:
        # FFmpeg calls no other methods.
        section = cast(BinaryIO, FileSection(file.fileno(), request.offset, request.size))
        return decode_clip(section, request.options)
