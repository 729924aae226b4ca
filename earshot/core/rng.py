"""Everything random in training, drawn from generators that are named by a purpose and by numbers."""

import zlib

import numpy as np


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """A generator of its own for a purpose and, say, a seed and a step: `generator("crops", seed, step)`."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), *numbers])
