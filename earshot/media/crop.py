"""The part of a stored image that a container displays: the clean aperture of MP4 and MOV, the crop of Matroska.

FFmpeg applies the crop of a codec, and leaves that of the container to the player. PyAV does not pass it on, so this
reads it from the file: the box `clap` (ISO/IEC 14496-12, 12.1.4), and the elements PixelCrop* (RFC 9559, 5.1.4.1.28).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import av
import av.filter

MOV, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # formats, as FFmpeg names them
MAX_MOOV = 1 << 24  # bytes of the header of MP4 that are read
MAX_BEGINNING = 1 << 20  # bytes of Matroska in which the tracks begin and end
BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
SAMPLE_ENTRY = 78  # bytes of a visual sample entry before its boxes
SEGMENT, TRACKS, ENTRY, KIND, VIDEO, CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0, 0x1F43B675
CROPS = {0x54CC: "left", 0x54DD: "right", 0x54BB: "top", 0x54AA: "bottom"}
IS_VIDEO = 1  # the track type


@dataclass(frozen=True)
class Crop:
    """Pixels to leave out at each side of a stored image."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def fits(self, width: int, height: int) -> bool:
        """Whether something is cropped and something remains."""
        sides = (self.left, self.right, self.top, self.bottom)
        return any(sides) and min(sides) >= 0 and self.left + self.right < width and self.top + self.bottom < height

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The remaining part of a frame; the frame itself if the crop does not fit it."""
        if not self.fits(frame.width, frame.height):
            return frame
        width, height = frame.width - self.left - self.right, frame.height - self.top - self.bottom
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        crop = graph.add("crop", f"{width}:{height}:{self.left}:{self.top}:exact=1")
        graph.link_nodes(source, crop, graph.add("buffersink")).configure()
        graph.push(frame)
        cropped = graph.pull()
        assert isinstance(cropped, av.VideoFrame)
        return cropped


def container_crop(file: BinaryIO, kind: str, place: int, width: int, height: int) -> Crop:
    """The crop of a video; no crop if the header states none, or one that makes no sense.

    Args:
        file: the media file; its position is restored.
        kind: FFmpeg's name of the format.
        place: 0 for the first video of the file, 1 for the second.
        width, height: of the stored image.
    """
    position = file.tell()
    try:
        crops = list(_mov_crops(file, width, height) if kind == MOV else _matroska_crops(file))
    except (struct.error, IndexError, ZeroDivisionError, OverflowError, OSError, RecursionError, ValueError):
        return Crop()
    finally:
        file.seek(position)
    crop = crops[place] if place < len(crops) else Crop()
    return crop if crop.fits(width, height) else Crop()


def _mov_crops(file: BinaryIO, width: int, height: int) -> Iterator[Crop]:
    """The crop of each video track of an MP4 or MOV file."""
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        read = 8
        if size == 1:
            (size,), read = struct.unpack(">Q", file.read(8)), 16
        if 0 < size < read:
            return
        if kind == b"moov":
            yield from _crops_in(file.read(min(size - read, MAX_MOOV) if size else MAX_MOOV), width, height)
        if not size:  # to the end of the file
            return
        # Raises ValueError for a size that no file can have.
        file.seek(size - read if kind != b"moov" else max(size - read - MAX_MOOV, 0), 1)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _crops_in(data: bytes, width: int, height: int) -> Iterator[Crop]:
    """The crop of each video track in the contents of `moov` or of a box in it."""
    boxes = list(_boxes(data))
    of = dict(boxes)
    if b"minf" in of and of.get(b"hdlr", b"")[8:12] != b"vide":
        return  # the track of something else
    for kind, body in boxes:
        if kind in BOXES:
            yield from _crops_in(body, width, height)
        elif kind == b"stsd":
            _, entry = next(_boxes(body[8:]), (b"", b""))
            aperture = next((box for name, box in _boxes(entry[SAMPLE_ENTRY:]) if name == b"clap"), None)
            yield _clean_aperture(aperture, width, height) if aperture else Crop()


def _clean_aperture(box: bytes, width: int, height: int) -> Crop:
    """Width, height and the offsets of the center, each as a numerator and a denominator."""
    numbers = struct.unpack(">8i", box[:32])
    wide, tall, right, down = (numbers[at] / numbers[at + 1] for at in range(0, 8, 2))
    left, top = round(right + (width - wide) / 2), round(down + (height - tall) / 2)
    return Crop(left, width - left - round(wide), top, height - top - round(tall))


def _matroska_crops(file: BinaryIO) -> Iterator[Crop]:
    """The crop of each video track of a Matroska file."""
    file.seek(0)
    data, at = file.read(MAX_BEGINNING), 0
    while at < len(data):
        identity, size, at = _element(data, at)
        if identity == CLUSTER:
            return
        if identity == SEGMENT:
            continue  # enter it
        if identity == TRACKS:
            tracks = _children(data[at : at + size])
            for track in (dict(_children(entry)) for name, entry in tracks if name == ENTRY):
                if int.from_bytes(track.get(KIND, b"")) == IS_VIDEO:
                    sides = _children(track.get(VIDEO, b""))
                    yield Crop(**{CROPS[name]: int.from_bytes(value) for name, value in sides if name in CROPS})
            return
        at += size


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        identity, size, at = _element(data, at)
        yield identity, data[at : at + size]
        at += size


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """The id and size of an EBML element, and where its content begins (RFC 8794)."""
    length = 9 - data[at].bit_length()
    identity, at = int.from_bytes(data[at : at + length]), at + length
    length = 9 - data[at].bit_length()
    if length > 8:
        raise IndexError("an element without a size")
    size = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return identity, size, at + length
