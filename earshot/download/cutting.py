"""Cut a clip from its source, and measure the result.

ffmpeg cuts in a separate process and writes H.264 + AAC; PyAV measures the result by its packets. A source that already
is the requested clip in that form is copied.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import ffmpeg
import imageio_ffmpeg

from earshot.core.encoding import X264
from earshot.core.files import write_atomically
from earshot.corpus.ledger import Refusal

# Containers that hold their own video and audio, unlike playlists, which point to other files. Containers of only audio
# or only images are included so that the refusal has the right reason.
CONTAINERS = "mov,matroska,avi,flv,mpegts,mpeg,ogg,asf,mxf,nut,rm,dv,gxf,wtv,gif,wav,mp3,aac,flac,aiff,au"
MAX_PIXELS = 4096 * 2304  # of a source; with larger images ffmpeg would exceed its memory
READING = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}

COPY_TOLERANCE = 0.1  # s; a file that differs by at most this from the requested length is copied
CUT_TOLERANCE = 0.25  # s; a cut may differ by this: one image at 5 a second and one frame of AAC
OFFSET_TOLERANCE = 0.25  # s; video and audio may start at most this far apart
MIN_SHARE = 0.5  # of the requested seconds must exist if the source ends early
MIN_SECONDS = 0.5  # s; a shorter clip has too little sound for a descriptor


class Span(NamedTuple):
    """Start and end (s)."""

    start: float
    end: float


@dataclass(frozen=True)
class Track:
    """One stream of a media file: its index among all streams, and its codec."""

    index: int
    codec: str


@dataclass(frozen=True)
class MediaHeader:
    """The header of a media file: first video track, first audio track, length (s) if known.

    `start` is the time (s) on the file's own clock at which its earlier track starts.
    """

    path: Path
    container: str
    video: Track | None
    audio: Track | None
    seconds: float | None
    start: float


def read_header(path: Path) -> MediaHeader:
    """Read the header of a media file.

    Raises Refusal as unreadable, or as too-large by its pixels.
    """
    with _open(path) as media:
        images = [s for s in media.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        for stream in images[:1]:
            _check_pixels(stream)
        seconds = media.duration / av.time_base if media.duration else None
        start = (media.start_time or 0) / av.time_base
        return MediaHeader(path, media.format.name, _track(images), _track(media.streams.audio), seconds, start)


def measure(path: Path) -> tuple[Span | None, Span | None]:
    """When video and audio of a media file start and end (s), by their packets.

    Raises Refusal as unreadable.
    """
    with _open(path) as media:
        tracks = [*media.streams.video[:1], *media.streams.audio[:1]]
        spans: dict[str, tuple[int, int]] = {}  # in ticks of the track's own clock
        for packet in media.demux(tracks) if tracks else ():
            if packet.pts is not None and packet.size:
                first, last = packet.pts, packet.pts + (packet.duration or 0)
                start, end = spans.get(packet.stream.type, (first, last))
                spans[packet.stream.type] = min(start, first), max(end, last)
        clock: dict[str, Fraction] = {track.type: track.time_base or Fraction(0) for track in tracks}
    # Packets before 0 (the priming of AAC) are not played.
    seconds = {kind: Span(*(float(max(ticks, 0) * clock[kind]) for ticks in span)) for kind, span in spans.items()}
    return seconds.get("video"), seconds.get("audio")


def cut(
    sources: Sequence[Path],
    start: float,
    end: float,
    target: Path,
    *,
    origin: float | None = None,
    length: float | None = None,
) -> float:
    """Write seconds `start` to `end` as mp4 with H.264 and AAC to `target`; return its length (s).

    Video and audio may come from two files that share one clock. If the source ends early, the clip is shorter, but at
    least half of the requested length. For sources that hold only a section of the whole, `origin` is the time on their
    clock from which `start` and `end` count, and `length` the length of the whole (s), if known.

    Raises Refusal: unreadable, no-video, no-sound, too-short, or bad-cut if the result has another length, or if video
    and audio do not start together.
    """
    headers = [read_header(path) for path in sources]
    video = next((source for source in headers if source.video), None)
    audio = next((source for source in headers if source.audio), None)
    if video is None or audio is None:
        raise Refusal(*(("no-video", "no video track") if video is None else ("no-sound", "no audio track")))
    whole, origin = origin is None, min(video.start, audio.start) if origin is None else origin
    length = max(video.seconds or 0, audio.seconds or 0) if whole else length or 0
    expected = _available_seconds(start, end, length)
    with write_atomically(target) as temporary_path:
        if whole and video is audio and _is_the_clip(video, start, expected):
            shutil.copyfile(video.path, temporary_path)
            return _check_clip(temporary_path, expected, 2 * COPY_TOLERANCE, "unreadable")
        try:
            _run_ffmpeg(video, audio, origin + start, {"t": end - start}, temporary_path)
            return _check_clip(temporary_path, expected, CUT_TOLERANCE, "bad-cut", latest=CUT_TOLERANCE)
        except Refusal as refusal:
            if refusal.reason == "unreadable":
                raise
        # A source without an index of key frames does not allow seeking: read it from its start.
        _run_ffmpeg(video, audio, origin, {"ss": start, "t": end - start}, temporary_path)
        return _check_clip(temporary_path, expected, CUT_TOLERANCE, "bad-cut")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[av.container.InputContainer]:
    try:
        with av.open(str(path), options=READING, metadata_errors="replace") as media:
            yield media
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise Refusal("unreadable", getattr(error, "strerror", None) or type(error).__name__) from None


def _check_pixels(stream: Any) -> None:
    width, height = (stream.codec_context.width, stream.codec_context.height) if stream.codec_context else (0, 0)
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS / 1e6:.1f} megapixels"
        raise Refusal("too-large", f"images of {width} x {height}, expected at most {limit}")


def _track(streams: Sequence[av.stream.Stream]) -> Track | None:
    if not streams:
        return None
    stream = streams[0]
    return Track(stream.index, stream.codec_context.name if stream.codec_context else "unknown")


def _available_seconds(start: float, end: float, length: float) -> float:
    """How many of the requested seconds a source of this length (0: unknown) has."""
    available = min(end, length) - start if length else end - start
    if available < MIN_SHARE * (end - start):
        raise Refusal("bad-cut", f"the source lasts {length:.2f} s, requested {start:g} to {end:g} s")
    if available < MIN_SECONDS:
        raise Refusal("too-short", f"{available:.2f} s, expected at least {MIN_SECONDS:g} s")
    return available


def _is_the_clip(source: MediaHeader, start: float, expected: float) -> bool:
    """Whether the whole file is the requested clip, in the required form."""
    codecs = (track.codec if track else None for track in (source.video, source.audio))
    form = (source.container.split(",")[0], *codecs)
    whole = start == 0 and source.seconds is not None and abs(source.seconds - expected) <= COPY_TOLERANCE
    return whole and form == ("mov", "h264", "aac")


def _seek_options(source: MediaHeader, seek_to: float) -> dict[str, float]:
    """ffmpeg's options to read a source from `seek_to` (s on its clock) on.

    ffmpeg assumes that each input starts at 0, so a source that starts after `seek_to` gets an offset.
    """
    seek_to -= source.start
    return {"ss": seek_to} if seek_to > 0 else {"itsoffset": -seek_to} if seek_to < 0 else {}


def _run_ffmpeg(video: MediaHeader, audio: MediaHeader, seek_to: float, writing: dict, target: Path) -> None:
    """Transcode from `seek_to` (s on the clock of both sources) on; `writing` holds ffmpeg's output options."""
    if video.video is None or audio.audio is None:
        raise LookupError(f"{video.path} or {audio.path} has no track to cut")
    # One thread, and no encoder name in the file: the same clip has the same bytes on every machine.
    reading = READING | {"threads": 1, "max_pixels": MAX_PIXELS}
    inputs = {
        source: ffmpeg.input(str(source.path), **reading, **_seek_options(source, seek_to))
        for source in dict.fromkeys([video, audio])
    }
    # H.264 in yuv420p requires even sides.
    images = inputs[video][str(video.video.index)].filter("scale", "trunc(iw/2)*2", "trunc(ih/2)*2")
    samples = inputs[audio][str(audio.audio.index)]
    form = {"vcodec": "libx264", **X264, "crf": 20, "pix_fmt": "yuv420p", "acodec": "aac"}
    plain = {"map_metadata": -1, "fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact"}
    writing = {"format": "mp4", "movflags": "+faststart", "threads": 1} | form | plain | writing
    command = (
        ffmpeg.output(images, samples, str(target), **writing)
        .global_args("-nostdin", "-hide_banner", "-loglevel", "error", "-xerror")
        .overwrite_output()
        .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    )
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        message = done.stderr.decode("utf-8", "replace").strip()
        if os.strerror(errno.ENOSPC) in message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        if "max_pixels" in message:
            raise Refusal("too-large", f"an image of more than {MAX_PIXELS / 1e6:.1f} megapixels")
        # No memory for a thread's stack is EAGAIN.
        no_memory = any(os.strerror(number) in message for number in (errno.ENOMEM, errno.EAGAIN))
        if no_memory or "malloc" in message or done.returncode == -signal.SIGABRT:
            raise Refusal("too-large", "ffmpeg needs more memory than a process of the download may have")
        first = message.partition("\n")[0].replace(str(video.path), "the source")
        raise Refusal("unreadable", f"ffmpeg ended with {done.returncode}: {first}")


def _check_clip(clip: Path, expected: float, tolerance: float, otherwise: str, latest: float | None = None) -> float:
    """The measured length of a clip (s); raises Refusal with reason `otherwise` if it differs from the expected length.

    With `latest`, video and audio must both start by then (s).
    """
    video, audio = measure(clip)
    if not video:
        raise Refusal("no-video", "no video in the requested seconds")
    if not audio:
        raise Refusal("no-sound", "no sound in the requested seconds")
    begin, seconds = max(video.start, audio.start), max(video.end, audio.end) - min(video.start, audio.start)
    if abs(seconds - expected) > tolerance or (latest is not None and begin > latest):
        raise Refusal(otherwise, f"found {seconds:.2f} s, expected {expected:.2f} s")
    if abs(video.start - audio.start) > OFFSET_TOLERANCE:
        offset = f"the video starts at {video.start:.2f} s, the sound at {audio.start:.2f} s"
        raise Refusal("bad-cut", f"{offset}, expected at most {OFFSET_TOLERANCE:g} s between them")
    return seconds
