"""Sounds on which textures are compared with their float64 reference, and how far from it they are."""

import numpy as np

from earshot.sound.texture import TEXTURE_GROUPS
from perf.texture import DIMENSION_ERROR, GROUP_ERROR, rms


def sounds_of_many_kinds(rate: int) -> dict[str, np.ndarray]:
    """Sounds of many kinds at `rate`: gaps, clicks, lines and steadiness are what cropped transforms get wrong."""
    generator = np.random.default_rng(rate)
    samples = int(3.75 * rate + 0.5)
    time = np.arange(samples) / rate
    noise = 0.1 * generator.standard_normal((4, samples))
    clicks = np.zeros(samples)
    clicks[generator.integers(0, samples, 12)] = 1

    def stack(lowest: float, harmonics: int, slope: float = 1.0) -> np.ndarray:
        audible = [k for k in range(1, harmonics) if lowest * k < rate / 2]
        return sum(0.3 * np.sin(2 * np.pi * lowest * k * time) / k**slope for k in audible)

    return {
        "noise": noise[0],
        "amplitude-modulated noise": noise[1] * (1 + np.sin(2 * np.pi * 7 * time)),
        "tone that comes and goes": np.sin(2 * np.pi * 2500 * time) * (1 + np.sin(2 * np.pi * 10 * time)) / 4,
        "tone with a seam": 0.3 * np.sin(2 * np.pi * 333.33 * time),
        "clicks": clicks,
        "ticks": np.where(np.arange(samples) % (rate // 4) < 2, 0.5, 0),
        "decaying clicks": np.convolve(clicks, np.exp(-np.arange(2000) / 300) * noise[2, :2000], "same"),
        "chirp": 0.3 * np.sin(2 * np.pi * (50 * time + (rate / 2 - 100) / 7.5 * time**2)),
        "steady harmonics": stack(220, 300),
        "harmonics without a whole period": stack(440.7, 20),
        "many harmonics of one level": stack(150, 500, 0) / 3,
        "harmonics over hiss": stack(110, 60) + 0.01 * noise[3],
        "barks": stack(400, 20) * np.exp(-(time % 1.2) * 15),
        "bursts": noise[2] * (time % 0.5 < 0.1),
        "bursts over digital hiss": np.round(32768 * (noise[3] * (time % 0.6 < 0.1) + 2e-4 * noise[0])) / 32768,
        "one burst": noise[0] * (abs(time - 1.1) < 0.1),
    }


def check_near(actual: np.ndarray, exact: np.ndarray) -> None:
    """Check the bounds of textures (sounds, 502) in standard deviations between the sounds.

    A dimension that is the same for all sounds has none, and counts as it is.
    """
    deviation = exact.std(axis=0)
    errors = np.sqrt(np.mean((actual - exact) ** 2, axis=0)) / np.where(deviation > 0, deviation, 1)
    for group, part in TEXTURE_GROUPS.items():
        assert rms(errors[part]) < GROUP_ERROR, group
        assert errors[part].max() < DIMENSION_ERROR, group
