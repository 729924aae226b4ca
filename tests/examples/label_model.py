"""Random hyperplanes: as earshot/labels/models/hyperplanes.py it is `label.model: hyperplanes`.

Each bit of a label is the side of a random hyperplane on which a sound lies, so similar sounds have similar labels
(Charikar 2002, section 3).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from earshot.core.params import IDEA, Group
from earshot.labels.model import LabelModel


class Params(Group):
    """The number of hyperplanes."""

    hyperplanes: Annotated[int, Field(ge=1, le=62), IDEA]


@dataclass(frozen=True)
class Hyperplanes:
    """Their normals in the scaled descriptors, float32 (bits, d)."""

    normals: np.ndarray

    @staticmethod
    def shapes(bits: int, dimensions: int) -> dict[str, tuple[int, ...]]:
        return {"normals": (bits, dimensions)}

    def assign(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels, int64 (rows,), and distances, which are NaN because there are none."""
        labels = (scaled @ self.normals.T > 0) @ (1 << np.arange(len(self.normals), dtype=np.int64))
        return labels, np.full(len(scaled), np.nan, np.float32)


def fit(blocks: Iterable[np.ndarray], rows: int, *, values: int, options: Params, seed: int) -> Hyperplanes:
    dimensions = next(iter(blocks)).shape[1]
    return Hyperplanes(np.random.default_rng(seed).standard_normal((values, dimensions), np.float32))


LABEL_MODEL = LabelModel(
    params=Params,
    kind="bits",
    fit=fit,
    fitted=Hyperplanes,
    words="a label is {values} bits, the sides of hyperplanes on which a {descriptor} lies",
    predicts="on which sides of {values} hyperplanes the {descriptor} of the sound around them lies",
    size="label.hyperplanes",
)
