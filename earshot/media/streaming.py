"""Reading a file of any length in one pass: its sound in pieces, and the image displayed at every multiple of a hop.

Both have one clock, that of `earshot.media.decoding`: time 0 is when video and sound have begun. The video and the
sound are read by a demuxer each, so that memory stays flat however a file interleaves them. A file of sound alone or of
images alone, and a JPEG or PNG, can be read too.

Damage refuses the whole file, as there. In joined transport streams each part of a stream begins where the part of
the same stream before it ends.
"""

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from earshot.core.untrusted import MAX_DOCUMENT_BYTES, MAX_IMAGE_PIXELS
from earshot.corpus.ledger import Refusal
from earshot.media.decoding import (
    CLOCK_RESET,
    JOINED,
    best_audio,
    best_video,
    check_complete,
    check_image,
    check_rate,
    check_streams,
    crop_of,
    damaged,
    decode_packets,
    faults_as_refusals,
    open_container,
    pixel_aspect,
    seconds_of,
    set_up_decoder,
    stamp_of,
    tick_of,
)
from earshot.media.image import Painter
from earshot.media.soundtrack import Block, blocks

IMAGE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
IMAGE_FORMATS = ("JPEG", "PNG")
PIECE_BYTES = 1 << 21  # of a piece, about
PIECE_SECONDS = 1.0  # of work, after which a piece is yielded however small it is
EPSILON = 1e-6  # s; a frame that appears this much after a time is displayed then


@dataclass(frozen=True)
class StreamOptions:
    """What to read.

    Args:
        audio: whether to read the sound.
        image_size: side of the images in px, their middle square; 0 for no images.
        hop_s: seconds from one image to the next.
        max_duration_s: longer files are refused.
        max_pixels: of a stored image.
    """

    audio: bool
    image_size: int
    hop_s: float
    max_duration_s: float = 12 * 3600.0
    max_pixels: int = MAX_IMAGE_PIXELS


@dataclass
class Piece:
    """A part of a file.

    Args:
        sound: the next samples, int16 (samples, channels) as bytes.
        rate, channels: of the sound; 0 as long as no sound has come.
        images: the next images, uint8 (images, size, size, 3) as bytes.
        counts: at how many of the next multiples of the hop each image is displayed. The last image of a video stands
            as long as the sound lasts; its count may be 0.
        has_audio, has_images: whether sound and images come, in this piece or another.
        whole: an image file at its own size, uint8 (height, width, 3) as bytes.
        shape: height and width of `whole`.
    """

    sound: bytes = b""
    rate: int = 0
    channels: int = 0
    images: bytes = b""
    counts: list[int] = field(default_factory=list)
    has_audio: bool = False
    has_images: bool = False
    whole: bytes = b""
    shape: tuple[int, ...] = ()

    def samples(self) -> np.ndarray:
        """The sound as int16 (samples, channels)."""
        return np.frombuffer(self.sound, np.int16).reshape(-1, self.channels or 1)


def stream_media(open_file: Callable[[], BinaryIO], options: StreamOptions) -> Iterator[Piece]:
    """The pieces of a file, which `open_file` opens for reading from its beginning.

    Raises Refusal, with the decoder's message where there is one: at the latest with the last piece.
    """
    with faults_as_refusals() as log, ExitStack() as stack:
        file = open_file()
        start = file.read(len(max(IMAGE_SIGNATURES, key=len)))
        file.seek(0)
        if start.startswith(IMAGE_SIGNATURES):
            yield _image_file(file, options)
            return
        container = stack.enter_context(open_container(file, options.max_pixels, log))
        check_streams(container)
        video = best_video(container) if options.image_size else None
        audio = best_audio(container) if options.audio else None
        if video is None and audio is None:
            kind = "no-sound" if options.audio else "no-video"
            raise Refusal(kind, f"{container.format.name} with {len(container.streams)} streams, none that is required")
        second = stack.enter_context(open_container(open_file(), options.max_pixels, log)) if video and audio else None
        images = _Images(file, container, video, options) if video else None
        own = second or container
        sound = _Sound(own, audio if second is None else best_audio(own), options) if audio else None
        yield from _interleave(sound, images, container.start_time)


