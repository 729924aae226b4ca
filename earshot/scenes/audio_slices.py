"""Slices of a clip's sound: a stretch of so many samples, at the rate that a network wants."""

import io

import numpy as np
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
    found = found.mean(1, keepdims=True) if channels == 1 else found[:, [0, -1]]
    if own_rate != rate:
        found = soxr.resample(found, own_rate, rate, quality="HQ")
    whole = np.zeros((channels, samples), np.float32)
    whole[:, : len(found)] = found[:samples].T
    return whole[0] if channels == 1 else whole
