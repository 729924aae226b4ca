"""Windows: the sound around each moment, cut, checked and tiled to the length that the analysis requires."""

import numpy as np

from earshot.core.channels import mix_channels
from earshot.core.errors import EarshotError

WINDOW_SECONDS = 3.75  # Owens 2016, section 3.1
MIN_DURATION_S = 1.5  # a shorter window, tiled, would describe its seams rather than the sound
SILENT_RMS = 1e-4
SILENT_LOUDNESS = 0.15


class UnfitSound(EarshotError, ValueError):
    """Sound that cannot be described: too short, too long, not finite, or not an array of windows."""


def samples_of(seconds: float, sample_rate: int) -> int:
    """`seconds` in samples, halves rounded up."""
    return int(np.floor(seconds * sample_rate + 0.5))


def cut_windows(
    sound: np.ndarray, sample_rate: int, times: np.ndarray, seconds: float = WINDOW_SECONDS
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the window of `seconds` around each of `times` (s) from a sound (samples, channels) or (samples,).

    Returns the windows, float32 (moments, samples), their channels mixed by `mix_channels`, and the time of each moment
    within its window, s. A window that would exceed the sound is shifted into it; a sound shorter than a window is
    taken whole.
    """
    sound = as_float32(sound)
    times = np.asarray(times, dtype=np.float64)
    length = min(samples_of(seconds, sample_rate), len(sound))
    starts = np.floor(times * sample_rate - length / 2 + 0.5).astype(int).clip(0, len(sound) - length)
    windows = sound[starts[:, None] + np.arange(length)]  # (moments, length) or (moments, length, channels)
    if windows.ndim == 3:
        windows = np.stack([mix_channels(window) for window in windows]) if len(windows) else windows[:, :, 0]
    return windows, times - starts / sample_rate


def fitted_windows(windows: np.ndarray, sample_rate: int) -> np.ndarray:
    """Check windows (moments, samples) and bring them to exactly 3.75 s of float32; shorter ones are tiled, not padded.

    Zero padding would change the texture of a 2 s sound by more than two sounds differ.

    Raises UnfitSound if windows are shorter than 1.5 s or longer than 3.75 s, or names the first that is not finite.
    """
    windows = as_float32(np.asarray(windows))
    if windows.ndim != 2:
        raise UnfitSound(f"windows have the shape {windows.shape}: give them as (moments, samples), mono")
    check_length(windows.shape[1], sample_rate)
    check_finite(root_mean_square(windows))
    full = samples_of(WINDOW_SECONDS, sample_rate)
    if windows.shape[1] == full:
        return windows
    return np.tile(windows, -(-full // windows.shape[1]))[:, :full]


def check_length(length: int, sample_rate: int) -> None:
    """Raise UnfitSound for windows of `length` samples that are shorter than 1.5 s or longer than 3.75 s."""
    full = samples_of(WINDOW_SECONDS, sample_rate)
    actual = f"a window of {length} samples at {sample_rate} Hz"
    if length < MIN_DURATION_S * sample_rate:
        raise UnfitSound(f"{actual} is too short: a descriptor requires {MIN_DURATION_S} s of sound or more")
    if length > full:
        raise UnfitSound(f"{actual} is too long: cut it to {WINDOW_SECONDS} s, {full} samples")


def check_finite(levels: np.ndarray, first: int = 0) -> None:
    """Raise UnfitSound for the first of the windows from number `first` on whose rms, (moments,), is not finite."""
    unfit = np.flatnonzero(~np.isfinite(levels))
    if unfit.size:
        number = first + unfit[0]
        raise UnfitSound(f"window {number} holds NaN, infinity or values beyond float32: sound lies in [-1, 1]")


def as_float32(sound: np.ndarray) -> np.ndarray:
    """Sound as float32: int16 is divided by 32768, floats in [-1, 1] stay as they are.

    Raises UnfitSound for any other kind of number.
    """
    if sound.dtype == np.int16:
        return sound / np.float32(32768)
    if not np.issubdtype(sound.dtype, np.floating):
        raise UnfitSound(f"sound is {sound.dtype}: give it as floats in [-1, 1] or as int16")
    with np.errstate(over="ignore"):  # `fitted_windows` reports an overflow with its row
        return np.ascontiguousarray(sound, dtype=np.float32)


def root_mean_square(windows: np.ndarray) -> np.ndarray:
    """Root of the mean square of each window (moments, samples): float32 (moments,)."""
    return np.sqrt(np.einsum("mt,mt->m", windows, windows) / np.float32(windows.shape[1]))


def is_silent(windows: np.ndarray, loudness: np.ndarray) -> np.ndarray:
    """Which windows (moments, samples) of the given cochlear loudness (moments,) count as silent: bool (moments,)."""
    return (root_mean_square(windows) < SILENT_RMS) | (loudness < SILENT_LOUDNESS)
