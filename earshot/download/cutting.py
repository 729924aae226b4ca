"""Cutting a clip out of its source, and measuring what came out instead of believing it.

ffmpeg cuts, in a process of its own and to H.264 + AAC; PyAV measures, by the packets that are really there. A source
that is the clip asked for already, and in that form, is copied as it is.
"""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import ffmpeg
import imageio_ffmpeg

from earshot.core.files import write_atomically
from earshot.corpus.ledger import Refusal

# Containers that hold their picture and sound themselves, unlike playlists, which point elsewhere; those for sound or
# pictures alone are there to be refused for the right reason.
CONTAINERS = "mov,matroska,avi,flv,mpegts,mpeg,ogg,asf,mxf,nut,rm,dv,gxf,wtv,gif,wav,mp3,aac,flac,aiff,au"
READING = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}

COPY_TOLERANCE = 0.1  # seconds by which a whole file may differ from what was asked and still be copied as it is
CUT_TOLERANCE = 0.25  # seconds by which a cut may differ: one picture at 5 a second and one frame of AAC
OFFSET_TOLERANCE = 0.25  # seconds that one of picture and sound may begin before the other
LEAST_SHARE = 0.5  # of the seconds asked for must exist where the source ends before the clip does
SHORTEST = 0.5  # seconds; below it there is no sound to describe


