"""Scores of a ranking, of a classification and of a detection."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RECALL_LEVELS = np.linspace(0, 1, 11)  # Everingham et al. 2010, section 4.2
SAME_OBJECT = 0.5  # overlap from which a detection shows an object (section 4.3)


@dataclass(frozen=True)
class Found:
    """What a detector found of one class in one picture.

    Args:
        boxes: (detections, 4); left, top, right, bottom edges in px.
        scores: (detections,).
    """

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Shown:
    """The objects of one class in one picture.

    Args:
        boxes: (objects, 4), as in Found.
        difficult: bool, (objects,): neither right nor wrong to find.
    """

    boxes: np.ndarray
    difficult: np.ndarray


def average_precision(scores: np.ndarray, labels: np.ndarray, positives: int | None = None) -> float:
    """The 11-point interpolated average precision of VOC2007.

    At each recall level 0, 0.1 ... 1 the highest precision at that recall or beyond, averaged over the eleven
    (Everingham et al. 2010, section 4.2). Pictures of equal score enter together, so that the order of the rows
    cannot change the score; a constant score gets the share of positives.

    Args:
        scores: (pictures,), higher for a more likely positive.
        labels: (pictures,), 1 positive, -1 negative, 0 difficult: left out, neither right nor wrong.
        positives: how many there are, where the ranking may miss some; by default those in it. A recall level that is
            never reached counts as zero.

    Raises:
        ValueError: no picture is positive, or a score is not a number.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    positives = int((labels == 1).sum()) if positives is None else positives
    if not positives:
        raise ValueError("no picture is positive: average precision is undefined")
    counted = labels != 0
    order = np.argsort(-scores[counted], kind="stable")
    ranked, right = scores[counted][order], labels[counted][order] == 1
    last = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]  # of each run of equal scores
    ends = np.flatnonzero(last)
    found = np.cumsum(right)[ends]
    precision, recall = found / (ends + 1), found / positives
    # 1e-12: a recall of 0.3 that floating point holds as 0.29999 still reaches the level 0.3.
    return float(np.mean([precision[recall >= level - 1e-12].max(initial=0) for level in RECALL_LEVELS]))


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


def detection_precision(found: Sequence[Found], shown: Sequence[Shown]) -> float:
    """The 11-point average precision of detections of one class, both a row a picture.

    Objects that no detection shows count in the recall (Everingham et al. 2010, section 4.3).

    Raises:
        ValueError: there is no object but difficult ones.
    """
    scores = np.concatenate([each.scores for each in found])
    labels = np.concatenate([judge_detections(*both) for both in zip(found, shown, strict=True)])
    return average_precision(scores, labels, sum(int((~objects.difficult).sum()) for objects in shown))


def judge_detections(found: Found, shown: Shown) -> np.ndarray:
    """Which detections of a picture are right: (detections,), 1 right, -1 wrong, 0 of a difficult object.

    A detection is compared with the object that it overlaps most, and is right where they overlap by half or more. Of
    several of the same object the one of the highest score is right, and the others are wrong.
    """
    labels = np.full(len(found.scores), -1)
    if not len(labels) or not len(shown.boxes):
        return labels
    overlaps = overlap(found.boxes, shown.boxes)  # (detections, objects)
    nearest = overlaps.argmax(1)
    hits = overlaps.max(1) >= SAME_OBJECT
    labels[hits & shown.difficult[nearest]] = 0
    ranked = np.argsort(-found.scores, kind="stable")
    ranked = ranked[(hits & ~shown.difficult[nearest])[ranked]]
    _, first = np.unique(nearest[ranked], return_index=True)
    labels[ranked[first]] = 1
    return labels


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m).

    Boxes are edges in px: left, top, right, bottom. That is VOC's measure, which counts whole pixels, since a box from
    its pixel 3 to its pixel 5 goes from the edge 2 to the edge 5.
    """
    first, last = np.maximum(one[:, None, :2], other[:, :2]), np.minimum(one[:, None, 2:], other[:, 2:])
    shared = (last - first).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1] - shared)
