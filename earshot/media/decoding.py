"""Decoding one clip in one pass: the requested frames and the whole soundtrack, on one clock.

A clip begins where both video and sound have begun. It ends with its sound: the last image stands until then, as in a
player. (An image that ends a fraction of a second earlier is an encoder's rounding, and ends the clip.)

The decoder reads the whole file: first the packets, which give the times of all frames, then the sound, then the
images. It converts only the requested ones: frames at the moments, frames of the sequence, and thumbnails for the
quality checks.

A file is unreadable if no demuxer recognizes it, if the demuxer or decoder marks a packet as damaged or fails on it, or
if it ends before the length in its header. Data before the first key frame, or before the first sound that decodes,
comes from a cut and is no damage, and neither is the seam of joined transport streams. Damage that the format cannot
reveal goes unnoticed, and so does damage of images that are not decoded (`DecodeOptions.all_images`).
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median
from typing import Any, BinaryIO, TypeVar

import av
from av.container import InputContainer
from av.stream import Disposition, Stream

from earshot.core.untrusted import SOUND_RATES
from earshot.corpus.ledger import Refusal
from earshot.media.crop import MATROSKA, MOV, Crop, container_crop
from earshot.media.image import Painter, Thumbnailer
from earshot.media.quality import THUMBNAIL_SIDE, Measured, measure, thumbnail_places
from earshot.media.skipping import plan
from earshot.media.soundtrack import Soundtrack, assemble, encode_flac

# Containers that hold their own video and sound. Formats that open other files or addresses (hls, dash, concat, image2,
# sdp) are left out. Formats of sound alone or images alone are listed so that they are refused for the right reason.
CONTAINERS = (
    "mov,matroska,avi,mpeg,mpegts,flv,live_flv,kux,asf,asf_o,ogg,mxf,nut,rm,ivr,wtv,dv,gxf,lxf,nsv,nuv,ty,vivo,pva,"
    "bink,smk,roq,mods,moflex,thp,4xm,film_cpk,gif,apng,ivf,wav,w64,aiff,au,caf,mp3,aac,flac,ac3"
)
GUESSED = ("h261", "h263", "lrc", "tty")  # formats without a signature: FFmpeg takes random bytes for them
# Formats whose headers state the number of frames or the length of the file, and how far an intact file may deviate.
# (AVI counts dropped frames, during which the image before them stands. The frame count of an mp4 is useless: an edit
# list leaves frames out.)
STATES_IMAGES = "avi"
STATES_LENGTH = (MOV, MATROSKA, "flv", "asf", "nut", "mxf")
LENGTH_SLACK, LENGTH_SLACK_SHARE = 0.5, 0.05  # s, share of the length
JOINED = ("mpegts", "mpeg")  # formats whose files can be joined byte by byte; each part may have its own clock
SEAM = 2  # packets within which the next part begins with a key frame; the parser marks up to one packet too early
CLOCK_RESET = 1.0  # s by which the decoding time falls where another part begins
STILL = 1.0  # s; an image that is displayed for longer stands, as the last one does until the sound ends
TOO_LARGE = "exceeds specified max pixel count"  # FFmpeg's words about its option max_pixels
READ_SIZE = 1 << 18  # bytes read at once

Frame = TypeVar("Frame", av.VideoFrame, av.AudioFrame)


@dataclass(frozen=True)
class DecodeOptions:
    """What to extract from a clip.

    Args:
        places: of the moments, in [0, 1): 0 is the earliest possible time, 1 the latest.
        frame_size: short side of a frame, px.
        jpeg_quality: of frames and sequence.
        window_s: length of the sound around a moment, s.
        min_duration_s, max_duration_s: bounds on the length of a clip, s.
        max_pixels: the largest image.
        sequence_rate: frames a second of the sequence, which covers the whole clip; 0 for none.
        sequence_size: short side of a frame of the sequence, px.
        squeeze: make every frame a square, whole, instead of keeping its shape.
        all_images: decode all images, which finds damage in any of them; otherwise those that the requested ones need
            (`earshot.media.skipping`). The results of a file without damage are the same.
    """

    places: tuple[float, ...]
    frame_size: int
    jpeg_quality: int
    window_s: float
    min_duration_s: float
    max_duration_s: float
    max_pixels: int
    sequence_rate: float = 0.0
    sequence_size: int = 0
    squeeze: bool = False
    all_images: bool = True


class _NotAsPlanned(Exception):
    """Some of the images do not decode as planned: all must be decoded."""


@dataclass(frozen=True)
class Decoded:
    """A decoded clip; the fields are those of `earshot.scenes.writing.Scene`."""

    duration: float
    frames: list[bytes]
    times: list[float]
    sound: bytes
    audio_rate: int
    audio_channels: int
    sequence: list[bytes]
    sequence_rate: float
    measured: Measured


def decode_clip(file: BinaryIO, options: DecodeOptions) -> Decoded:
    """Decode a clip from a file open for reading and seeking.

    Raises Refusal, with the decoder's message where there is one.
    """
    try:
        return _decode(file, options)
    except _NotAsPlanned:
        file.seek(0)
        return _decode(file, replace(options, all_images=True))


def _decode(file: BinaryIO, options: DecodeOptions) -> Decoded:
    with faults_as_refusals() as log, open_container(file, options.max_pixels, log) as container:
        video, audio = _streams(container, options)
        packets = _packets(container, video, audio)
        sound = _soundtrack(audio, packets.pop(audio.index), options)
        clock = _Clock(video, packets[video.index])
        start, end = max(sound.start, clock.start), clock.end_with(sound)
        _check_duration(end - start, options)
        samples = sound.between(start, end)
        crop = crop_of(file, container, video)
        images = _images(video, crop, clock, start, end, options, log)
        first, last = moment_span(options.window_s, end - start)
        return Decoded(
            duration=end - start,
            frames=[jpeg for _, jpeg in images["moment"]],
            # A frame that appeared before the earliest moment is still displayed then.
            times=[min(max(appeared - start, first), last) for appeared, _ in images["moment"]],
            sound=encode_flac(samples, sound.rate),
            audio_rate=sound.rate,
            audio_channels=samples.shape[1],
            sequence=[jpeg for _, jpeg in images["sequence"]],
            sequence_rate=options.sequence_rate,
            measured=measure(samples, sound.rate, [thumbnail for _, thumbnail in images["thumbnail"]]),
        )


def _images(
    video: av.VideoStream, crop: Crop, clock: "_Clock", start: float, end: float, options: DecodeOptions, log: list
) -> dict[str, list[tuple[float, Any]]]:
    """The images of a clip by kind, each with the time when it appeared; all times are on the file's clock.

    An image that stands, as in a slide show or after the end of the video, has the requested times: each with a sound
    of its own.
    """
    aspect = pixel_aspect(video)
    paint = {
        "moment": Painter(options.frame_size, options.jpeg_quality, aspect, squeeze=options.squeeze).jpeg,
        "sequence": Painter(options.sequence_size, options.jpeg_quality, aspect, squeeze=options.squeeze).jpeg,
        "thumbnail": Thumbnailer(THUMBNAIL_SIDE).gray,
    }
    first, last = moment_span(options.window_s, end - start)
    times = {
        "moment": [first + place * (last - first) for place in options.places],
        "sequence": sequence_times(options, end - start),
        "thumbnail": [place * (end - start) for place in thumbnail_places()],
    }
    requested = sorted((start + time, kind) for kind in times for time in times[kind])
    images: dict[str, list[tuple[float, Any]]] = {kind: [] for kind in paint}
    displayed = _requested(video, clock.packets, [time for time, _ in requested], options, log)
    for (appeared, frame), (time, kind) in zip(displayed, requested, strict=True):
        stands = time >= clock.end or time - appeared > STILL
        images[kind].append((time if stands else appeared, paint[kind](crop.apply(frame))))
    return images


def _requested(
    video: av.VideoStream, packets: list[av.Packet], times: list[float], options: DecodeOptions, log: list
) -> Iterator[tuple[float, av.VideoFrame]]:
    """For each of `times`, ascending, the frame displayed then, with the time at which it appeared.

    Raises _NotAsPlanned where some of the images do not decode as planned.
    """
    planned = None if options.all_images else plan(video, packets, times)
    if planned is None:
        yield from _displayed(_frames(video, packets, packets[0]), times)
        return
    messages = len(log)
    try:
        frames = _displayed(_frames(video, planned.decoded_by(video.codec_context), packets[0]), times)
        for expected, (appeared, frame) in zip(planned.appears, frames, strict=True):
            if appeared != expected or len(log) > messages:
                raise _NotAsPlanned
            yield appeared, frame
    except (Refusal, av.error.FFmpegError, ValueError) as error:
        raise _NotAsPlanned from error


def sequence_times(options: DecodeOptions, duration: float) -> list[float]:
    """The times of the frames of a clip's sequence, in seconds from its beginning."""
    return [number / options.sequence_rate for number in range(int(duration * options.sequence_rate))]