class Span(NamedTuple):
    """From when to when, in seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class Track:
    """One stream of a media file: its place among all streams, and its codec."""

    index: int
    codec: str


@dataclass(frozen=True)
class Source:
    """What a media file says of itself: first picture track, first sound track, length in seconds where known.

    `begins` is the time, in seconds of its own clock, at which the earlier of its tracks begins.
    """

    path: Path
    container: str
    image: Track | None
    sound: Track | None
    seconds: float | None
    begins: float


def look(path: Path) -> Source:
    """Read the header of a media file.

    Raises Refusal as unreadable.
    """
    with _opened(path) as media:
        images = [s for s in media.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        seconds = media.duration / av.time_base if media.duration else None
        begins = (media.start_time or 0) / av.time_base
        return Source(path, media.format.name, _track(images), _track(media.streams.audio), seconds, begins)


def measure(path: Path) -> tuple[Span | None, Span | None]:
    """When picture and sound of a media file begin and end, by their packets.

    Raises Refusal as unreadable.
    """
    with _opened(path) as media:
        tracks = [*media.streams.video[:1], *media.streams.audio[:1]]
        spans: dict[str, tuple[int, int]] = {}  # in ticks of the track's own clock
        for packet in media.demux(tracks) if tracks else ():
            if packet.pts is not None and packet.size:
                first, last = packet.pts, packet.pts + (packet.duration or 0)
                start, end = spans.get(packet.stream.type, (first, last))
                spans[packet.stream.type] = min(start, first), max(end, last)
        clock: dict[str, Fraction] = {track.type: track.time_base or Fraction(0) for track in tracks}
    # What lies before 0 (the lead-in of AAC) is not played.
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
    """Write seconds `start` to `end` as mp4 with H.264 and AAC to `target`; return the seconds that it lasts.

    Picture and sound may come from two files, which then share one clock. A source that ends early gives what it has,
    where that is at least half of what was asked for. Of sources that hold only a section of the whole, `origin` tells
    the time on their clock from which `start` and `end` count, and `length` the seconds of the whole where known.

    Raises Refusal: unreadable, no-video, no-sound, too-short, or bad-cut where what came out is not what was asked for:
    of another length, or with picture and sound that do not begin together.
    """
    looks = [look(path) for path in sources]
    image = next((source for source in looks if source.image), None)
    sound = next((source for source in looks if source.sound), None)
    if image is None or sound is None:
        raise Refusal(*(("no-video", "no picture track") if image is None else ("no-sound", "no sound track")))
    whole, origin = origin is None, min(image.begins, sound.begins) if origin is None else origin
    length = max(image.seconds or 0, sound.seconds or 0) if whole else length or 0
    wanted = _seconds_to_be_had(start, end, length)
    with write_atomically(target) as temporary_path:
        if whole and image is sound and _is_the_clip(image, start, wanted):
            shutil.copyfile(image.path, temporary_path)
            return _checked(temporary_path, wanted, 2 * COPY_TOLERANCE, "unreadable")
        try:
            _run_ffmpeg(image, sound, origin + start, {"t": end - start}, temporary_path)
            return _checked(temporary_path, wanted, CUT_TOLERANCE, "bad-cut", latest=CUT_TOLERANCE)
        except Refusal as refusal:
            if refusal.reason == "unreadable":
                raise
        # A source without an index of its key frames cannot be entered anywhere: read all that comes before.
        _run_ffmpeg(image, sound, origin, {"ss": start, "t": end - start}, temporary_path)
        return _checked(temporary_path, wanted, CUT_TOLERANCE, "bad-cut")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    try:
        with av.open(str(path), options=READING, metadata_errors="replace") as media:
            yield media
    except (av.FFmpegError, ValueError) as error:
        raise Refusal("unreadable", getattr(error, "strerror", None) or type(error).__name__) from None


def _track(streams: Sequence[av.stream.Stream]) -> Track | None:
    if not streams:
        return None
    stream = streams[0]
    return Track(stream.index, stream.codec_context.name if stream.codec_context else "unknown")


def _seconds_to_be_had(start: float, end: float, length: float) -> float:
    """The seconds that a source of this length (0: unknown) can give of those asked for."""
    wanted = min(end, length) - start if length else end - start
    if wanted < LEAST_SHARE * (end - start):
        raise Refusal("bad-cut", f"the source lasts {length:.2f} s, asked for {start:g} to {end:g} s")
    if wanted < SHORTEST:
        raise Refusal("too-short", f"{wanted:.2f} s, wanted at least {SHORTEST:g} s")
    return wanted


def _is_the_clip(source: Source, start: float, wanted: float) -> bool:
    """Whether the whole file is what was asked for, in the form that is asked for."""
    codecs = (track.codec if track else None for track in (source.image, source.sound))
    form = (source.container.split(",")[0], *codecs)
    whole = start == 0 and source.seconds is not None and abs(source.seconds - wanted) <= COPY_TOLERANCE
    return whole and form == ("mov", "h264", "aac")


def _entering(source: Source, enter: float) -> dict[str, float]:
    """ffmpeg's options to read a source from `enter` on, in seconds of its clock.

    ffmpeg takes each input to begin at 0, so one that begins after `enter` is put where it belongs.
    """
    enter -= source.begins
    return {"ss": enter} if enter > 0 else {"itsoffset": -enter} if enter < 0 else {}


def _run_ffmpeg(image: Source, sound: Source, enter: float, writing: dict, target: Path) -> None:
    """Transcode from `enter` on, in seconds of the clock of both sources, under ffmpeg's options for `writing`."""
    if image.image is None or sound.sound is None:
        raise LookupError(f"{image.path} or {sound.path} has no track to be cut")
    # One thread, no name of the encoder in the file: the same clip has the same bytes on every machine.
    inputs = {
        source: ffmpeg.input(str(source.path), threads=1, **READING, **_entering(source, enter))
        for source in dict.fromkeys([image, sound])
    }
    # H.264 in yuv420p has even sides.
    images = inputs[image][str(image.image.index)].filter("scale", "trunc(iw/2)*2", "trunc(ih/2)*2")
    sounds = inputs[sound][str(sound.sound.index)]
    form = {"vcodec": "libx264", "preset": "veryfast", "crf": 20, "pix_fmt": "yuv420p", "acodec": "aac"}
    plain = {"map_metadata": -1, "fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact"}
    writing = {"format": "mp4", "movflags": "+faststart", "threads": 1} | form | plain | writing
    command = (
        ffmpeg.output(images, sounds, str(target), **writing)
        .global_args("-nostdin", "-hide_banner", "-loglevel", "error", "-xerror")
        .overwrite_output()
        .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    )
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        if os.strerror(errno.ENOSPC) in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        first = said.partition("\n")[0].replace(str(image.path), "the source")
        raise Refusal("unreadable", f"ffmpeg ended with {done.returncode}: {first}")


def _checked(clip: Path, wanted: float, tolerance: float, otherwise: str, latest: float | None = None) -> float:
    """The measured length of a clip that has picture, sound and the length wanted; refused `otherwise`.

    With `latest`, picture and sound must both have begun by then, in seconds.
    """
    image, sound = measure(clip)
    if not image:
        raise Refusal("no-video", "no picture in the seconds asked for")
    if not sound:
        raise Refusal("no-sound", "no sound in the seconds asked for")
    begin, seconds = max(image.start, sound.start), max(image.end, sound.end) - min(image.start, sound.start)
    if abs(seconds - wanted) > tolerance or (latest is not None and begin > latest):
        raise Refusal(otherwise, f"{seconds:.2f} s are there, wanted {wanted:.2f} s")
    if abs(image.start - sound.start) > OFFSET_TOLERANCE:
        apart = f"the picture begins at {image.start:.2f} s, the sound at {sound.start:.2f} s"
        raise Refusal("bad-cut", f"{apart}, wanted at most {OFFSET_TOLERANCE:g} s between them")
    return seconds
