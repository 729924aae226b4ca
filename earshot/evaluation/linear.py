"""Linear classifiers: one-vs-rest for all classes and all C at once, by a squared hinge (SVM) or a logistic loss.

Each class minimizes, with the bias as one more feature (Fan et al. 2008, LIBLINEAR, section 2 and appendix),

    1/2 (|w|^2 + b^2) + C sum_i loss(y_i (w x_i + b)),        y_i in {1, -1},

where loss(m) is max(0, 1 - m)^2 or log(1 + exp(-m)), and a row with y_i = 0 does not count, as in scikit-learn's
LinearSVC and LogisticRegression (liblinear). The rows x are centered on their mean first: otherwise the cost on b would
favor classifiers that use the mean row as an intercept.

The problems of all classes and C share their matrix products, which makes them fast:

1. With fewer rows n than dimensions d, the rows are replaced by those of the Cholesky factor of their Gram matrix
   (n, n): all inner products, and so the classifiers, stay the same.
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
from torch.nn.functional import softplus

from earshot.networks.device import get_device, seed_generators

# A problem is solved when one more preconditioned gradient step would gain less than this share of the objective. The
# final classifier has a smaller tolerance than those that only select C.
TOLERANCE = 1e-6
CHOICE_TOLERANCE = 3e-5
MOST_STEPS = 1000
USUAL_STEPS = 40
EIGENVALUES = 128
LINE_STEPS = 3  # Newton steps on a convex function of one variable
# Added to the diagonal of the Gram matrix, as a share of its mean: the first value above the rounding of float32, which
# is larger if a few directions hold all the variance. All but the last are far below any 1 / C.
JITTERS = 1e-5, 1e-4, 1e-3, 1e-2
COLUMNS_AT_ONCE = 1024  # problems solved together: bounds the memory where there are hundreds of classes


@dataclass(frozen=True)
class Loss:
    """A loss of scores, for labels y in 1, -1, or 0 for a row that does not count.

    Args:
        words: the name of the classifiers that minimize it.
        ridge: of a C: the weight of |w|^2 / 2 beside the sum of the losses in `double` / 2.
        curvature: the largest second derivative.
        descent: of labels and scores (rows, problems): minus the derivative by the scores, in their shape.
        double: of labels, scores and their descent: twice the sum over the rows, (problems,).
        along: of labels, scores and a change of the scores: the first and the second derivative along it, (problems,).
    """

    words: str
    ridge: Callable[[float], float]
    curvature: float
    descent: Callable[[Tensor, Tensor], Tensor]
    double: Callable[[Tensor, Tensor, Tensor], Tensor]
    along: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _hinge_along(signs: Tensor, scores: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    margin = 1 - signs * scores
    active = torch.where(margin > 0, signs, 0) * change
    return -(active * margin).sum(0), (active**2).sum(0)


def _logistic_along(signs: Tensor, scores: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    wrong = torch.sigmoid(-signs * scores)  # the probability of the other class
    return -(signs * wrong * change).sum(0), (signs.abs() * wrong * (1 - wrong) * change**2).sum(0)


SQUARED_HINGE = Loss(
    "linear SVMs",
    ridge=lambda cost: 1 / (2 * cost),
    curvature=1.0,
    descent=lambda signs, scores: signs * (1 - signs * scores).relu(),
    double=lambda signs, scores, descent: (descent**2).sum(0),
    along=_hinge_along,
)
LOGISTIC = Loss(
    "logistic regressions",
    ridge=lambda cost: 1 / cost,
    curvature=0.25,
    descent=lambda signs, scores: signs * torch.sigmoid(-signs * scores),
    double=lambda signs, scores, descent: 2 * (signs.abs() * softplus(-signs * scores)).sum(0),
    along=_logistic_along,
)


@dataclass(frozen=True)
class LinearClassifiers:
    """Those of every class for every C: weights (costs, dimensions, classes), intercepts (costs, 1, classes)."""

    weights: Tensor
    intercepts: Tensor

    def scores(self, rows: Tensor) -> np.ndarray:
        """Decision values (costs, rows, classes) of rows (rows, dimensions)."""
        costs, dimensions, classes = self.weights.shape
        flat = rows.to(self.weights.device) @ self.weights.transpose(0, 1).reshape(dimensions, costs * classes)
        return (flat.view(-1, costs, classes).transpose(0, 1) + self.intercepts).cpu().numpy()


def fit(
    rows: Tensor,
    labels: Tensor,
    costs: Sequence[float],
    scale: float = 1.0,
    *,
    loss: Loss,
    tolerance: float = TOLERANCE,
) -> LinearClassifiers:
    """Fit the classifiers of all classes for all `costs` to rows times `scale`; they take rows without the scale.

    Args:
        rows: float32, (rows, dimensions).
        labels: float32, (rows, classes), 1, -1, or 0 for a row that a class ignores.
        costs: values of C.
        loss: SQUARED_HINGE or LOGISTIC.
        tolerance: the smallest decrease of a step, as a share of the objective.
    """
    rows, labels = rows.to(get_device()), labels.to(get_device())
    mean = rows.mean(0)
    centered = (rows - mean) * scale
    (count, dimensions), classes = rows.shape, labels.shape[1]
    ridges = torch.tensor([loss.ridge(cost) for cost in costs], device=rows.device).repeat_interleave(classes)
    signs = labels.repeat(1, len(costs))  # (rows, costs * classes)
    # The Gram matrix costs n^2 d, and saves n (d - n) in each of two products a problem and step.
    if count < dimensions and count * dimensions < 2 * USUAL_STEPS * len(ridges) * (dimensions - count):
        factor = _gram_factor(centered)
        reduced, intercepts = _solve(factor, signs, ridges, loss, tolerance)
        weights = centered.T @ torch.linalg.solve_triangular(factor.T, reduced, upper=True)
    else:
        weights, intercepts = _solve(centered, signs, ridges, loss, tolerance)
    weights *= scale
    intercepts = intercepts - mean @ weights
    return LinearClassifiers(
        weights.view(dimensions, len(costs), classes).transpose(0, 1), intercepts.view(len(costs), 1, classes)
    )


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


def _solve(rows: Tensor, signs: Tensor, ridges: Tensor, loss: Loss, tolerance: float) -> tuple[Tensor, Tensor]:
    """Weights (dimensions, problems) and intercepts (problems,) for centered rows, a block of problems at a time."""
    precondition = _preconditioner(rows)
    with_one = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)  # the intercept is the last weight
    blocks = zip(signs.split(COLUMNS_AT_ONCE, dim=1), ridges.split(COLUMNS_AT_ONCE), strict=True)
    solutions = torch.cat([_minimize(with_one, y, ridge, precondition, loss, tolerance) for y, ridge in blocks], dim=1)
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
    rows: Tensor,
    signs: Tensor,
    ridges: Tensor,
    precondition: Callable[[Tensor, Tensor], Tensor],
    loss: Loss,
    tolerance: float,
) -> Tensor:
    """Minimize ridge/2 |w|^2 + 1/2 `loss.double` of the scores rows w in each column.

    Returns weights (dimensions, problems) of rows (rows, dimensions), signs (rows, problems) and ridges (problems,).
    """
    solution = rows.new_zeros(rows.shape[1], signs.shape[1])
    left = torch.arange(signs.shape[1], device=rows.device)
    now = {"weights": solution.clone(), "scores": torch.zeros_like(signs), "signs": signs, "ridges": ridges}
    for _ in range(MOST_STEPS):
        of_scores = loss.descent(now["signs"], now["scores"])
        descent = rows.T @ of_scores - now["ridges"] * now["weights"]
        step = precondition(descent, now["ridges"] / loss.curvature) / loss.curvature
        promise = (descent * step).sum(0)
        doubled = loss.double(now["signs"], now["scores"], of_scores)
        objective = now["ridges"] * (now["weights"] ** 2).sum(0) + doubled
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
        length = _line_search(now, change, loss)
        now["weights"] = now["weights"] + length * now["direction"]
        now["scores"] = now["scores"] + length * change
    warnings.warn(f"{len(left)} {loss.words} are not solved after {MOST_STEPS} steps", stacklevel=2)
    solution[:, left] = now["weights"]
    return solution


def _line_search(now: dict[str, Tensor], change: Tensor, loss: Loss) -> Tensor:
    """The step length to the minimum along each problem's direction, (problems,), by Newton's method."""
    ridges, direction = now["ridges"], now["direction"]
    slope = ridges * (direction * now["weights"]).sum(0)
    bend = ridges * (direction**2).sum(0)
    length = torch.zeros_like(ridges)
    for _ in range(LINE_STEPS):
        first, second = loss.along(now["signs"], now["scores"] + length * change, change)
        length = length - (slope + length * bend + first) / (bend + second).clamp(min=1e-30)
    return length
