"""Scaling: the weight of each dimension of a descriptor in the distance between two sounds.

A texture has four parts of 64, 117, 320 and 1 dimensions in different units. The result of k-means depends on their
weights more than on anything else, and the papers say little about them: Owens et al. 2016, section 3.1, scale each
part "inversely with the number of dimensions".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Scale = Literal["z-score+sqrt", "sqrt", "count", "none"]
Parts = Mapping[str, slice]

# A deviation below this share of the mean is float32 rounding, and its z-score would be noise.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Scaling:
    """Center and factor of each dimension, float32 (d,); distances are measured after applying both."""

    center: np.ndarray
    factor: np.ndarray

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """Descriptors (moments, d) to scaled float32 (moments, d)."""
        scaled = np.subtract(descriptors, self.center, dtype=np.float32)
        scaled *= self.factor
        return scaled

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Scaled rows (moments, d) to descriptors, float32 (moments, d).

        A dimension of factor 0 gets the mean of the training rows.
        """
        counts = self.factor != 0
        return np.divide(scaled, self.factor, out=np.zeros_like(scaled), where=counts) + self.center


def mean_and_deviation(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each dimension, float64 (d,), over blocks of rows (any number, d) in one pass.

    Blocks are merged by the method of Chan, Golub and LeVeque (1979), which loses no digits to large means.
    """
    rows, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        before, rows = rows, rows + len(block)
        block_mean = block.mean(0, dtype=np.float64)
        shift = block_mean - mean
        mean = mean + shift * (len(block) / rows)
        squares = squares + np.square(block - block_mean).sum(0) + np.square(shift) * (before * len(block) / rows)
    return mean, np.sqrt(squares / max(rows, 1))


def fit_scaling(mean: np.ndarray, deviation: np.ndarray, scale: Scale, parts: Parts) -> Scaling:
    """Center at the mean of the training rows and weight the parts.

    With d the size of a dimension's part and s its deviation, the factor is 1 / (s sqrt d) for `z-score+sqrt` (0 where
    the dimension is constant), 1 / sqrt d for `sqrt`, 1 / d for `count` and 1 for `none`.
    """
    sizes = np.ones_like(mean)
    for part in parts.values():
        sizes[part] = part.stop - part.start
    varies = deviation > CONSTANT * np.abs(mean)
    if scale == "z-score+sqrt":
        factor = np.where(varies, 1 / (np.where(varies, deviation, 1) * np.sqrt(sizes)), 0)
    else:
        factor = {"sqrt": sizes**-0.5, "count": 1 / sizes, "none": np.ones_like(sizes)}[scale]
    return Scaling(mean.astype(np.float32), factor.astype(np.float32))


def distance_shares(deviation: np.ndarray, scaling: Scaling, parts: Parts) -> dict[str, float]:
    """The share of each part in the mean squared distance of training rows from their mean, and so from each other.

    With `z-score+sqrt` all parts without constant dimensions have equal shares by construction.
    """
    squares = np.square(deviation * scaling.factor)
    return {name: float(squares[part].sum() / max(squares.sum(), 1e-300)) for name, part in parts.items()}