def _image_file(file: BinaryIO, options: StreamOptions) -> Piece:
    """A JPEG or PNG."""
    if not options.image_size:
        raise Refusal("no-sound", "an image file")
    data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Refusal("too-large", f"an image file of more than {MAX_DOCUMENT_BYTES >> 20} MB")
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.width * image.height > options.max_pixels:
            limit = f"more than {options.max_pixels / 1e6:g} megapixels"
            raise Refusal("too-large", f"an image of {image.width} x {image.height}, {limit}")
        return Piece(has_images=True, whole=image.convert("RGB").tobytes(), shape=(image.height, image.width))


def _interleave(sound: "_Sound | None", images: "_Images | None", container_start: int | None) -> Iterator[Piece]:
    """Read whichever is behind, and yield what has come as soon as it is much or has taken long."""
    sources = [each for each in (sound, images) if each]
    reading = list(sources)
    origin = max(each.start() for each in sources)
    for each in sources:
        each.begin(origin)

    def empty() -> Piece:
        return Piece(has_audio=sound is not None, has_images=images is not None)

    piece, since = empty(), time.monotonic()
    while reading:
        behind = min(reading, key=lambda each: each.reached)
        if not behind.step(piece):
            reading.remove(behind)
        is_large = len(piece.sound) + len(piece.images) >= PIECE_BYTES
        if is_large or time.monotonic() - since > PIECE_SECONDS:
            yield piece
            piece, since = empty(), time.monotonic()
    yield piece
    last = sources[-1].packets  # the images', where there are any
    end = max(each.packets.end for each in sources) - (container_start or 0) / av.time_base
    check_complete(last.container, last.stream, last.count, end)


class _Packets:
    """The packets of one stream.

    Attributes:
        end: of the packets so far, in seconds on the file's clock.
        count: of the packets so far.
    """

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self.container, self.stream = container, stream
        self.end, self.count = 0.0, 0

    def __iter__(self) -> Iterator[av.Packet]:
        tick, joined = tick_of(self.stream), self.container.format.name in JOINED
        shift = end = 0  # ticks
        last: int | None = None
        for packet in self.container.demux(self.stream):
            if not packet.size:
                continue
            if packet.is_corrupt and not joined:
                raise damaged(self.count)
            if joined and packet.dts is not None:
                if last is not None and seconds_of(last - packet.dts, tick) > CLOCK_RESET:
                    shift = end - stamp_of(packet)
                last = packet.dts
            if shift:
                packet.pts = None if packet.pts is None else packet.pts + shift
                packet.dts = None if packet.dts is None else packet.dts + shift
            end = max(end, stamp_of(packet) + (packet.duration or 0))
            self.end, self.count = seconds_of(end, tick), self.count + 1
            yield packet


