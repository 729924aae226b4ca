"""How sure a score is, and whether one row of a benchmark is above another.

Both rows are measured on the same items (images, pairs, queries, or seeds), so their difference is tested item by item:
Student's paired t-test, which for many items is the normal approximation. A score that is no mean of its items, such as
mAP over images, is tested by resampling the items (Efron & Tibshirani 1993, chapters 6 and 13).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Margin:
    """By how much one row is above another.

    Args:
        n: the number of items.
        difference: of the two scores; above 0 if the first is higher.
        standard_error: of the difference.
        p_value: two-sided: how often so large a difference arises by chance.
    """

    n: int
    difference: float
    standard_error: float
    p_value: float

    @property
    def is_above(self) -> bool:
        """Whether the first row is above the second, at the level of .05: what the documentation calls `above`."""
        return self.difference > 0 and self.p_value < 0.05

    def __str__(self) -> str:
        return f"{self.difference:+.3f} ± {self.standard_error:.3f} (n = {self.n}, p = {self.p_value:.2g})"


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean of independent items' scores, (items,); NaN for fewer than two.

    For items that are right or wrong it is the root of p (1 - p) / (n - 1).
    """
    values = np.asarray(values, float)
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def margin(one: np.ndarray, other: np.ndarray) -> Margin:
    """The margin of one row above another, from their scores of the same items, (items,) each.

    Raises:
        ValueError: the rows differ in length, or have fewer than two items.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise ValueError(f"scores of {one.shape} and {other.shape} items, expected as many in both, two or more")
    differences = one - other
    mean, error = float(differences.mean()), standard_error(differences)
    if error == 0:
        return Margin(len(one), mean, 0.0, 1.0 if mean == 0 else 0.0)
    return Margin(len(one), mean, error, float(2 * student.sf(abs(mean) / error, len(one) - 1)))


def bootstrap_margin(
    score: Callable[[np.ndarray], tuple[float, float]], items: int, seed: int = 0, draws: int = DRAWS
) -> Margin:
    """The margin of one row above another for scores that are no means of their items.

    Args:
        score: both rows' scores on the items at some indices, (items,), of which some repeat; a ValueError where a
            score is undefined draws again.
        items: their number.
        seed: of the draws.
        draws: the number of resamples.
    """
    rng, differences = np.random.default_rng(seed), list[float]()
    while len(differences) < draws:
        try:
            one, other = score(rng.integers(items, size=items))
        except ValueError:
            continue
        differences.append(one - other)
    one, other = score(np.arange(items))
    drawn = np.array(differences)
    tail = (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (draws + 1)
    return Margin(items, one - other, float(drawn.std(ddof=1)), min(2 * float(tail), 1.0))
