"""The hidden causes of the sample world: what is there, and so both what is seen and what is heard."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np

KINDS = ("surf", "rain", "fire", "grass", "car", "bird", "crowd", "bell", "gears", "rotor")


@dataclass(frozen=True)
class Cause:
    """One source of sound: all that its picture and its sound have in common is in these five values.

    size, force and pace run from 0 to 1: small and high to large and low; calm to violent; slow to fast. `instance` is
    the seed of the shape and of the timbre, so that no two cars look or sound the same.
    """

    kind: str
    size: float
    force: float
    pace: float
    instance: int


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Random numbers of their own for every seed, purpose (a tree of the sample, a layer of a picture) and number."""
    return np.random.default_rng([seed, crc32(purpose.encode()), *numbers])


def draw_cause(rng: np.random.Generator, kind: str) -> Cause:
    """A cause of one kind, its size, force, pace and instance drawn at random."""
    size, force, pace = rng.random(3)
    return Cause(kind, float(size), float(force), float(pace), int(rng.integers(2**62)))