class _Sound:
    """The sound of a file, block by block, without gaps."""

    def __init__(self, container: InputContainer, stream: Any, options: StreamOptions) -> None:
        set_up_decoder(stream, options.max_pixels)
        self.packets = _Packets(container, stream)
        frames = decode_packets(stream.codec_context.decode, self.packets, forgive_start=True)
        self._blocks = blocks(frames, tick_of(stream), options.max_duration_s)
        self._waiting: Iterator[bytes] = iter(())
        self._sent, self.reached, self._rate, self._cut = 0, 0.0, 0, 0

    def start(self) -> float:
        """When the sound begins, in seconds on the file's clock."""
        first = self._next()
        if first is None:
            reason = "unreadable" if self.packets.count else "no-sound"
            raise Refusal(reason, f"{self.packets.count} packets of sound, none can be decoded")
        check_rate(first.rate)
        self._first, self._rate, self._channels = first, first.rate, first.samples.shape[1]
        return first.start

    def begin(self, origin: float) -> None:
        """Set time 0, in seconds on the file's clock."""
        self._cut = round((origin - self._first.start) * self._rate)
        self._blocks = chain([self._first], self._blocks)

    def _next(self) -> Block | None:
        try:
            return next(self._blocks, None)
        except OverflowError as error:
            raise Refusal("too-large", str(error)) from error

    def step(self, piece: Piece) -> bool:
        """Add the next samples to a piece; whether there were any."""
        data = next(self._waiting, None)
        if data is None:
            block = self._next()
            if block is None:
                return False
            self._waiting = self._without_gap(block)
            data = next(self._waiting, b"")
        piece.sound += data
        piece.rate, piece.channels = self._rate, self._channels
        self._sent += len(data) // (2 * self._channels)
        self.reached = self._sent / self._rate
        return True

    def _without_gap(self, block: Block) -> Iterator[bytes]:
        """A block after the silence that leads to it, or without what an earlier block has already filled."""
        place = block.place - self._cut
        silence = (place - self._sent) * 2 * self._channels
        while silence > 0:
            yield bytes(min(silence, PIECE_BYTES))
            silence -= PIECE_BYTES
        yield block.samples[max(self._sent - place, 0) :].tobytes()


class _Images:
    """The images of a file that are displayed at multiples of the hop."""

    def __init__(self, file: BinaryIO, container: InputContainer, stream: Any, options: StreamOptions) -> None:
        set_up_decoder(stream, options.max_pixels)
        check_image(stream, options.max_pixels)
        self.options, self.packets = options, _Packets(container, stream)
        self._crop = crop_of(file, container, stream)
        self._painter = Painter(options.image_size, pixel_aspect=pixel_aspect(stream))
        self._frames: Iterator[tuple[float, av.VideoFrame | None]] = self._appearing()
        self._current: av.VideoFrame | None = None
        self._next, self.reached, self._origin = 0, 0.0, 0.0

    def start(self) -> float:
        """When the first image appears, in seconds on the file's clock."""
        first = next(self._frames, None)
        if first is None:
            reason = "unreadable" if self.packets.count else "no-video"
            raise Refusal(reason, f"{self.packets.count} packets of video, no frame can be decoded")
        self._frames = chain([first], self._frames)
        return first[0]

    def begin(self, origin: float) -> None:
        """Set time 0, in seconds on the file's clock."""
        self._origin = origin

    def step(self, piece: Piece) -> bool:
        """Read the next frame, and add the one before it to a piece if it was displayed at a multiple of the hop."""
        appears, frame = next(self._frames, (self.packets.end, None))
        ended = frame is None
        self.reached = appears - self._origin
        if self.reached > self.options.max_duration_s:
            raise Refusal("too-large", f"the video lasts more than {self.options.max_duration_s:g} s")
        until = max(math.ceil((self.reached - EPSILON) / self.options.hop_s), int(ended and not self._next))
        count = max(until - self._next, 0)
        if self._current is not None and (count or ended):
            piece.images += self._paint(self._current)
            piece.counts.append(count)
            self._next += count
        self._current = frame
        return not ended

    def _paint(self, frame: av.VideoFrame) -> bytes:
        image, size = self._painter.image(self._crop.apply(frame)), self.options.image_size
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return image.crop((left, top, left + size, top + size)).tobytes()

    def _appearing(self) -> Iterator[tuple[float, av.VideoFrame | None]]:
        """The frames with the times at which they appear, from the first key frame on."""
        stream = self.packets.stream
        tick, appears = tick_of(stream), 0.0
        for frame in decode_packets(stream.codec_context.decode, self._from_first_key()):
            if frame.is_corrupt:
                raise Refusal("unreadable", f"a damaged frame at {appears:.2f} s")
            appears = appears if frame.pts is None else seconds_of(frame.pts, tick)
            yield appears, frame

    def _from_first_key(self) -> Iterator[av.Packet]:
        first: av.Packet | None = None
        for packet in self.packets:
            first = first or (packet if packet.is_keyframe else None)
            if first and not (packet.pts is not None and first.pts is not None and packet.pts < first.pts):
                yield packet