def moment_span(window_s: float, duration: float) -> tuple[float, float]:
    """The earliest and the latest time of a moment: its window lies inside the clip, unless the clip is shorter."""
    return (window_s / 2, duration - window_s / 2) if duration >= window_s else (0.0, duration)


@contextlib.contextmanager
def faults_as_refusals() -> Iterator[list]:
    """Turn the exceptions of PyAV into refusals; the list collects its messages (level, component, text)."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # equal messages about two clips concern both
    with av.logging.Capture() as log:
        try:
            yield log
        except (Refusal, MemoryError, _NotAsPlanned):
            raise
        except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
            raise Refusal("unsupported", _message(error, log)) from error
        except Exception as error:  # the file is untrusted: any exception is its fault
            too_large = next((text.strip() for _, _, text in log if TOO_LARGE in text), None)
            if too_large:
                raise Refusal("too-large", too_large.partition(",")[0]) from error
            raise Refusal("unreadable", _message(error, log)) from error
        finally:
            av.logging.set_level(level)


def _message(error: Exception, log: list) -> str:
    message = (error.strerror if isinstance(error, av.error.FFmpegError) else str(error)) or type(error).__name__
    return f"{message} ({log[-1][2].strip()})" if log else message


def open_container(file: BinaryIO, max_pixels: int, log: list) -> InputContainer:
    """Open without any protocol, and only formats that refer to nothing outside themselves."""
    settings = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none", "max_pixels": str(max_pixels)}
    try:
        return av.open(file, "r", options=settings, metadata_errors="replace", buffer_size=READ_SIZE)
    except (av.error.ArgumentError, av.error.InvalidDataError) as error:
        kinds = (name or "hls" for _, name, text in log if "not on whitelist" in text or "Not detecting m3u8" in text)
        kind = next(kinds, None)
        if kind is None or kind in GUESSED:
            raise
        raise Refusal("unsupported", f"a file of the kind {kind}, not video and sound in one") from error


def _streams(container: InputContainer, options: DecodeOptions) -> tuple[av.VideoStream, av.AudioStream]:
    """The streams of video and sound that a player would choose, with their decoders set up."""
    check_streams(container)
    video, audio = best_video(container), best_audio(container)
    if video is None:
        raise Refusal("no-video", f"{container.format.name} with {len(container.streams)} streams, none of them video")
    if audio is None:
        raise Refusal("no-sound", f"{container.format.name} with {len(container.streams)} streams, none of them sound")
    for stream in (video, audio):
        set_up_decoder(stream, options.max_pixels)
    check_image(video, options.max_pixels)
    return video, audio


def check_streams(container: InputContainer) -> None:
    """Raise Refusal for a file without streams."""
    if not container.streams:
        raise Refusal("unreadable", f"{container.format.name} without any stream")


def best_video(container: InputContainer) -> av.VideoStream | None:
    """The video that a player would choose; the cover of a recording is none."""
    images = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return next((stream for stream in images if stream == best), images[0] if images else None)


def best_audio(container: InputContainer) -> av.AudioStream | None:
    """The sound that a player would choose."""
    sounds = container.streams.audio
    best = container.streams.best("audio")
    return next((stream for stream in sounds if stream == best), sounds[0] if sounds else None)


def set_up_decoder(stream: av.VideoStream | av.AudioStream, max_pixels: int) -> None:
    """One thread, and errors instead of guesses. Raises Refusal for a stream without a decoder."""
    if stream.codec_context is None:
        raise Refusal("unsupported", f"no decoder for the {stream.type}")
    stream.codec_context.thread_count = 1  # the workers already use all processors
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(max_pixels)}


def check_image(video: av.VideoStream, max_pixels: int) -> None:
    """Raise Refusal for a video whose header states images of more than `max_pixels`."""
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > max_pixels:
        raise Refusal("too-large", f"an image of {width} x {height}, more than {max_pixels / 1e6:g} megapixels")


def _packets(container: InputContainer, video: Stream, audio: Stream) -> dict[int, list[av.Packet]]:
    """All packets of the two streams, by stream index.

    Raises Refusal where one is damaged, or where they end before the length in the header.
    """
    joined = container.format.name in JOINED
    packets: dict[int, list[av.Packet]] = {video.index: [], audio.index: []}
    seam = 0  # of how many further video packets one must be a key frame, after one that is marked as damaged
    ends = dict.fromkeys((stream.index for stream in container.streams), 0)  # in ticks of each stream's clock
    for packet in container.demux():
        if packet.size and packet.stream_index in ends:
            if packet.stream_index in packets:
                is_video = packet.stream_index == video.index
                if is_video and seam:
                    seam = 0 if packet.is_keyframe else seam - 1
                    if not seam and not packet.is_keyframe:
                        raise damaged(len(packets[video.index]))
                if packet.is_corrupt:
                    if not (is_video and joined):
                        raise damaged(len(packets[video.index]))
                    seam = SEAM
                packets[packet.stream_index].append(packet)
            ends[packet.stream_index] = max(ends[packet.stream_index], stamp_of(packet) + (packet.duration or 0))
    if seam:
        raise damaged(len(packets[video.index]))
    if joined:
        _put_on_one_clock([(packets[stream.index], tick_of(stream)) for stream in (video, audio)])
    end = max(seconds_of(ends[stream.index], tick_of(stream)) for stream in container.streams)
    # In AVI a tick of the clock is a frame.
    frames = max(len(packets[video.index]), ends[video.index])
    check_complete(container, video, frames, end - (container.start_time or 0) / av.time_base)
    return packets


def damaged(frames: int) -> Refusal:
    """The refusal of a file whose packets are marked as damaged."""
    return Refusal("unreadable", f"damaged or cut off after {frames} frames")


def _put_on_one_clock(streams: list[tuple[list[av.Packet], Fraction]]) -> None:
    """Shift the packets of the parts of a joined file, so that each part begins where the part before it ends.

    Args:
        streams: the packets and the tick of the video and of the sound.

    Raises:
        Refusal: the video and the sound do not have the same number of parts, so that nothing puts them in step.
    """
    parts = [_parts(packets, tick) for packets, tick in streams]
    if len({len(of_stream) for of_stream in parts}) > 1:
        counts = " and ".join(str(len(of_stream) - 1) for of_stream in parts)
        raise Refusal("unreadable", f"the clocks of video and sound start again {counts} times, expected equally often")
    end = 0.0
    for number, both in enumerate(zip(*parts, strict=True)):
        part = [(packet, tick) for packets, (_, tick) in zip(both, streams, strict=True) for packet in packets]
        start = min((seconds_of(stamp_of(packet), tick) for packet, tick in part), default=end)
        for packet, tick in part if number else ():
            shift = round((end - start) / tick)
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        end = max((seconds_of(stamp_of(packet) + (packet.duration or 0), tick) for packet, tick in part), default=end)


def _parts(packets: list[av.Packet], tick: Fraction) -> list[list[av.Packet]]:
    """The packets of one stream, cut where its clock starts again."""
    parts: list[list[av.Packet]] = [[]]
    last = None
    for packet in packets:
        if packet.dts is not None:
            if last is not None and seconds_of(last - packet.dts, tick) > CLOCK_RESET:
                parts.append([])
            last = packet.dts
        parts[-1].append(packet)
    return parts


def check_complete(container: InputContainer, video: Stream, frames: int, end: float) -> None:
    """Raise Refusal where a file ends earlier, at `end` seconds or after that many frames, than its header states."""
    if container.duration and container.format.name in STATES_LENGTH:
        stated = container.duration / av.time_base
        if end < stated - max(LENGTH_SLACK, LENGTH_SLACK_SHARE * stated):
            raise Refusal("unreadable", f"cut off: ends at {end:.2f} s, its header says {stated:.2f} s")
    expected = min(video.frames * (1 - LENGTH_SLACK_SHARE), video.frames - 1)  # FFmpeg's AVI states one too many
    if container.format.name == STATES_IMAGES and frames < expected:
        raise Refusal("unreadable", f"cut off: {frames} frames, its header says {video.frames}")


def stamp_of(packet: av.Packet) -> int:
    """The presentation time of a packet, or its decoding time, in ticks of its stream's clock."""
    return (packet.dts if packet.pts is None else packet.pts) or 0


