"""One clip, decoded in one pass: the frames asked for and all of the sound, on one clock.

A clip is the time for which its file has both picture and sound. A file is read whole: packets first, which gives the
times of all frames, then the sound, then the pictures, of which only those asked for are converted: moments, those of a
sequence, and thumbnails by which the clip is judged.

What counts as unreadable: a file that no demuxer recognises, a packet that the demuxer or decoder marks as damaged or
fails on, and a file that ends before the length its header promises. What comes before the first key frame, or before
the first sound that decodes, belongs to a cut, not to damage. Damage that a format has no means to tell is not seen.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Any, BinaryIO, TypeVar

import av
from av.container import InputContainer
from av.stream import Disposition, Stream

from earshot.corpus.ledger import Refusal
from earshot.media.image import Painter, Thumbnailer
from earshot.media.quality import THUMBNAIL_SIDE, Measured, measure, thumbnail_places
from earshot.media.soundtrack import Soundtrack, assemble, encode_flac

# Containers that hold their pictures and sound themselves. Whatever opens other files or addresses (hls, dash, concat,
# image2, sdp) is left out; those for sound or pictures alone are here so that they are refused for the right reason.
CONTAINERS = (
    "mov,matroska,avi,mpeg,mpegts,flv,live_flv,kux,asf,asf_o,ogg,mxf,nut,rm,ivr,wtv,dv,gxf,lxf,nsv,nuv,ty,vivo,pva,"
    "bink,smk,roq,mods,moflex,thp,4xm,film_cpk,gif,apng,ivf,wav,w64,aiff,au,caf,mp3,aac,flac,ac3"
)
GUESSED = ("h261", "h263", "lrc", "tty")  # formats without a signature, for which random bytes pass
# Formats whose headers state the length of the file or the number of its pictures, and how far from it a sound one may
# end. (The count of an mp4 says nothing: an edit list leaves pictures out.)
STATES_IMAGES = "avi"
STATES_LENGTH = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "asf", "nut", "mxf")
LENGTH_SLACK, LENGTH_SLACK_SHARE = 0.5, 0.05  # s, share of the length
FLAC_RATES = range(1, 655_351)  # Hz, what the format can hold
READ_SIZE = 1 << 18  # bytes read at once

Frame = TypeVar("Frame", av.VideoFrame, av.AudioFrame)


@dataclass(frozen=True)
class DecodeOptions:
    """What to take from a clip.

    `places` in [0, 1) say where the moments are between the earliest and the latest possible; `window` is the sound
    around a moment in seconds, `shortest` and `longest` bound the clip in seconds, `pixels` its picture. A sequence
    has `sequence_rate` frames a second from beginning to end, 0 for none, of short side `sequence_size`.
    """

    places: tuple[float, ...]
    frame_size: int
    jpeg_quality: int
    window_s: float
    min_duration_s: float
    longest: float
    pixels: int
    sequence_rate: float = 0.0
    sequence_size: int = 0


@dataclass(frozen=True)
class Decoded:
    """What came out of a clip; the fields are those of `earshot.scenes.writing.Scene`."""

    duration: float
    frames: list[bytes]
    times: list[float]
    sound: bytes
    audio_rate: int
    audio_channels: int
    sequence: list[bytes]
    sequence_rate: float
    measured: Measured


def decode_clip(file: BinaryIO, wanted: DecodeOptions) -> Decoded:
    """Decode a clip from a file open for reading and seeking.

    Raises Refusal, with the decoder's own words where it has any.
    """
    with _faults_as_refusals() as log, _open(file, wanted, log) as container:
        video, audio = _streams(container, wanted)
        packets = _packets(container, video, audio)
        sound = _soundtrack(audio, packets.pop(audio.index), wanted)
        clock = _Clock(video, packets[video.index])
        start, end = max(sound.start, clock.start), min(sound.end, clock.end)
        _check_duration(end - start, wanted)
        samples = sound.between(start, end)
        seen = _images(video, clock.packets, start, end, wanted)
        first, last = moment_span(wanted.window_s, end - start)
        return Decoded(
            duration=end - start,
            frames=[jpeg for _, jpeg in seen["moment"]],
            # A frame that appeared before the moments begin was still to be seen.
            times=[min(max(appeared - start, first), last) for appeared, _ in seen["moment"]],
            sound=encode_flac(samples, sound.rate),
            audio_rate=sound.rate,
            audio_channels=samples.shape[1],
            sequence=[jpeg for _, jpeg in seen["sequence"]],
            sequence_rate=wanted.sequence_rate,
            measured=measure(samples, sound.rate, [thumbnail for _, thumbnail in seen["thumbnail"]]),
        )


def _images(
    video: av.VideoStream, packets: list[av.Packet], start: float, end: float, wanted: DecodeOptions
) -> dict[str, list[tuple[float, Any]]]:
    """By kind the pictures of a clip from `start` to `end` on the file's clock, each with when it appeared."""
    aspect = _pixel_aspect(video)
    paint = {
        "moment": Painter(wanted.frame_size, wanted.jpeg_quality, aspect).jpeg,
        "sequence": Painter(wanted.sequence_size, wanted.jpeg_quality, aspect).jpeg,
        "thumbnail": Thumbnailer(THUMBNAIL_SIDE).gray,
    }
    first, last = moment_span(wanted.window_s, end - start)
    times = {
        "moment": [first + place * (last - first) for place in wanted.places],
        "sequence": sequence_times(wanted, end - start),
        "thumbnail": [place * (end - start) for place in thumbnail_places()],
    }
    asked = sorted((start + time, kind) for kind in times for time in times[kind])
    images: dict[str, list[tuple[float, Any]]] = {kind: [] for kind in paint}
    shown = _seen(_frames(video, packets), [time for time, _ in asked])
    for (appeared, frame), (_, kind) in zip(shown, asked, strict=True):
        images[kind].append((appeared, paint[kind](frame)))
    return images


