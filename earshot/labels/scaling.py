"""How much each dimension of a descriptor counts in the distance between two sounds.

A texture joins four parts of 64, 117, 320 and 1 dimensions in different units. What k-means finds depends on their
weights more than on anything else, and the papers say little of them: Owens et al. 2016, section 3.1, scale each part
"inversely with the number of dimensions".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from earshot.pipeline.errors import EarshotError
from earshot.sound.texture import TEXTURE_GROUPS, TEXTURE_SIZE

Scale = Literal["z-score+sqrt", "sqrt", "count", "none"]
Parts = Mapping[str, slice]

DIMENSIONS = {"texture": TEXTURE_SIZE, "mfcc": 3100, "spectrum": 32}

# A deviation below this share of the mean is float32 rounding, and its z-score would be noise.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Scaling:
    """Centre and factor of each dimension, float32 (d,); squared distances are meant after both."""

    centre: np.ndarray
    factor: np.ndarray

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """Descriptors (moments, d) to scaled float32 (moments, d)."""
        scaled = np.subtract(descriptors, self.centre, dtype=np.float32)
        scaled *= self.factor
        return scaled


def descriptor_parts(descriptor: str, dimensions: int) -> Parts:
    """The parts that are weighed against each other: four of a texture, the whole of any other descriptor.

    Raises EarshotError where a descriptor has not the size that it should have.
    """
    if dimensions != DIMENSIONS[descriptor]:
        found = f"descriptors of {dimensions} dimensions, wanted the {DIMENSIONS[descriptor]} of {descriptor}"
        raise EarshotError(f"{found}; run the stage describe again, or set descriptor to what the table holds")
    return TEXTURE_GROUPS if descriptor == "texture" else {descriptor: slice(0, dimensions)}


def fit_scaling(blocks: Iterable[np.ndarray], scale: Scale, parts: Parts) -> Scaling:
    """Centre at the mean and weigh the parts, from one pass over the training rows, blocks of (rows, d).

    With d the size of a dimension's part and s its standard deviation, the factor is 1 / (s sqrt d) for `z-score+sqrt`
    (0 where the dimension is constant), 1 / sqrt d for `sqrt`, 1 / d for `count` and 1 for `none`.
    """
    mean, deviation = _mean_and_deviation(blocks)
    sizes = np.ones_like(mean)
    for part in parts.values():
        sizes[part] = part.stop - part.start
    varies = deviation > CONSTANT * np.abs(mean)
    if scale == "z-score+sqrt":
        factor = np.where(varies, 1 / (np.where(varies, deviation, 1) * np.sqrt(sizes)), 0)
    else:
        factor = {"sqrt": sizes**-0.5, "count": 1 / sizes, "none": np.ones_like(sizes)}[scale]
    return Scaling(mean.astype(np.float32), factor.astype(np.float32))


def distance_shares(scaled: Iterable[np.ndarray], parts: Parts) -> dict[str, float]:
    """What each part contributes to a row's squared distance from the mean: shares of 1, averaged over the rows.

    `scaled` are blocks that `Scaling.apply` gave; rows at the mean itself have no shares and are left out.
    """
    totals, rows = np.zeros(len(parts)), 0
    for block in scaled:
        squares = np.stack([np.square(block[:, part]).sum(1, dtype=np.float64) for part in parts.values()])
        squares = squares[:, squares.sum(0) > 0]  # (parts, rows)
        totals += (squares / squares.sum(0)).sum(1)
        rows += squares.shape[1]
    return dict(zip(parts, (totals / max(rows, 1)).tolist(), strict=True))


def _mean_and_deviation(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each dimension, float64, merged block by block (Chan, Golub, LeVeque 1979)."""
    rows, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        before, rows = rows, rows + len(block)
        block_mean = block.mean(0, dtype=np.float64)
        shift = block_mean - mean
        mean = mean + shift * (len(block) / rows)
        squares = squares + np.square(block - block_mean).sum(0) + np.square(shift) * (before * len(block) / rows)
    return mean, np.sqrt(squares / max(rows, 1))
