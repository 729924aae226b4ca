"""Decoding in a child process, so that a file that hangs or crashes the decoder harms no other clip.

The child runs decoders written in C on untrusted files. Its memory is limited, it cannot write files, and where the
kernel has Landlock it can read only the files that it is to decode.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from earshot.core.messages import first_line
from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.corpus.ledger import Refusal
from earshot.media.decoding import Decoded, DecodeOptions, decode_clip
from earshot.media.file_section import FileSection, open_or_refuse
from earshot.media.quality import Measured

MAX_MEMORY = 5 << 28  # bytes; ten minutes of 48 kHz stereo take 320 MB, H.264 of 40 megapixels 350 MB


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
    with open_or_refuse(request.path) as file:
        # FFmpeg calls no other methods.
        section = cast(BinaryIO, FileSection(file.fileno(), request.offset, request.size))
        return decode_clip(section, request.options)
