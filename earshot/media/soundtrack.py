"""The soundtrack of a clip: decoded frames on one time axis, as 16-bit mono or stereo at their own sample rate."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soundfile

# Time stamps jitter with the container's clock, by some hundredths of a second in old formats. Only a larger difference
# is a gap, which silence fills, or an overlap.
JITTER = 0.1  # s
# Frames converted at once: converting each alone is slow, converting all at once takes much memory.
BLOCK = 64
FULL_SCALE = 32768
MAX_VALUES_PER_SECOND = 2 * 48_000  # of the longest clip, in all channels
FLAC_LEVEL = 0.5  # of libsndfile's range: level 4, as small as the default 5 and a quarter faster
DIRECT = {"flt": np.float32, "fltp": np.float32, "s16": np.int16, "s16p": np.int16}  # formats that need no resampler


@dataclass(frozen=True)
class Soundtrack:
    """Samples int16 `(samples, channels)`; the first is at `start`, in seconds on the file's clock."""

    start: float
    rate: int
    samples: np.ndarray

    @property
    def end(self) -> float:
        """Seconds on the file's clock at which the last sample ends."""
        return self.start + len(self.samples) / self.rate

    def between(self, start: float, end: float) -> np.ndarray:
        """The samples from `start` to `end`, both within the sound and on the file's clock."""
        first = round((start - self.start) * self.rate)
        return self.samples[first : first + round((end - start) * self.rate)]


@dataclass(frozen=True)
class Block:
    """Samples int16 (samples, channels) at the place of its first one; the track begins at `start`, in seconds."""

    start: float
    rate: int
    place: int
    samples: np.ndarray


def blocks(frames: Iterable[av.AudioFrame], time_base: Fraction, max_duration_s: float) -> Iterator[Block]:
    """Place decoded frames at their time stamps; more than two channels are mixed down to stereo.

    The places are those of time stamps where these jump; blocks may then overlap or leave gaps.

    Raises OverflowError if the stamps span more than `max_duration_s`, or if there are more samples than so many
    seconds of 48 kHz stereo have.
    """
    run: list[av.AudioFrame] = []
    rate = channels = cursor = run_start = 0
    start, tick = 0.0, float(time_base)
    for frame in frames:
        stamp = None if frame.pts is None else frame.pts * tick
        if not rate:
            rate, channels, start = frame.sample_rate, min(frame.layout.nb_channels, 2), stamp or 0.0
        place = cursor if stamp is None else max(0, round((stamp - start) * rate))
        jumps = abs(place - cursor) > JITTER * rate
        if run and (jumps or len(run) == BLOCK or not _alike(run[0], frame)):
            yield Block(start, rate, run_start, _samples(run, rate, channels))
            run = []
        cursor = place if jumps else cursor
        if cursor > max_duration_s * rate:
            raise OverflowError(f"the sound lasts more than {max_duration_s:g} s")
        if cursor * channels > max_duration_s * MAX_VALUES_PER_SECOND:
            limit = f"{max_duration_s:g} s of 48 kHz stereo"
            raise OverflowError(f"the sound has {rate} samples a second, and more samples than {limit}")
        run_start = run_start if run else cursor
        run.append(frame)
        cursor += round(frame.samples * rate / frame.sample_rate)
    if run:
        yield Block(start, rate, run_start, _samples(run, rate, channels))


def assemble(frames: Iterable[av.AudioFrame], time_base: Fraction, max_duration_s: float) -> Soundtrack | None:
    """The whole soundtrack of decoded frames, or None without frames. Raises OverflowError as `blocks` does."""
    placed = list(blocks(frames, time_base, max_duration_s))
    if not placed:
        return None
    whole = np.zeros((max(each.place + len(each.samples) for each in placed), placed[0].samples.shape[1]), np.int16)
    for each in placed:
        whole[each.place : each.place + len(each.samples)] = each.samples
    return Soundtrack(placed[0].start, placed[0].rate, whole)


def encode_flac(samples: np.ndarray, rate: int) -> bytes:
    """Lossless FLAC of int16 samples `(samples, channels)`."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16", compression_level=FLAC_LEVEL)
    return file.getvalue()


def _alike(one: av.AudioFrame, other: av.AudioFrame) -> bool:
    return (one.sample_rate, one.format.name, one.layout.name) == (
        other.sample_rate,
        other.format.name,
        other.layout.name,
    )


def _samples(frames: Sequence[av.AudioFrame], rate: int, channels: int) -> np.ndarray:
    """Frames of one format as int16 `(samples, channels)` at `rate`."""
    first = frames[0]
    if first.format.name not in DIRECT or first.sample_rate != rate or first.layout.nb_channels != channels:
        frames = _resampled(frames, rate, channels)
    block = np.empty((sum(frame.samples for frame in frames), channels), np.int16)
    for channel in range(channels):
        samples = _channel(frames, channel, channels)
        block[:, channel] = samples if samples.dtype == np.int16 else _to_int16(samples)
    return block


def _channel(frames: Sequence[av.AudioFrame], channel: int, channels: int) -> np.ndarray:
    """One channel of frames whose sample format is one of `DIRECT`, joined."""
    parts = []
    for frame in frames:
        kind = DIRECT[frame.format.name]
        if frame.format.is_planar:
            parts.append(np.frombuffer(memoryview(frame.planes[channel]), kind, frame.samples))
        else:
            mixed = np.frombuffer(memoryview(frame.planes[0]), kind, frame.samples * channels)
            parts.append(mixed[channel::channels])
    return np.concatenate(parts) if parts else np.empty(0, np.int16)


def _resampled(frames: Sequence[av.AudioFrame], rate: int, channels: int) -> list[av.AudioFrame]:
    resampler = av.AudioResampler("s16", "mono" if channels == 1 else "stereo", rate)
    mixed = []
    for frame in frames:
        frame.pts = None  # positions are known; with stamps the resampler would fill gaps
        mixed += resampler.resample(frame)
    return mixed + resampler.resample(None)


def _to_int16(samples: np.ndarray) -> np.ndarray:
    """Floats with full scale at 1 scaled to 16-bit integers, in place; NaN becomes silence."""
    np.multiply(samples, FULL_SCALE, out=samples)
    if not np.isfinite(samples).all():
        np.nan_to_num(samples, copy=False)
    np.rint(samples, out=samples)
    return np.clip(samples, -FULL_SCALE, FULL_SCALE - 1, out=samples)