def sequence_times(wanted: DecodeOptions, duration: float) -> list[float]:
    """When the frames of a clip's sequence are seen, in seconds from its beginning."""
    return [number / wanted.sequence_rate for number in range(int(duration * wanted.sequence_rate))]


def moment_span(window: float, duration: float) -> tuple[float, float]:
    """The earliest and the latest time of a moment: with its whole window inside the clip, if the clip is that long."""
    return (window / 2, duration - window / 2) if duration >= window else (0.0, duration)


@contextlib.contextmanager
def _faults_as_refusals() -> Iterator[list]:
    """Turn what the library raises into refusals; the list fills with its messages (level, place, text)."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # the same words about two clips concern both
    with av.logging.Capture() as log:
        try:
            yield log
        except (Refusal, MemoryError):
            raise
        except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
            raise Refusal("unsupported", _words(error, log)) from error
        except Exception as error:  # a stranger's file: whatever the library makes of it is the file's fault
            raise Refusal("unreadable", _words(error, log)) from error
        finally:
            av.logging.set_level(level)


def _words(error: Exception, log: list) -> str:
    said = (error.strerror if isinstance(error, av.error.FFmpegError) else str(error)) or type(error).__name__
    return f"{said} ({log[-1][2].strip()})" if log else said


def _open(file: BinaryIO, wanted: DecodeOptions, log: list) -> InputContainer:
    """Open without any protocol, and only formats that refer to nothing outside themselves."""
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none", "max_pixels": str(wanted.pixels)}
    try:
        return av.open(file, "r", options=options, metadata_errors="replace", buffer_size=READ_SIZE)
    except (av.error.ArgumentError, av.error.InvalidDataError) as error:
        told = (name or "hls" for _, name, text in log if "not on whitelist" in text or "Not detecting m3u8" in text)
        kind = next(told, None)
        if kind is None or kind in GUESSED:
            raise
        raise Refusal("unsupported", f"a file of the kind {kind}, not pictures and sound in one") from error


def _streams(container: InputContainer, wanted: DecodeOptions) -> tuple[av.VideoStream, av.AudioStream]:
    """The picture and the sound that a player would choose, with their decoders set up."""
    if not container.streams:
        raise Refusal("unreadable", f"{container.format.name} without any stream")
    images = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not images:
        raise Refusal("no-video", f"{container.format.name} with {len(container.streams)} streams, no moving picture")
    sounds = container.streams.audio
    if not sounds:
        raise Refusal("no-sound", f"{container.format.name} with {len(container.streams)} streams, none of them sound")
    best_video, best_audio = container.streams.best("video"), container.streams.best("audio")
    video = next((stream for stream in images if stream == best_video), images[0])
    audio = next((stream for stream in sounds if stream == best_audio), sounds[0])
    for stream in (video, audio):
        if stream.codec_context is None:
            raise Refusal("unsupported", f"no decoder for the {stream.type}")
        stream.codec_context.thread_count = 1  # workers already fill the processors
        stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(wanted.pixels)}
    _check_image(video, wanted)
    return video, audio


def _check_image(video: av.VideoStream, wanted: DecodeOptions) -> None:
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > wanted.pixels:
        raise Refusal("too-large", f"a picture of {width} x {height}, more than {wanted.pixels / 1e6:g} megapixels")


def _packets(container: InputContainer, video: Stream, audio: Stream) -> dict[int, list[av.Packet]]:
    """All packets of the two streams, by stream index.

    Raises Refusal where one is damaged, or where they end before the length that the header states.
    """
    packets: dict[int, list[av.Packet]] = {video.index: [], audio.index: []}
    ends = dict.fromkeys((stream.index for stream in container.streams), 0)  # in ticks of each stream's clock
    for packet in container.demux():
        if packet.size and packet.stream_index in ends:
            if packet.stream_index in packets:
                if packet.is_corrupt:
                    raise Refusal("unreadable", f"damaged or cut off after {len(packets[video.index])} pictures")
                packets[packet.stream_index].append(packet)
            ends[packet.stream_index] = max(ends[packet.stream_index], _stamp(packet) + (packet.duration or 0))
    end = max(_seconds(ends[stream.index], _tick(stream)) for stream in container.streams)
    _check_complete(container, video, len(packets[video.index]), end - (container.start_time or 0) / av.time_base)
    return packets


def _check_complete(container: InputContainer, video: Stream, images: int, end: float) -> None:
    """Raise Refusal where a file ends, at `end` seconds and after so many pictures, before its header says."""
    if container.duration and container.format.name in STATES_LENGTH:
        stated = container.duration / av.time_base
        if end < stated - max(LENGTH_SLACK, LENGTH_SLACK_SHARE * stated):
            raise Refusal("unreadable", f"cut off: ends at {end:.2f} s, its header says {stated:.2f} s")
    if container.format.name == STATES_IMAGES and images < video.frames * (1 - LENGTH_SLACK_SHARE):
        raise Refusal("unreadable", f"cut off: {images} pictures, its header says {video.frames}")


def _stamp(packet: av.Packet) -> int:
    """When a packet is presented, or decoded where that is not known, in ticks of its stream's clock."""
    return (packet.dts if packet.pts is None else packet.pts) or 0