def seconds_of(ticks: int, time_base: Fraction) -> float:
    """Ticks of a clock in seconds."""
    return ticks * time_base.numerator / time_base.denominator  # several times faster than with Fraction


def tick_of(stream: Stream) -> Fraction:
    """Seconds of a tick of a stream's clock. Raises Refusal for a stream without one."""
    if stream.time_base is None:
        raise Refusal("unreadable", f"the {stream.type} has no clock")
    return stream.time_base


def _soundtrack(audio: av.AudioStream, packets: list[av.Packet], options: DecodeOptions) -> Soundtrack:
    try:
        frames = decode_packets(audio.codec_context.decode, packets, forgive_start=True)
        sound = assemble(frames, tick_of(audio), options.max_duration_s)
    except OverflowError as error:
        raise Refusal("too-large", str(error)) from error
    if sound is None:
        raise Refusal("unreadable" if packets else "no-sound", f"{len(packets)} packets of sound, none can be decoded")
    check_rate(sound.rate)
    return sound


def check_rate(rate: int) -> None:
    """Raise Refusal for a sample rate that no sound for us has."""
    if rate not in SOUND_RATES:
        expected = f"expected {SOUND_RATES[0]} to {SOUND_RATES[-1]}"
        raise Refusal("unsupported", f"sound of {rate} samples a second, {expected}")


