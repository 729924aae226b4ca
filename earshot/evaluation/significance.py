"""How sure a score is, whether one row of a benchmark is above another, and what that says about learning.

All rows are measured on the same items (images, pairs, queries, or seeds), so their difference is tested item by item:
Student's paired t-test, which for many items is the normal approximation. A score that is no mean of its items, such as
mAP over images, is tested by resampling the items (Efron & Tibshirani 1993, chapters 6 and 13).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

DRAWS = 1000  # of the bootstrap
LEVEL = 0.05  # of every test, two-sided
FEWEST = 10  # items; fewer decide nothing
WRONG_SOUND = "wrong sound"  # the control that a score must exceed for sound to have taught it


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
        return self.difference > 0 and self.p_value < LEVEL

    @property
    def is_below(self) -> bool:
        """Whether the first row is below the second, by the same test."""
        return self.difference < 0 and self.p_value < LEVEL

    @property
    def negated(self) -> "Margin":
        """The margin of the second row above the first."""
        return Margin(self.n, -self.difference, self.standard_error, self.p_value)

    def __str__(self) -> str:
        return f"{self.difference:+.3f} ± {self.standard_error:.3f} (n = {self.n}, p = {self.p_value:.2g})"


@dataclass(frozen=True)
class Verdict:
    """What the tests of a score against its controls say.

    Args:
        rank: from 0, the worst, to 5, learned.
        words: the verdict in words, such as `learned` or `not above wrong sound`.
    """

    rank: int
    words: str


WORSE, NOT_ABOVE, TOO_FEW, UNTESTED, ABOVE, LEARNED = range(6)


def decide(margins: Mapping[str, Margin], trained: bool = True) -> Verdict:
    """The verdict on a score, from its margins above its controls, by their names.

    - worse than a control, if it is below that control;
    - else not above some, if it is not above all;
    - else learned, if the wrong sound is among the controls; sound taught only what is above it.

    Args:
        margins: by control; those of fewer than 10 items decide nothing.
        trained: whether the score is that of a trained network.
    """
    if not margins:
        return Verdict(UNTESTED, "not tested")
    fewest = min(margin.n for margin in margins.values())
    if fewest < FEWEST:
        return Verdict(TOO_FEW, f"too few items to tell ({fewest})")
    below = [name for name, margin in margins.items() if margin.is_below]
    level = [name for name, margin in margins.items() if not (margin.is_below or margin.is_above)]
    worse = f"worse than {', '.join(below)}" if below else ""
    not_above = f"not above {', '.join(level)}" if level else ""
    if below or level:
        return Verdict(WORSE if below else NOT_ABOVE, "; ".join(filter(None, [worse, not_above])))
    if trained and WRONG_SOUND in margins:
        return Verdict(LEARNED, "learned")
    return Verdict(ABOVE, f"above {', '.join(margins)}")


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
    return Margin(len(one), mean, error, float(2 * stdtr(len(one) - 1, -abs(mean) / error)))


def resampled_counts(
    items: int, is_valid: Callable[[np.ndarray], np.ndarray] | None = None, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """How often each item occurs in each resample of the bootstrap: int (draws, items).

    The same for equal arguments, so that scores of different networks and runs on the same items are paired.

    Args:
        items: their number.
        is_valid: which resamples, (some, items), define the score; the others are drawn again.
        draws: the number of resamples.
        seed: of the draws.
    """
    rng, parts, missing = np.random.default_rng(seed), list[np.ndarray](), draws
    while missing:
        counts = rng.multinomial(items, np.full(items, 1 / items), size=missing)
        parts.append(counts if is_valid is None else counts[is_valid(counts)])
        missing -= len(parts[-1])
    return np.concatenate(parts)


def bootstrap_margin(scores: tuple[float, float], drawn: tuple[np.ndarray, np.ndarray | float], items: int) -> Margin:
    """The margin of one row above another for scores that are no means of their items.

    Args:
        scores: of both rows on all items.
        drawn: of both rows on the same resamples, (draws,) each; a number for a row that is the same on all.
        items: their number.
    """
    differences = drawn[0] - drawn[1]
    tail = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / (len(differences) + 1)
    return Margin(items, scores[0] - scores[1], float(differences.std(ddof=1)), min(2 * float(tail), 1.0))
