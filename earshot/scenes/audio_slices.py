"""Slices of sound: pieces of a given length, at the sample rate and with the channels that a network requires."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import soundfile
import soxr

from earshot.core.channels import mix_channels
from earshot.core.errors import EarshotError


def sound_slice(flac: bytes | memoryview, start: float, *, samples: int, rate: int, channels: int) -> np.ndarray:
    """The sound from `start` seconds on: float32 (samples,) of the mixed channels, or (2, samples).

    Where two channels are requested, mono sound is copied to both. The slice is silent beyond the end of the sound.

    Args:
        flac: the sound of a clip, from the table of scenes; only the slice is decoded.
        samples, rate: of the slice.
        channels: 1 or 2.

    Raises:
        EarshotError: the bytes are not FLAC.
    """
    try:
        with soundfile.SoundFile(pa.BufferReader(flac)) as file:
            file.seek(min(max(round(start * file.samplerate), 0), file.frames))
            audio = file.read(-(-samples * file.samplerate // rate) + 1, dtype="float32", always_2d=True)
            own_rate = file.samplerate
    except soundfile.LibsndfileError as error:
        raise EarshotError(f"a sound is not FLAC ({error}); run the stage extract again") from None
    return cut_slices(resample(audio, own_rate, rate, channels), [0], samples)[0]


def clip_sound(clip_id: str, flac: bytes | pa.Buffer) -> tuple[np.ndarray, int]:
    """The whole sound of a clip: float32 (samples, channels) in [-1, 1], and its rate in Hz.

    Raises EarshotError if the bytes cannot be decoded.
    """
    try:
        return soundfile.read(pa.BufferReader(flac), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        message = f"the sound of clip {clip_id} cannot be read ({error})"
        raise EarshotError(f"{message}; run the stage extract again") from None


def resample(sound: np.ndarray, own_rate: int, rate: int, channels: int) -> np.ndarray:
    """Resample a sound (samples, channels): its channels mixed, (samples, 1), or the outer two, (samples, 2)."""
    sound = mix_channels(sound)[:, None] if channels == 1 else sound[:, [0, -1]]
    return sound if own_rate == rate else soxr.resample(sound, own_rate, rate, quality="HQ")


def cut_slices(sound: np.ndarray, starts: Sequence[int], samples: int) -> np.ndarray:
    """Slices of a sound (samples, channels), silent beyond its end.

    Returns float32 (slices, samples) of one channel, or (slices, channels, samples).
    """
    channels = sound.shape[1]
    slices = np.zeros((len(starts), channels, samples), np.float32)
    for each, start in zip(slices, starts, strict=True):
        cut = sound[start : start + samples].T
        each[:, : cut.shape[1]] = cut
    return slices[:, 0] if channels == 1 else slices
