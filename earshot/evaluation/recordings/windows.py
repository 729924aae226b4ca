"""The windows of a recording. Worker processes run these functions, which do without torch and its slow import."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earshot.core.errors import EarshotError
from earshot.media.guarded_files import read_sound_file
from earshot.scenes.audio_slices import cut_slices, resample

if TYPE_CHECKING:
    from earshot.sound.description import Description


def cut_recording(file: Path, windows: int, samples: int, rate: int) -> np.ndarray:
    """Equally spaced windows of the mean of a recording's channels at `rate`: float32 (windows, samples).

    The first begins and the last ends with the recording; a recording shorter than a window is padded with silence.
    Raises EarshotError for a file that cannot be read.
    """
    sound, own_rate = read_recording(file)
    if not np.isfinite(sound).all():
        raise EarshotError(f"{file}: holds NaN or infinity, expected sound in [-1, 1]; restore the file")
    mono = resample(sound, own_rate, rate, channels=1)
    starts = np.round(np.linspace(0, max(len(mono) - samples, 0), windows)).astype(int)
    return cut_slices(mono, starts.tolist(), samples)


def describe_recording(file: Path, windows: int, description: "Description") -> np.ndarray:
    """The descriptors of equally spaced windows of one recording: float32 (windows, dimensions).

    A recording shorter than a window gives the same window several times. Raises EarshotError for a file that cannot be
    read or holds less than 1.5 s.
    """
    from earshot.sound.windows import MIN_DURATION_S, WINDOW_SECONDS, UnfitSound, cut_windows, samples_of

    sound, rate = read_recording(file)
    nonzero = np.flatnonzero(sound.any(axis=1))
    kept = max(int(nonzero[-1]) + 1 if nonzero.size else 0, samples_of(MIN_DURATION_S, rate))
    sound = sound[:kept]
    last = max(len(sound) / rate - WINDOW_SECONDS, 0)
    centers = np.linspace(0, last, windows) + WINDOW_SECONDS / 2
    try:
        cut, places = cut_windows(sound, rate, centers)
        return description.describe(cut, rate, places)[0]
    except UnfitSound as error:
        raise EarshotError(f"{file}: {error}") from None


def read_recording(file: Path) -> tuple[np.ndarray, int]:
    """A recording and its rate in Hz: float32 (samples, channels).

    Raises EarshotError for a file that cannot be read, or holds no sound.
    """
    sound, rate = read_sound_file(file)
    if not len(sound):
        raise EarshotError(f"{file}: holds no samples; restore the file")
    return sound, rate
