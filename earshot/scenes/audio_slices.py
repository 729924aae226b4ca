"""Slices of sounds: a stretch of so many samples, at the rate and of the channels that a network wants."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import soxr

from earshot.core.errors import EarshotError


def sound_slice(flac: bytes, start: float, *, samples: int, rate: int, channels: int) -> np.ndarray:
    """The sound from `start` seconds on: float32 (samples,) of the mean of the channels, or (2, samples).

    Mono is heard from both sides where two channels are asked for; what lies beyond the sound's end is silent.

    Args:
        flac: the sound of a clip, as the table of scenes has it; only the slice is decoded.
        samples, rate: of the slice.
        channels: 1 or 2.

    Raises:
        EarshotError: the bytes are no FLAC.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(flac)) as file:
            file.seek(min(max(round(start * file.samplerate), 0), file.frames))
            found = file.read(-(-samples * file.samplerate // rate) + 1, dtype="float32", always_2d=True)
            own_rate = file.samplerate
    except soundfile.LibsndfileError as error:
        raise EarshotError(f"a sound is no FLAC ({error}); run the stage extract again") from None
    return cut_slices(resample(found, own_rate, rate, channels), [0], samples)[0]


def clip_sound(clip_id: str, flac: bytes | pa.Buffer) -> tuple[np.ndarray, int]:
    """The whole sound of a clip: float32 (samples, channels) in [-1, 1], and its rate in Hz.

    Raises EarshotError where the bytes are no sound.
    """
    try:
        return soundfile.read(pa.BufferReader(flac), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        told = f"the sound of clip {clip_id} cannot be read ({error})"
        raise EarshotError(f"{told}; run the stage extract again") from None


def read_sound(file: Path) -> tuple[np.ndarray, int]:
    """A file of sound: float32 (samples, channels) in [-1, 1], and its rate in Hz.

    Raises EarshotError for a file that cannot be read.
    """
    try:
        return soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise EarshotError(f"{file}: cannot be read as sound ({error}); restore the file") from None


def resample(sound: np.ndarray, own_rate: int, rate: int, channels: int) -> np.ndarray:
    """A sound (samples, channels) at another rate: the mean of its channels, (samples, 1), or its outer two."""
    sound = sound.mean(1, keepdims=True) if channels == 1 else sound[:, [0, -1]]
    return sound if own_rate == rate else soxr.resample(sound, own_rate, rate, quality="HQ")


def cut_slices(sound: np.ndarray, starts: Sequence[int], samples: int) -> np.ndarray:
    """Stretches of a sound (samples, channels), silent beyond its end.

    Float32 (slices, samples) of one channel, or (slices, channels, samples).
    """
    channels = sound.shape[1]
    slices = np.zeros((len(starts), channels, samples), np.float32)
    for each, start in zip(slices, starts, strict=True):
        cut = sound[start : start + samples].T
        each[:, : cut.shape[1]] = cut
    return slices[:, 0] if channels == 1 else slices