def _frames(
    video: av.VideoStream, packets: Iterable[av.Packet], first: av.Packet
) -> Iterator[tuple[float, av.VideoFrame]]:
    """All frames with the times at which they appear, on the file's clock; `first` is the first packet of all."""
    time_base = tick_of(video)
    appears = seconds_of(stamp_of(first), time_base)
    for frame in decode_packets(video.codec_context.decode, packets):
        if frame.is_corrupt:
            raise Refusal("unreadable", f"a damaged frame at {appears:.2f} s")
        appears = appears if frame.pts is None else seconds_of(frame.pts, time_base)
        yield appears, frame


def decode_packets(
    decode: Callable[[av.Packet | None], list[Frame]], packets: Iterable[av.Packet], forgive_start: bool = False
) -> Iterator[Frame]:
    """All frames that `decode` returns; with `forgive_start`, packets that fail before the first frame are skipped."""
    begun = False
    for packet in itertools.chain(packets, [None]):
        try:
            frames = decode(packet)
        except av.error.InvalidDataError:
            if begun or not forgive_start:
                raise
            continue
        begun = begun or bool(frames)
        yield from frames


class _Clock:
    """The display times of a video, from its packets: `packets` to decode, `start` and `end` in seconds."""

    def __init__(self, video: av.VideoStream, packets: list[av.Packet]) -> None:
        self.packets = _from_first_key(packets)
        stamps = sorted((stamp_of(packet), packet.duration or 0) for packet in self.packets if not packet.is_discard)
        if not stamps:
            raise Refusal("no-video", "a video stream without frames")
        (first, _), (last, lasting) = stamps[0], stamps[-1]
        gaps = [later - earlier for (earlier, _), (later, _) in zip(stamps, stamps[1:], strict=False)]
        self.start = seconds_of(first, tick_of(video))
        self.end = seconds_of(last + (lasting or (round(median(gaps)) if gaps else 0)), tick_of(video))

    def end_with(self, sound: Soundtrack) -> float:
        """The end of a clip with this sound, in seconds."""
        return sound.end if sound.end > self.end + STILL else min(sound.end, self.end)


