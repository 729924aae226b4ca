"""What a benchmark with probes does: select a probe's parameter on validation rows, refit, and score the test rows."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from earshot.core.params import INDIFFERENT, ONCE
from earshot.core.registry import find_all
from earshot.evaluation import benchmark
from earshot.evaluation.linear import CHOICE_TOLERANCE, TOLERANCE
from earshot.evaluation.probe import Probe

PROBES: dict[str, Probe] = find_all(benchmark.PROBES, "PROBE")
if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[*PROBES]
Probes = Annotated[tuple[Kind, ...], Field(min_length=1, strict=False), ONCE, INDIFFERENT]  # a benchmark's parameter

Score = Callable[[np.ndarray, np.ndarray], float]
Labeled = tuple[Tensor, Tensor]  # rows (rows, dimensions), and labels (rows, classes) in 1, -1, 0


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe: test scores (rows, classes), the selected value, and the mean scores of every value."""

    scores: np.ndarray
    value: float
    choice: tuple[float, ...]


def scored_as(metric: str, probe: str) -> str:
    """The name of a metric as a probe measures it: `map_pool5`, or `map_pool5_knn`."""
    return metric if probe == benchmark.PLAIN_PROBE else f"{metric}_{probe}"


def selected_as(probe: str) -> str:
    """The name of the value that validation selected: `svm_c`, `knn_k`."""
    return f"{probe}_{PROBES[probe].symbol.lower()}"


def in_words(probes: Sequence[str]) -> str:
    """The probes in a sentence: `linear SVM and weighted kNN`."""
    return " and ".join(PROBES[name].title for name in probes)


def feature_scale(rows: Tensor) -> float:
    """The factor that scales the mean norm of rows (rows, dimensions) to the root of the number of dimensions.

    With it the best C lies inside the papers' grid, whatever the scale of a layer's activations.
    """
    norm = rows.norm(dim=1).mean().item()
    return rows.shape[1] ** 0.5 / norm if norm > 0 else 1.0


def one_vs_rest(numbers: np.ndarray) -> Tensor:
    """Labels float32 (rows, classes), 1 or -1, from the class indices (rows,)."""
    signs = torch.full((len(numbers), int(numbers.max()) + 1), -1.0)
    signs[torch.arange(len(numbers)), torch.from_numpy(numbers)] = 1
    return signs


def validated_probe(
    probe: Probe, train: Labeled, validation: Labeled, test: Tensor, score: Score, *, name: str
) -> ProbeResult:
    """Select one value for all classes by the score on the validation rows, refit on both parts, score the test rows.

    Args:
        probe: the kind of classifier.
        train, validation: rows and labels.
        test: rows (rows, dimensions).
        score: of scores and labels (rows, classes), higher is better; the first value of the grid wins a tie.
        name: for warnings.
    """
    scale = feature_scale(train[0])
    tried = probe.fit(*train, probe.grid, scale, tolerance=CHOICE_TOLERANCE).scores(validation[0])
    choice = tuple(score(each, validation[1].numpy()) for each in tried)
    both = torch.cat([train[0], validation[0]]), torch.cat([train[1], validation[1]])
    return _refit(probe, both, scale, choice, test, name)


def cross_validated_probe(
    probe: Probe, train: Labeled, folds: np.ndarray, test: Tensor, score: Score, *, name: str
) -> ProbeResult:
    """As `validated_probe`, but select the value by cross-validation over the `folds` (rows,) of the training rows."""
    rows, labels = train
    scale = feature_scale(rows)
    choices = []
    for fold in np.unique(folds):
        kept, left_out = torch.from_numpy(folds != fold), torch.from_numpy(folds == fold)
        tried = probe.fit(rows[kept], labels[kept], probe.grid, scale, tolerance=CHOICE_TOLERANCE)
        choices.append([score(each, labels[left_out].numpy()) for each in tried.scores(rows[left_out])])
    return _refit(probe, train, scale, tuple(np.mean(choices, axis=0).tolist()), test, name)


def _refit(
    probe: Probe, train: Labeled, scale: float, choice: tuple[float, ...], test: Tensor, name: str
) -> ProbeResult:
    best = int(np.argmax(choice))
    if probe.has_edges and max(choice[1:-1]) < choice[best]:
        at_edge = f"the best {probe.symbol}, {probe.grid[best]:.3g}, is at the edge of the grid"
        warnings.warn(f"{name}: {at_edge}", stacklevel=3)
    scores = probe.fit(*train, probe.grid[best : best + 1], scale, tolerance=TOLERANCE).scores(test)[0]
    return ProbeResult(scores, probe.grid[best], choice)
