"""Fetching only the seconds that are asked for, from a server that sends parts of files.

FFmpeg's demuxer reads the file through us and believes it to be here; each part that it wants and that has not come is
asked for as a range, by the same paced way as everything else. FFmpeg itself never talks to the network, follows no
address and opens no file. The packets from the key frame before the first second to the last are copied as they are;
cutting to the second comes after, as for any file.
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

BLOCK = 1 << 16  # bytes that are kept or not, as one
READ_THROUGH = 4  # blocks that are rather read and thrown away than asked for anew
FIRST_RANGE = 4  # blocks; each range that goes on where the last one ended has twice as many
LONGEST_RANGE = 128  # blocks, 8 MB; YouTube slows down what is longer than 10 MB
LEAD = 1.0  # seconds before and after the section that come along: sound wants a running start


class NoRanges(Exception):
    """The server sends no parts of this file, or it is not one file: the whole has to come."""


@dataclass(frozen=True)
class Section:
    """Files that hold a video, or the packets of some seconds of it with the times that they have in the whole.

    Of a part, `origin` is the time at which the whole begins and `seconds` how long that lasts, where known.
    """

    paths: list[Path]
    origin: float | None = None
    seconds: float | None = None


def copy_section(
    downloader: YoutubeDL, formats: list[dict], folder: Path, start: float, end: float, megabytes: float
) -> Section:
    """Copy the packets between `start` and `end`, in seconds after the whole begins, into a file for each format.

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
    except (av.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refusal("unreadable", getattr(error, "strerror", None) or type(error).__name__) from None
    finally:
        for media in opened:
            media.close()
    return Section(paths, origin, max(lengths, default=None))


def _copy(media: Any, path: Path, first: float, last: float) -> None:
    """Copy picture and sound from the key frame before `first` on, in seconds of the media's clock, until `last`."""
    tracks = [*[s for s in media.streams.video if not s.disposition & av.stream.Disposition.attached_pic][:1]]
    tracks += media.streams.audio[:1]
    if not tracks:
        raise Refusal("no-video", "neither picture nor sound")
    media.seek(int(max(first, 0) * av.time_base))
    with av.open(str(path), "w", format="matroska") as out:
        copies = {track.index: out.add_stream_from_template(track) for track in tracks}
        waiting = set(copies)
        for packet in media.demux(tracks):
            if packet.dts is None:
                continue
            if packet.dts * packet.time_base > last:
                waiting.discard(packet.stream.index)
                if not waiting:
                    break
                continue
            packet.stream = copies[packet.stream.index]
            out.mux(packet)


class RemoteFile(io.RawIOBase):
    """A file on a server, of which comes what is read: once, in ranges, into a file of the same size with holes.

    Raises NoRanges where the server sends no ranges, and Refusal as too-large above `most` bytes.
    """

    def __init__(self, downloader: YoutubeDL, form: dict, here: Path, most: float) -> None:
        super().__init__()
        self._downloader, self._form, self._most = downloader, form, most
        self._here = open(here, "w+b")  # noqa: SIM115
        self._blocks: set[int] = set()
        self._place = 0
        self._answer: Response | None = None
        self._next = self._last = 0  # blocks: the one that the answer gives next, and the first beyond it
        self._length = FIRST_RANGE
        self.size = -1
        self._ask(0)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere; nothing is asked for before it is read."""
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence])
        return self._place

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from here on; fewer at the end of a block."""
        if self._place >= self.size or not size:
            return b""
        block = self._place // BLOCK
        if block not in self._blocks:
            self._get(block)
        length = min((block + 1) * BLOCK, self.size) - self._place
        self._here.seek(self._place)
        data = self._here.read(min(size, length) if size > 0 else length)
        self._place += len(data)
        return data

    def close(self) -> None:
        """Hang up."""
        if self._answer:
            self._answer.close()
        self._here.close()
        super().close()

    def _get(self, block: int) -> None:
        if not self._next <= block <= min(self._next + READ_THROUGH, self._last - 1):
            self._ask(block)
        while self._next <= block:
            length = min(BLOCK, self.size - self._next * BLOCK)
            data = b"".join(_exactly(self._answer, length))
            self._here.seek(self._next * BLOCK)
            self._here.write(data)
            self._blocks.add(self._next)
            self._next += 1
        if len(self._blocks) * BLOCK > self._most:
            raise Refusal("too-large", f"more than {self._most / 1e6:g} MB are wanted of it")

    def _ask(self, block: int) -> None:
        """Ask for a range that begins with a block; what it says of itself must be that."""
        if self._answer:
            self._answer.close()
        goes_on = self._last and block == self._last
        self._length = min(2 * self._length, LONGEST_RANGE) if goes_on else FIRST_RANGE
        first, last = block * BLOCK, (block + self._length) * BLOCK - 1
        last = last if self.size < 0 else min(last, self.size - 1)
        headers = {**(self._form.get("http_headers") or {}), "Accept-Encoding": "identity"}
        request = Request(self._form["url"], headers=headers | {"Range": f"bytes={first}-{last}"})
        self._answer = self._downloader.urlopen(request)
        told, _, size = (self._answer.get_header("Content-Range") or "").removeprefix("bytes ").partition("/")
        if self._answer.status != 206 or not told.startswith(f"{first}-") or not size.isdigit():
            raise NoRanges
        if self.size not in (-1, int(size)):
            raise Refusal("network", f"the file had {self.size} bytes and has {size} now")
        self.size = int(size)
        self._next, self._last = block, -(-min(last + 1, self.size) // BLOCK)


def _exactly(answer: Response, length: int) -> Iterator[bytes]:
    while length > 0:
        data = answer.read(length)
        if not data:
            raise Refusal("network", f"{length} bytes are missing of what was announced")
        length -= len(data)
        yield data