def _from_first_key(packets: list[av.Packet]) -> list[av.Packet]:
    """Leave out frames before the first key frame's time: a cut has removed frames that they refer to."""
    first = next((index for index, packet in enumerate(packets) if packet.is_keyframe), 0)
    kept = packets[first:]
    return [p for p in kept if p.pts is None or kept[0].pts is None or p.pts >= kept[0].pts]


def _check_duration(duration: float, options: DecodeOptions) -> None:
    if duration < options.min_duration_s:
        actual = f"{max(duration, 0):.2f} s of video and sound"
        raise Refusal("too-short", f"{actual}, expected {options.min_duration_s:g} s or more")
    if duration > options.max_duration_s:
        raise Refusal("too-large", f"{duration:.0f} s, more than {options.max_duration_s:g} s")


def crop_of(file: BinaryIO, container: InputContainer, video: av.VideoStream) -> Crop:
    """The part of the stored images that the container leaves out."""
    if container.format.name not in (MOV, MATROSKA):
        return Crop()
    place = [stream.index for stream in container.streams.video].index(video.index)
    return container_crop(file, container.format.name, place, video.codec_context.width, video.codec_context.height)


def pixel_aspect(video: av.VideoStream) -> float:
    """Width to height of a stored pixel."""
    aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio
    return float(aspect) if aspect and aspect > 0 else 1.0


def _displayed(
    frames: Iterable[tuple[float, av.VideoFrame]], times: list[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """For each of `times`, ascending, the frame displayed then, with the time at which it appeared."""
    waiting, current = list(times), None
    for frame in frames:
        while waiting and current and frame[0] > waiting[0]:
            waiting.pop(0)
            yield current
        current = frame
    if current is None:
        raise Refusal("unreadable", "no frame can be decoded")
    yield from (current for _ in waiting)
