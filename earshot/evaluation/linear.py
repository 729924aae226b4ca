"""The linear probe: one-vs-rest linear SVMs for all classes and all C at once, the choice of one C, and the refit.

Each class minimizes (Fan et al. 2008, LIBLINEAR, section 2, with the bias as one more feature)

    1/2 (|w|^2 + b^2) + C sum_i max(0, 1 - y_i (w x_i + b))^2,        y_i in {1, -1},

where a row with y_i = 0 does not count, as in scikit-learn's LinearSVC. The rows x are centered on their mean first:
otherwise the cost on b would favor classifiers that use the mean row as an intercept.

The problems of all classes and C share their matrix products, which makes them fast:

1. With fewer rows n than dimensions d, the rows are replaced by those of the Cholesky factor of their Gram matrix
   (n, n): all inner products, and so the SVMs, stay the same.
2. Conjugate gradients (Polak & Ribiere, restarted by themselves) with a line search along each problem's own direction.
   The preconditioner uses the largest eigenvalues of the covariance and takes all others as equal: on AlexNet features
   it needs half the steps of the complete inverse, without its n^3.
3. A converged problem leaves the products.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from earshot.networks.device import get_device, seed_generators

GRID = tuple(0.5**k for k in range(4, 20))  # Owens 2016, section 4.2

# A problem is solved when one more preconditioned gradient step would gain less than this share of the objective. The
# final classifier has a smaller tolerance than those that only select C.
TOLERANCE = 1e-6
CHOICE_TOLERANCE = 3e-5
MOST_STEPS = 1000
USUAL_STEPS = 40
EIGENVALUES = 128
LINE_STEPS = 3  # Newton steps on a convex, piecewise quadratic function of one variable
# Added to the diagonal of the Gram matrix, as a share of its mean: the first value above the rounding of float32, which
# is larger if a few directions hold all the variance. All but the last are far below any 1 / C.
JITTERS = 1e-5, 1e-4, 1e-3, 1e-2
COLUMNS_AT_ONCE = 1024  # problems solved together: bounds the memory where there are hundreds of classes

Score = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class LinearSVMs:
    """The SVMs of every class for every C: weights (costs, dimensions, classes), intercepts (costs, 1, classes)."""

    weights: Tensor
    intercepts: Tensor

    def scores(self, rows: Tensor) -> np.ndarray:
        """Decision values (costs, rows, classes) of rows (rows, dimensions)."""
        costs, dimensions, classes = self.weights.shape
        flat = rows.to(self.weights.device) @ self.weights.transpose(0, 1).reshape(dimensions, costs * classes)
        return (flat.view(-1, costs, classes).transpose(0, 1) + self.intercepts).cpu().numpy()


@dataclass(frozen=True)
class Probe:
    """The result of a linear probe: test scores (rows, classes), the selected C, and the mean scores of every C."""

    scores: np.ndarray
    cost: float
    choice: tuple[float, ...]


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


def fit(
    rows: Tensor, labels: Tensor, costs: Sequence[float], scale: float = 1.0, tolerance: float = TOLERANCE
) -> LinearSVMs:
    """Fit the SVMs of all classes for all `costs` to rows times `scale`; the result takes rows without the scale.

    Args:
        rows: float32, (rows, dimensions).
        labels: float32, (rows, classes), 1, -1, or 0 for a row that a class ignores.
        costs: values of C.
        tolerance: the smallest decrease of a step, as a share of the objective.
    """
    rows, labels = rows.to(get_device()), labels.to(get_device())
    mean = rows.mean(0)
    centered = (rows - mean) * scale
    (count, dimensions), classes = rows.shape, labels.shape[1]
    ridges = torch.tensor([1 / (2 * cost) for cost in costs], device=rows.device).repeat_interleave(classes)
    signs = labels.repeat(1, len(costs))  # (rows, costs * classes)
    # The Gram matrix costs n^2 d, and saves n (d - n) in each of two products a problem and step.
    if count < dimensions and count * dimensions < 2 * USUAL_STEPS * len(ridges) * (dimensions - count):
        factor = _gram_factor(centered)
        reduced, intercepts = _solve(factor, signs, ridges, tolerance)
        weights = centered.T @ torch.linalg.solve_triangular(factor.T, reduced, upper=True)
    else:
        weights, intercepts = _solve(centered, signs, ridges, tolerance)
    weights *= scale
    intercepts = intercepts - mean @ weights
    return LinearSVMs(
        weights.view(dimensions, len(costs), classes).transpose(0, 1), intercepts.view(len(costs), 1, classes)
    )


def validated_probe(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], test: Tensor, score: Score, *, name: str
) -> Probe:
    """Select one C for all classes by the score on the validation rows, refit on both parts, and score the test rows.

    Args:
        train, validation: rows (rows, dimensions) and labels (rows, classes) in 1, -1, 0.
        test: rows (rows, dimensions).
        score: of scores and labels (rows, classes), higher is better; the first C of the grid wins a tie.
        name: of the probe, for warnings.
    """
    scale = feature_scale(train[0])
    tried = fit(*train, GRID, scale, CHOICE_TOLERANCE).scores(validation[0])
    choice = tuple(score(each, validation[1].numpy()) for each in tried)
    both = torch.cat([train[0], validation[0]]), torch.cat([train[1], validation[1]])
    return _refit(both, scale, choice, test, name)


def cross_validated_probe(
    train: tuple[Tensor, Tensor], folds: np.ndarray, test: Tensor, score: Score, *, name: str
) -> Probe:
    """As `validated_probe`, but select C by cross-validation over the `folds` (rows,) of the training rows."""
    rows, labels = train
    scale = feature_scale(rows)
    choices = []
    for fold in np.unique(folds):
        kept, left_out = torch.from_numpy(folds != fold), torch.from_numpy(folds == fold)
        tried = fit(rows[kept], labels[kept], GRID, scale, CHOICE_TOLERANCE).scores(rows[left_out])
        choices.append([score(each, labels[left_out].numpy()) for each in tried])
    return _refit(train, scale, tuple(np.mean(choices, axis=0).tolist()), test, name)


def _refit(train: tuple[Tensor, Tensor], scale: float, choice: tuple[float, ...], test: Tensor, name: str) -> Probe:
    best = int(np.argmax(choice))
    if max(choice[1:-1]) < choice[best]:
        warnings.warn(f"{name}: the best C, {GRID[best]:.3g}, is at the edge of the grid", stacklevel=3)
    scores = fit(*train, GRID[best : best + 1], scale).scores(test)[0]
    return Probe(scores, GRID[best], choice)


def _gram_factor(rows: Tensor) -> Tensor:
    """The lower triangular L (n, n) with L L^T = rows rows^T, decomposed in float64."""
    gram = (rows @ rows.T).double()
    mean, added = gram.diagonal().mean().clamp(min=1e-30), 0.0
    for jitter in JITTERS:
        gram.diagonal().add_((jitter - added) * mean)
        added = jitter
        factor, failed = torch.linalg.cholesky_ex(gram)
        if not failed:
            break
    return factor.to(rows.dtype)


def _solve(rows: Tensor, signs: Tensor, ridges: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Weights (dimensions, problems) and intercepts (problems,) for centered rows, a block of problems at a time."""
    precondition = _preconditioner(rows)
    with_one = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)  # the intercept is the last weight
    blocks = zip(signs.split(COLUMNS_AT_ONCE, dim=1), ridges.split(COLUMNS_AT_ONCE), strict=True)
    solutions = torch.cat([_minimize(with_one, y, ridge, precondition, tolerance) for y, ridge in blocks], dim=1)
    return solutions[:-1], solutions[-1]


