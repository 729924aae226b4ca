"""Recordings of causes: mixing, background noise, uneven response and random gain, which reveal nothing of them."""

import numpy as np
from scipy import fft

from earshot.world.sounds import RATE, frequencies, of_unit_power, sound_of
from earshot.world.sources import Cause

Rng = np.random.Generator

EQUALIZER_KNOTS = 7
EQUALIZER_DECIBELS = 3.0  # deviation of each knot; at 7 dB the mean spectrum of a sound would reveal nothing
QUIETEST, LOUDEST = -27.0, -17.0  # dB of full scale, root mean square


def decibels(value: float) -> float:
    """Convert decibels to a factor of amplitude."""
    return 10 ** (value / 20)


def record(rng: Rng, causes: list[tuple[Cause, float]], samples: int) -> np.ndarray:
    """The recording of several causes, each at a level in dB relative to the others.

    Adds colored background noise, an uneven frequency response and a random gain. Returns float32 (samples,) at RATE,
    within [-1, 1].
    """
    mixture = np.zeros(samples, dtype=np.float32)
    for cause, level in causes:
        mixture += np.float32(decibels(level)) * sound_of(rng, cause, samples)
    spectrum = fft.rfft(mixture)
    spectrum += background(rng, samples) * np.float32(decibels(rng.uniform(-26, -10)) * np.linalg.norm(mixture))
    sound = fft.irfft(spectrum * response(rng, samples), samples)
    return (of_unit_power(sound) * np.float32(decibels(rng.uniform(QUIETEST, LOUDEST)))).clip(-1, 1)


def background(rng: Rng, samples: int) -> np.ndarray:
    """The spectrum of noise between white and brown, of unit norm as a sound."""
    hertz = frequencies(samples)
    shape = np.maximum(hertz, 30) ** np.float32(-rng.uniform(0, 1))
    spectrum = rng.standard_normal((len(hertz), 2), dtype=np.float32).view(np.complex64)[:, 0] * shape
    return spectrum / np.float32(np.linalg.norm(spectrum) * np.sqrt(2 / samples))


def response(rng: Rng, samples: int) -> np.ndarray:
    """A smooth random frequency response: knots equally spaced in the logarithm of frequency from 50 Hz to 12 kHz."""
    knots = np.geomspace(50, min(12_000, RATE / 2), EQUALIZER_KNOTS)
    gains = EQUALIZER_DECIBELS * rng.standard_normal(EQUALIZER_KNOTS)
    coarse = np.geomspace(1, RATE / 2, 200)
    curve = 10 ** (np.interp(np.log(coarse), np.log(knots), gains) / 20)
    return np.interp(frequencies(samples), coarse, curve).astype(np.float32)