def _seconds(ticks: int, time_base: Fraction) -> float:
    return ticks * time_base.numerator / time_base.denominator  # several times faster than arithmetic of fractions


def _tick(stream: Stream) -> Fraction:
    if stream.time_base is None:
        raise Refusal("unreadable", f"the {stream.type} has no clock")
    return stream.time_base


def _soundtrack(audio: av.AudioStream, packets: list[av.Packet], wanted: DecodeOptions) -> Soundtrack:
    try:
        sound = assemble(_decode(audio.codec_context.decode, packets, forgive_start=True), _tick(audio), wanted.longest)
    except OverflowError as error:
        raise Refusal("too-large", str(error)) from error
    if sound is None:
        raise Refusal("unreadable" if packets else "no-sound", f"{len(packets)} packets of sound, none can be decoded")
    if sound.rate not in FLAC_RATES:
        raise Refusal("unsupported", f"sound of {sound.rate} samples a second")
    return sound


def _frames(video: av.VideoStream, packets: list[av.Packet]) -> Iterator[tuple[float, av.VideoFrame]]:
    """All frames with the times at which they appear, on the file's clock."""
    time_base = _tick(video)
    appears = _seconds(_stamp(packets[0]), time_base)
    for frame in _decode(video.codec_context.decode, packets):
        if frame.is_corrupt:
            raise Refusal("unreadable", f"a damaged picture at {appears:.2f} s")
        appears = appears if frame.pts is None else _seconds(frame.pts, time_base)
        yield appears, frame


def _decode(
    decode: Callable[[av.Packet | None], list[Frame]], packets: Iterable[av.Packet], forgive_start: bool = False
) -> Iterator[Frame]:
    """All frames that `decode` gives; with `forgive_start`, packets that fail before the first are passed over."""
    begun = False
    for packet in (*packets, None):
        try:
            frames = decode(packet)
        except av.error.InvalidDataError:
            if begun or not forgive_start:
                raise
            continue
        begun = begun or bool(frames)
        yield from frames


class _Clock:
    """When a video's frames are shown, from its packets: `packets` to decode, `start` and `end` in seconds."""

    def __init__(self, video: av.VideoStream, packets: list[av.Packet]) -> None:
        self.packets = _from_first_key(packets)
        shown = sorted((_stamp(packet), packet.duration or 0) for packet in self.packets if not packet.is_discard)
        if not shown:
            raise Refusal("no-video", "a video stream without pictures")
        (first, _), (last, lasting) = shown[0], shown[-1]
        gaps = [later - earlier for (earlier, _), (later, _) in zip(shown, shown[1:], strict=False)]
        self.start = _seconds(first, _tick(video))
        self.end = _seconds(last + (lasting or (round(median(gaps)) if gaps else 0)), _tick(video))


def _from_first_key(packets: list[av.Packet]) -> list[av.Packet]:
    """Leave out what a cut left of an earlier group of pictures: frames that refer to frames that are not there."""
    first = next((index for index, packet in enumerate(packets) if packet.is_keyframe), 0)
    kept = packets[first:]
    return [p for p in kept if p.pts is None or kept[0].pts is None or p.pts >= kept[0].pts]


def _check_duration(duration: float, wanted: DecodeOptions) -> None:
    if duration < wanted.min_duration_s:
        raise Refusal("too-short", f"{max(duration, 0):.2f} s of picture and sound, wanted {wanted.min_duration_s:g} s")
    if duration > wanted.longest:
        raise Refusal("too-large", f"{duration:.0f} s, more than {wanted.longest:g} s")


def _pixel_aspect(video: av.VideoStream) -> float:
    aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio
    return float(aspect) if aspect and aspect > 0 else 1.0


def _seen(frames: Iterable[tuple[float, av.VideoFrame]], times: list[float]) -> Iterator[tuple[float, av.VideoFrame]]:
    """For each of the rising `times` the frame that a viewer sees then, with the time at which it appeared."""
    waiting, shown = list(times), None
    for frame in frames:
        while waiting and shown and frame[0] > waiting[0]:
            waiting.pop(0)
            yield shown
        shown = frame
    if shown is None:
        raise Refusal("unreadable", "no picture can be decoded")
    yield from (shown for _ in waiting)