def _preconditioner(rows: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """An approximate inverse of (covariance + ridge), for gradients (dimensions + 1, problems) and ridges (problems,).

    It inverts the largest eigenvalues, and takes all others as equal to the smallest of those. The intercept is a
    separate direction, because the rows are centered.
    """
    if rows.shape[1] <= 2 * EIGENVALUES:
        values, vectors = torch.linalg.eigh((rows.T @ rows).double())
        values, vectors = values.clamp(min=0).to(rows.dtype), vectors.to(rows.dtype)
    else:
        with torch.random.fork_rng():
            seed_generators(0)
            _, roots, vectors = torch.svd_lowrank(rows, q=min(EIGENVALUES, len(rows)))
        values = roots**2
    floor = values.min()
    vectors = torch.block_diag(vectors, vectors.new_ones(1, 1))
    values = torch.cat([values, values.new_tensor([len(rows)])])[:, None]  # (eigenvalues + 1, 1)

    def inverse(gradient: Tensor, ridges: Tensor) -> Tensor:
        excess = 1 - (floor + ridges) / (values + ridges)
        return (gradient - vectors @ (excess * (vectors.T @ gradient))) / (floor + ridges)

    return inverse


def _minimize(
    rows: Tensor, signs: Tensor, ridges: Tensor, precondition: Callable[[Tensor, Tensor], Tensor], tolerance: float
) -> Tensor:
    """Minimize ridge/2 |w|^2 + 1/2 sum max(0, 1 - y (rows w))^2 in each column.

    Returns weights (dimensions, problems) of rows (rows, dimensions), signs (rows, problems) and ridges (problems,).
    """
    solution = rows.new_zeros(rows.shape[1], signs.shape[1])
    left = torch.arange(signs.shape[1], device=rows.device)
    now = {"weights": solution.clone(), "scores": torch.zeros_like(signs), "signs": signs, "ridges": ridges}
    for _ in range(MOST_STEPS):
        slack = now["signs"] * (1 - now["signs"] * now["scores"]).relu()
        descent = rows.T @ slack - now["ridges"] * now["weights"]
        step = precondition(descent, now["ridges"])
        promise = (descent * step).sum(0)
        objective = now["ridges"] * (now["weights"] ** 2).sum(0) + (slack**2).sum(0)
        if "direction" in now:
            turn = ((descent - now["descent"]) * step).sum(0) / now["promise"]
            step = step + turn.clamp(min=0) * now["direction"]
        now |= {"descent": descent, "promise": promise, "direction": step}
        going = promise > tolerance * objective
        if not going.all():
            solution[:, left[~going]] = now["weights"][:, ~going]
            left, now = left[going], {name: tensor[..., going] for name, tensor in now.items()}
            if not len(left):
                return solution
        change = rows @ now["direction"]  # (rows, problems)
        length = _line_search(now, change)
        now["weights"] = now["weights"] + length * now["direction"]
        now["scores"] = now["scores"] + length * change
    warnings.warn(f"{len(left)} linear SVMs are not solved after {MOST_STEPS} steps", stacklevel=2)
    solution[:, left] = now["weights"]
    return solution


def _line_search(now: dict[str, Tensor], change: Tensor) -> Tensor:
    """The step length to the minimum along each problem's direction, (problems,), by Newton's method."""
    ridges, direction = now["ridges"], now["direction"]
    slope = ridges * (direction * now["weights"]).sum(0)
    bend = ridges * (direction**2).sum(0)
    length = torch.zeros_like(ridges)
    for _ in range(LINE_STEPS):
        margin = 1 - now["signs"] * (now["scores"] + length * change)
        active = torch.where(margin > 0, now["signs"], 0) * change
        first = slope + length * bend - (active * margin).sum(0)
        second = bend + (active**2).sum(0)
        length = length - first / second.clamp(min=1e-30)
    return length
