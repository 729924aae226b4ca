"""The hidden causes of the sample world, which determine both images and sound."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np

KINDS = ("surf", "rain", "fire", "grass", "car", "bird", "crowd", "bell", "gears", "rotor")


@dataclass(frozen=True)
class Cause:
    """One source of sound; its image and its sound share only these five values.

    size, force and pace range from 0 to 1: small and high to large and low; calm to violent; slow to fast. `instance`
    seeds the shape and the timbre, so that no two cars look or sound the same.
    """

    kind: str
    size: float
    force: float
    pace: float
    instance: int


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A separate generator for every seed, purpose (a dataset of the sample, a layer of an image) and number."""
    return np.random.default_rng([seed, crc32(purpose.encode()), *numbers])


def draw_cause(rng: np.random.Generator, kind: str) -> Cause:
    """A cause of one kind, its size, force, pace and instance drawn at random."""
    size, force, pace = rng.random(3)
    return Cause(kind, float(size), float(force), float(pace), int(rng.integers(2**62)))
