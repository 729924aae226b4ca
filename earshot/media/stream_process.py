"""Reading files of any length in a child process, which a file that hangs or crashes the decoder cannot leave."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from earshot.core.messages import first_line
from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.corpus.ledger import Refusal
from earshot.media.decoder_process import MAX_MEMORY
from earshot.media.file_section import FileSection, open_or_refuse
from earshot.media.streaming import Piece, StreamOptions, stream_media


@dataclass(frozen=True)
class StreamRequest:
    """A file to read: `size` bytes of `path` from `offset` on; without a size, the whole file."""

    path: Path
    offset: int
    size: int
    options: StreamOptions


class StreamSteps:
    """The work of the child: a request begins a file, None continues it. Returns a piece, a refusal or None."""

    def __init__(self) -> None:
        self._pieces: Iterator[Piece] = iter(())

    def __call__(self, request: StreamRequest | None) -> dict[str, Any] | None:
        try:
            if request:
                self._pieces = _pieces(request)
            piece = next(self._pieces, None)
            return vars(piece) if piece else None
        except Refusal as refusal:
            return {"refusal": refusal.args}
        except MemoryError:
            raise
        except Exception as error:  # an unforeseen fault of the file
            return {"refusal": ("unreadable", f"the decoder failed ({type(error).__name__}: {first_line(error)})")}


def _pieces(request: StreamRequest) -> Iterator[Piece]:
    with open_or_refuse(request.path) as file:
        size = request.size or file.seek(0, 2)

        def section() -> BinaryIO:
            return cast(BinaryIO, FileSection(file.fileno(), request.offset, size))

        yield from stream_media(section, request.options)


class MediaReader:
    """A child process that reads files one after another; it starts with the first.

    The work on a piece may take `timeout_s`. The child can read any file, since it serves whatever comes, but it writes
    none and connects to nobody.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        limits = Limits(timeout_s, memory=MAX_MEMORY, file_size=0, starts_processes=False, reads=(Path("/"),))
        self.child = ChildProcess(StreamSteps(), limits)

    def __enter__(self) -> "MediaReader":
        return self

    def __exit__(self, *raised: object) -> None:
        self.child.__exit__(*raised)

    def read(self, path: Path, options: StreamOptions, offset: int = 0, size: int = 0) -> Iterator[Piece]:
        """The pieces of a file, or of the part of it that is `size` bytes from `offset` on.

        Raises Refusal for a file that cannot be decoded, hangs (timeout), exceeds the memory limit (too-large) or
        crashes the child (unreadable): at the latest after the last piece.
        """
        request: StreamRequest | None = StreamRequest(path, offset, size, options)
        result = self.child.run(request)
        if isinstance(result, Failure) and not result.hung:
            result = self.child.run(request)  # something else may have killed the child
        while result is not None:
            if isinstance(result, Failure):
                raise self._refusal(result)
            if "refusal" in result:
                raise Refusal(*result["refusal"])
            yield Piece(**result)
            result = self.child.run(None)

    def _refusal(self, failure: Failure) -> Refusal:
        if failure.hung:
            return Refusal("timeout", f"not decoded within {self.child.limits.seconds:g} s")
        if failure.out_of_memory:
            return Refusal("too-large", f"needs more than {MAX_MEMORY >> 20} MB of memory")
        return Refusal("unreadable", f"the decoder crashed ({failure.ending})")
