"""Random generators for training, each named by a purpose and by numbers."""

import zlib

import numpy as np


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """A generator for a purpose and numbers, such as a seed and a step: `generator("crops", seed, step)`."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), *numbers])
