"""Download only the requested seconds, from a server that supports ranges.

FFmpeg's demuxer reads from `RemoteFile` as from a local file; each missing part is requested as a range, under the same
rate limit as every request. FFmpeg itself never uses the network, follows an address or opens a file. The packets from
the key frame before the first second to the last second are copied; they are cut to the second later, as any file.
"""

import errno
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from yt_dlp import YoutubeDL
from yt_dlp.networking import Request, Response

from earshot.corpus.ledger import Refusal
from earshot.download.cutting import CONTAINERS

BLOCK = 1 << 16  # bytes; the unit of storage
READ_THROUGH = 4  # blocks; a gap up to this is read and kept rather than skipped by a new request
FIRST_RANGE = 4  # blocks; each range that continues the last one is twice as long
MAX_RANGE = 128  # blocks, 8 MB; YouTube slows down ranges above 10 MB
LEAD = 1.0  # s before and after the section: audio decoding requires a lead-in


class NoRanges(Exception):
    """The server does not support ranges of this file, or it is not one file: download all of it."""


@dataclass(frozen=True)
class VideoSection:
    """Files that hold a video, or the packets of a section of it with their times in the whole.

    For a section, `origin` is the time at which the whole starts and `seconds` the length of the whole, if known.
    """

    paths: list[Path]
    origin: float | None = None
    seconds: float | None = None


def copy_section(
    downloader: YoutubeDL, formats: list[dict], folder: Path, start: float, end: float, megabytes: float
) -> VideoSection:
    """Copy the packets between `start` and `end` (s after the start of the whole) into a file for each format.

    Raises NoRanges, Refusal as too-large or unreadable, and whatever the downloader raises.
    """
    if not formats or any(form.get("protocol") not in ("http", "https") or form.get("fragments") for form in formats):
        raise NoRanges
    opened: list[av.container.InputContainer] = []
    paths = []
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
    try:
        for number, form in enumerate(formats):
            remote = RemoteFile(downloader, form, folder / f"{number}.part", megabytes * 1e6 / len(formats))
            opened.append(av.open(remote, "r", options=options, metadata_errors="replace"))
        origin = min((media.start_time or 0) / av.time_base for media in opened)
        lengths = [media.duration / av.time_base for media in opened if media.duration]
        for number, media in enumerate(opened):
            path = folder / f"{number}.mkv"
            _copy(media, path, origin + start - LEAD, origin + end + LEAD)
            paths.append(path)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refusal("unreadable", getattr(error, "strerror", None) or type(error).__name__) from None
    finally:
        for media in opened:
            media.close()
    return VideoSection(paths, origin, max(lengths, default=None))


def _copy(media: Any, path: Path, first: float, last: float) -> None:
    """Copy video and audio from the key frame before `first` until `last` (s on the media's clock)."""
    tracks = [*[s for s in media.streams.video if not s.disposition & av.stream.Disposition.attached_pic][:1]]
    tracks += media.streams.audio[:1]
    if not tracks:
        raise Refusal("no-video", "neither video nor audio")
    media.seek(int(max(first, 0) * av.time_base))
    with av.open(str(path), "w", format="matroska") as out:
        copies = {track.index: out.add_stream_from_template(track) for track in tracks}
        unfinished = set(copies)
        for packet in media.demux(tracks):
            if packet.dts is None:
                continue
            if packet.dts * packet.time_base > last:
                unfinished.discard(packet.stream.index)
                if not unfinished:
                    break
                continue
            packet.stream = copies[packet.stream.index]
            out.mux(packet)


class RemoteFile(io.RawIOBase):
    """A file on a server that downloads only what is read: once, in ranges, into a sparse local file.

    Raises NoRanges if the server does not support ranges, and Refusal as too-large above `max_bytes`.
    """

    def __init__(self, downloader: YoutubeDL, form: dict, local_path: Path, max_bytes: float) -> None:
        super().__init__()
        self._downloader, self._form, self._max_bytes = downloader, form, max_bytes
        self._local = open(local_path, "w+b")  # noqa: SIM115
        self._blocks: set[int] = set()
        self._position = 0
        self._response: Response | None = None
        self._next = self._last = 0  # blocks: the next one of the response, and the first after it
        self._length = FIRST_RANGE
        self.size = -1
        self._request(0)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; reading makes the request."""
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence])
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; fewer at the end of a block."""
        if self._position >= self.size or not size:
            return b""
        block = self._position // BLOCK
        if block not in self._blocks:
            self._get(block)
        length = min((block + 1) * BLOCK, self.size) - self._position
        self._local.seek(self._position)
        data = self._local.read(min(size, length) if size > 0 else length)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Close the connection and the file."""
        if self._response:
            self._response.close()
        self._local.close()
        super().close()

    def _get(self, block: int) -> None:
        if not self._next <= block <= min(self._next + READ_THROUGH, self._last - 1):
            self._request(block)
        while self._next <= block:
            length = min(BLOCK, self.size - self._next * BLOCK)
            data = b"".join(_exactly(self._response, length))
            self._local.seek(self._next * BLOCK)
            self._local.write(data)
            self._blocks.add(self._next)
            self._next += 1
        if len(self._blocks) * BLOCK > self._max_bytes:
            raise Refusal("too-large", f"more than {self._max_bytes / 1e6:g} MB are required of it")

    def _request(self, block: int) -> None:
        """Request a range that begins with a block; raises NoRanges if the response is another range."""
        if self._response:
            self._response.close()
        continues = self._last and block == self._last
        self._length = min(2 * self._length, MAX_RANGE) if continues else FIRST_RANGE
        first, last = block * BLOCK, (block + self._length) * BLOCK - 1
        last = last if self.size < 0 else min(last, self.size - 1)
        headers = {**(self._form.get("http_headers") or {}), "Accept-Encoding": "identity"}
        request = Request(self._form["url"], headers=headers | {"Range": f"bytes={first}-{last}"})
        self._response = self._downloader.urlopen(request)
        content_range, _, size = (
            (self._response.get_header("Content-Range") or "").removeprefix("bytes ").partition("/")
        )
        if self._response.status != 206 or not content_range.startswith(f"{first}-") or not size.isdigit():
            raise NoRanges
        if self.size not in (-1, int(size)):
            raise Refusal("network", f"the size of the file changed from {self.size} to {size} bytes")
        self.size = int(size)
        self._next, self._last = block, -(-min(last + 1, self.size) // BLOCK)


def _exactly(response: Response, length: int) -> Iterator[bytes]:
    while length > 0:
        data = response.read(length)
        if not data:
            raise Refusal("network", f"{length} of the announced bytes are missing")
        length -= len(data)
        yield data
