"""Descriptors: one way to describe windows of sound, whichever descriptor is asked for."""

from collections.abc import Mapping

import numpy as np

from earshot.core.errors import EarshotError
from earshot.sound.cochlea import BATCH, cochleagrams, loudness
from earshot.sound.mfcc import MFCC_SIZE, mfccs
from earshot.sound.spectrum import SPECTRUM_SIZE, spectra
from earshot.sound.texture import TEXTURE_SIZE, check_switches, texture_statistics
from earshot.sound.windows import WINDOW_SECONDS, fitted_windows, is_silent

DESCRIPTOR_SIZES = {"texture": TEXTURE_SIZE, "mfcc": MFCC_SIZE, "spectrum": SPECTRUM_SIZE}


def describe_windows(
    windows: np.ndarray,
    sample_rate: int,
    descriptor: str,
    switches: Mapping[str, str],
    centres: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Describe windows (moments, samples) of 1.5 to 3.75 s: float32 (moments, size), and the silent flags (moments,).

    switches: those of the texture, as `sound_textures` has them; what is left out has its default. The cochlea's also
        hold for the spectrum, and for the loudness that decides what is silent: the flag is the same for every
        descriptor, so that they can be compared on the same moments.
    centres: where in its window each moment lies, in seconds; default the middle. Only the spectrum depends on it.

    Raises UnfitSound as `sound_textures` does, EarshotError for a descriptor or switch that does not exist.
    """
    if descriptor not in DESCRIPTOR_SIZES:
        raise EarshotError(f"descriptor is {descriptor!r}, wanted one of {', '.join(DESCRIPTOR_SIZES)}")
    check_switches(switches)
    cochlear = {name: value for name, value in switches.items() if name != "modulation_norm"}
    if centres is None:
        centres = np.full(len(windows), min(windows.shape[1] / sample_rate, WINDOW_SECONDS) / 2)
    windows = fitted_windows(windows, sample_rate)
    described = np.empty((len(windows), DESCRIPTOR_SIZES[descriptor]), np.float32)
    levels = np.empty(len(windows), np.float32)
    for first in range(0, len(windows), BATCH):
        batch = slice(first, first + BATCH)
        envelopes = cochleagrams(windows[batch], **cochlear)
        levels[batch] = loudness(envelopes)
        if descriptor == "texture":
            described[batch] = texture_statistics(envelopes, switches.get("modulation_norm", "variance"))
        elif descriptor == "spectrum":
            described[batch] = spectra(envelopes, centres[batch])
        else:
            described[batch] = mfccs(windows[batch], sample_rate)
    return described, is_silent(windows, levels)
