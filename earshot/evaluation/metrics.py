"""Scores of a ranking and of a classification."""

import numpy as np

RECALL_LEVELS = np.linspace(0, 1, 11)  # Everingham et al. 2010, section 4.2


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The 11-point interpolated average precision of VOC2007.

    At each recall level 0, 0.1 ... 1 the highest precision at that recall or beyond, averaged over the eleven
    (Everingham et al. 2010, section 4.2). Pictures of equal score enter together, so that the order of the rows
    cannot change the score; a constant score gets the share of positives.

    Args:
        scores: (pictures,), higher for a more likely positive.
        labels: (pictures,), 1 positive, -1 negative, 0 difficult: left out, neither right nor wrong.

    Raises:
        ValueError: no picture is positive, or a score is not a number.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    if not (labels == 1).any():
        raise ValueError("no picture is positive: average precision is undefined")
    counted = labels != 0
    order = np.argsort(-scores[counted], kind="stable")
    ranked, right = scores[counted][order], labels[counted][order] == 1
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # last picture of each run of equal scores
    found = np.cumsum(right)[ends]
    precision, recall = found / (ends + 1), found / found[-1]
    # 1e-12: a recall of 0.3 that floating point holds as 0.29999 still reaches the level 0.3.
    return float(np.mean([precision[recall >= level - 1e-12].max() for level in RECALL_LEVELS]))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average precision of each class, (classes,), of scores and labels (pictures, classes)."""
    return np.array([average_precision(s, y) for s, y in zip(scores.T, labels.T, strict=True)])


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes of the average precision of scores and labels (pictures, classes)."""
    return float(average_precisions(scores, labels).mean())


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose highest score is that of a positive class; a tie goes to the first class.

    Args:
        scores: (rows, classes).
        labels: (rows, classes), 1 for the class of the row, -1 for the others.
    """
    return float(np.mean(labels[np.arange(len(labels)), scores.argmax(1)] == 1))
