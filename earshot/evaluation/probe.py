"""The definition of a probe: a classifier of frozen features, one-vs-rest, with one parameter that validation selects.

    PROBE = Probe(title="linear SVM", symbol="C", grid=GRID, fit=fit)

A new probe requires only a module in earshot/evaluation/probes; its name is a value of `evaluate.<benchmark>.probes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


class Classifiers(Protocol):
    """Fitted classifiers of every class, for several values of the probe's parameter."""

    def scores(self, rows: Tensor) -> np.ndarray:
        """Higher for a more likely class: (values, rows, classes), of rows (rows, dimensions)."""


class Fit(Protocol):
    """Fits the classifiers of several values to rows (rows, dimensions) with labels (rows, classes) in 1, -1, 0.

    A row with the label 0 does not count for its class. A linear classifier multiplies rows by `scale` first, and is
    solved to `tolerance` (earshot/evaluation/linear.py).
    """

    def __call__(
        self, rows: Tensor, labels: Tensor, values: Sequence[float], scale: float, /, *, tolerance: float
    ) -> Classifiers:
        """The classifiers, which take rows without the scale."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A kind of classifier.

    Args:
        title: its name in a sentence.
        symbol: of its parameter.
        grid: the values of the parameter, from which validation selects one.
        fit: fits the classifiers of several values.
        has_edges: whether a best value at an end of the grid gives a warning.
    """

    title: str
    symbol: str
    grid: tuple[float, ...]
    fit: Fit
    has_edges: bool = True
