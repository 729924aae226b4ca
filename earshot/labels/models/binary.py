"""The label model `binary`: a code with a bit for each of the first principal components (Owens et al. 2016, 3.2).

The paper projects every sound texture on the top 30 principal components and thresholds the projections, but does not
state the threshold. At zero, a bit is the side of the mean; at the median, every bit is as often 1 as 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import scipy.linalg
from pydantic import Field

from earshot.core.errors import EarshotError
from earshot.core.params import IDEA, Group
from earshot.labels.model import LabelModel, entropy
from earshot.labels.scaling import Scale

Threshold = Literal["zero", "median"]

# A component with a smaller share of the first one's variance is rounding noise, and so would be its bit.
CONSTANT = 1e-10


class BinaryLabelParams(Group):
    """The model's own parameters."""

    components: Annotated[int, Field(ge=1, le=62), IDEA]  # a code must fit in an int64
    threshold: Annotated[Threshold, IDEA]
    scale: Scale


@dataclass(frozen=True)
class BinaryCode:
    """Unit vectors in the space of scaled descriptors, float32 (components, d), and thresholds (components,)."""

    components: np.ndarray
    thresholds: np.ndarray

    @staticmethod
    def shapes(components: int, dimensions: int) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {"components": (components, dimensions), "thresholds": (components,)}

    def assign(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The code of each row, int64 (rows,), bit i for component i, and NaN (rows,), as codes have no distance."""
        bits = scaled @ self.components.T > self.thresholds  # (rows, components)
        codes = bits @ (np.int64(1) << np.arange(len(self.components), dtype=np.int64))
        return codes, np.full(len(scaled), np.nan, dtype=np.float32)


def unpack(codes: np.ndarray, components: int) -> np.ndarray:
    """The bits of codes: (rows,) to bool (rows, components)."""
    return (codes[:, None] >> np.arange(components, dtype=np.int64) & 1).astype(bool)


def fit_binary(blocks: Iterable[np.ndarray], rows: int, *, components: int, threshold: Threshold) -> BinaryCode:
    """Principal components of the scaled rows, whose mean is zero, and their thresholds.

    Second moments are summed block by block, in 8 d^2 bytes (77 MB for the 3100 numbers of mfcc). Medians require a
    second pass and 4 bytes a row and component. The largest entry of every component is positive.

    Args:
        blocks: float32 arrays (any number, d), the same in every iteration over it.
        rows: the total number of rows.

    Raises:
        EarshotError: there are fewer rows, dimensions or directions of variation than components.
    """
    if rows < components:
        raise EarshotError(f"{rows} rows are too few for {components} components; give more clips or lower components")
    moments = _second_moments(blocks, rows)
    dimensions = len(moments)
    if dimensions < components:
        raise EarshotError(f"descriptors of {dimensions} dimensions, label.components is {components}; lower it")
    variances, vectors = scipy.linalg.eigh(moments, subset_by_index=(dimensions - components, dimensions - 1))
    varying = int((variances > CONSTANT * variances[-1]).sum())
    if varying < components:
        message = f"the training sounds vary in {varying} directions, label.components is {components}"
        raise EarshotError(f"{message}; give more clips or lower label.components")
    directions = vectors.T[::-1]  # (components, d), the one of largest variance first
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    directions = np.ascontiguousarray(directions * np.sign(largest), dtype=np.float32)
    thresholds = np.zeros(components) if threshold == "zero" else _medians(blocks, directions, rows)
    return BinaryCode(directions, thresholds.astype(np.float32))


def _second_moments(blocks: Iterable[np.ndarray], rows: int) -> np.ndarray:
    """The mean of x x^T over all rows x, float64 (d, d)."""
    sums = np.zeros((1, 1))
    for block in blocks:
        exact = block.astype(np.float64)
        sums = sums + exact.T @ exact
    return sums / max(rows, 1)


def _medians(blocks: Iterable[np.ndarray], directions: np.ndarray, rows: int) -> np.ndarray:
    """The median of the projections of all rows on each direction, (components,)."""
    projections, start = np.empty((len(directions), rows), dtype=np.float32), 0
    for block in blocks:
        projections[:, start : start + len(block)] = directions @ block.T
        start += len(block)
    return np.median(projections, axis=1, overwrite_input=True)


def bit_entropy(codes: np.ndarray, components: int) -> float:
    """The mean entropy of the bits: 1 if each is as often 1 as 0."""
    return float(np.mean([entropy(bits) for bits in unpack(codes, components).T]))


LABEL_MODEL = LabelModel(
    params=BinaryLabelParams,
    kind="bits",
    fit=lambda blocks, rows, values, options, seed: fit_binary(
        blocks, rows, components=values, threshold=options.threshold
    ),
    fitted=BinaryCode,
    words="a label is a code of {values} bits of {descriptor}",
    predicts="the {values}-bit code of the {descriptor} of the sound around them",
    size="label.components",
    entropy=bit_entropy,
)
