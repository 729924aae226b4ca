"""Scores of a ranking, of a classification and of a detection."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rule = Literal["11-point", "area", "steps"]
RECALL_LEVELS = np.linspace(0, 1, 11)  # Everingham et al. 2010, section 4.2
SAME_OBJECT = 0.5  # least overlap of a correct detection (section 4.3)


@dataclass(frozen=True)
class Detections:
    """The detections of one class in one image.

    Args:
        boxes: (detections, 4); left, top, right, bottom edges in px.
        scores: (detections,).
    """

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class GroundTruth:
    """The objects of one class in one image.

    Args:
        boxes: (objects, 4), as in Detections.
        difficult: bool, (objects,): ignored, whether detected or not.
    """

    boxes: np.ndarray
    difficult: np.ndarray


def average_precision(
    scores: np.ndarray, labels: np.ndarray, positives: int | None = None, rule: Rule = "11-point"
) -> float:
    """The average precision of a ranking, by one of three rules.

    - `11-point`: the mean over the recall levels 0, 0.1 ... 1 of the highest precision at that recall or beyond
      (Everingham et al. 2010, section 4.2): VOC2007's own.
    - `area`: the area under that highest precision (VOC's development kit since 2010; py-faster-rcnn, voc_eval.py with
      use_07_metric off).
    - `steps`: the area under the precision as it is, a step for each recall (scikit-learn, average_precision_score).

    Images of equal score enter together, so that the order of the rows does not change the result; a constant score
    gets the share of positives by every rule.

    Args:
        scores: (images,), higher for a more likely positive.
        labels: (images,), 1 positive, -1 negative, 0 difficult and ignored.
        positives: the number of positives, if the ranking may miss some; by default those in it. A recall that is not
            reached counts as zero.
        rule: the definition.

    Raises:
        ValueError: no image is positive, or a score is not a number.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    positives = int((labels == 1).sum()) if positives is None else positives
    if not positives:
        raise ValueError("no image is positive: average precision is undefined")
    counted = labels != 0
    order = np.argsort(-scores[counted], kind="stable")
    ranked, right = scores[counted][order], labels[counted][order] == 1
    last = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]  # of each run of equal scores
    ends = np.flatnonzero(last)
    true_positives = np.cumsum(right)[ends]
    precision, recall = true_positives / (ends + 1), true_positives / positives
    if rule == "steps":
        return float(np.diff(recall, prepend=0) @ precision)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # at each recall or beyond
    if rule == "area":
        return float(np.diff(recall, prepend=0) @ highest)
    # 1e-12: a recall of 0.3 that rounding turns into 0.29999 still reaches the level 0.3.
    first = np.searchsorted(recall, RECALL_LEVELS - 1e-12)
    return float(np.mean(np.append(highest, 0)[first]))


def average_precisions(scores: np.ndarray, labels: np.ndarray, rule: Rule = "11-point") -> np.ndarray:
    """The average precision of each class, (classes,), of scores and labels (images, classes)."""
    columns = zip(scores.T, labels.T, strict=True)
    return np.array([average_precision(of_class, truth, rule=rule) for of_class, truth in columns])


def resampled_average_precision(
    scores: np.ndarray, labels: np.ndarray, counts: np.ndarray, rule: Rule = "11-point"
) -> np.ndarray:
    """The average precision of a class in resamples of its images, (draws,), as `average_precision` defines it.

    Args:
        scores, labels: (images,), as for `average_precision`.
        counts: how often each image occurs in each resample, (draws, images); each has a positive.
        rule: the definition.
    """
    counted = labels != 0
    order = np.argsort(-scores[counted], kind="stable")
    ranked, right = scores[counted][order], labels[counted][order] == 1
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])  # of each run of equal scores
    occurring = counts[:, counted][:, order]
    true_positives = np.cumsum(occurring * right, axis=1)[:, ends]
    precision = true_positives / np.maximum(np.cumsum(occurring, axis=1)[:, ends], 1)
    recall = true_positives / true_positives[:, -1:]
    if rule == "steps":
        return np.einsum("di,di->d", np.diff(recall, axis=1, prepend=0), precision)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if rule == "area":
        return np.einsum("di,di->d", np.diff(recall, axis=1, prepend=0), highest)
    first = np.stack([(recall < level - 1e-12).sum(1) for level in RECALL_LEVELS], axis=1)
    return np.take_along_axis(highest, first, axis=1).mean(1)


def resampled_map(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray, rule: Rule = "11-point") -> np.ndarray:
    """The mean average precision in resamples of the images, (draws,), of scores and labels (images, classes)."""
    columns = zip(scores.T, labels.T, strict=True)
    return np.mean([resampled_average_precision(one, truth, counts, rule) for one, truth in columns], axis=0)


def has_all_classes(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which resamples, counts (draws, images), have a positive image of every class of labels (images, classes)."""
    return ((counts @ (labels == 1)) > 0).all(1)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray, rule: Rule = "11-point") -> float:
    """The mean average precision over the classes of scores and labels (images, classes)."""
    return float(average_precisions(scores, labels, rule).mean())


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose highest score is that of a positive class; the first class wins a tie.

    Args:
        scores: (rows, classes).
        labels: (rows, classes), 1 for the class of the row, -1 for the others.
    """
    return float(np.mean(labels[np.arange(len(labels)), scores.argmax(1)] == 1))


def detection_precision(
    detections: Sequence[Detections], truths: Sequence[GroundTruth], rule: Rule = "11-point"
) -> float:
    """The average precision of detections of one class; both arguments have an entry per image.

    Missed objects lower the recall (Everingham et al. 2010, section 4.3).

    Raises:
        ValueError: there are no objects except difficult ones.
    """
    scores = np.concatenate([each.scores for each in detections])
    labels = np.concatenate([match_detections(*both) for both in zip(detections, truths, strict=True)])
    objects = sum(int((~each.difficult).sum()) for each in truths)
    return average_precision(scores, labels, objects, rule)


def match_detections(detections: Detections, truth: GroundTruth) -> np.ndarray:
    """The label of each detection in an image: (detections,), 1 correct, -1 wrong, 0 of a difficult object.

    A detection belongs to the object that it overlaps most, and is correct if they overlap by half or more. If several
    belong to the same object, the one of the highest score is correct and the others are wrong.
    """
    labels = np.full(len(detections.scores), -1)
    if not len(labels) or not len(truth.boxes):
        return labels
    overlaps = overlap(detections.boxes, truth.boxes)  # (detections, objects)
    nearest = overlaps.argmax(1)
    hits = overlaps.max(1) >= SAME_OBJECT
    labels[hits & truth.difficult[nearest]] = 0
    ranked = np.argsort(-detections.scores, kind="stable")
    ranked = ranked[(hits & ~truth.difficult[nearest])[ranked]]
    _, first = np.unique(nearest[ranked], return_index=True)
    labels[ranked[first]] = 1
    return labels


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m).

    Boxes are edges in px: left, top, right, bottom. This equals VOC's measure, which counts whole pixels, because
    pixels 3 to 5 lie between the edges 2 and 5.
    """
    first, last = np.maximum(one[:, None, :2], other[:, :2]), np.minimum(one[:, None, 2:], other[:, 2:])
    shared = (last - first).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1] - shared)
