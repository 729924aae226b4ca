"""Units against the boxes of annotated pictures, the measure of Network Dissection (Bau 2017, section 2).

What a unit picks out of a picture is where its map, scaled to the picture, reaches the unit's threshold. It is
compared with what a class covers by the intersection over the union, both summed over all pictures. Here boxes stand
for the masks of the paper, and a unit that covers an object just covers its box in part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from earshot.evaluation.image_files import require_images
from earshot.evaluation.images.voc_annotations import Objects, annotation_of, read_objects
from earshot.evaluation.images.voc_lists import read_dataset
from earshot.explanation.receptive_fields import scaled

RASTER = 112  # px a side to which maps are scaled and on which boxes are drawn; half of 224 as in Bau's release
UNITS_AT_ONCE = 256
ROUNDING = np.float32(1e-5)  # of what lies between two equal values of a map


@dataclass(frozen=True)
class AnnotatedImages:
    """The pictures of the test split of a VOC data_dir.

    Args:
        classes: in order.
        files: of the pictures.
        shown: which classes each picture shows, difficult objects aside, bool (pictures, classes).
        boxed: whether there are annotations with boxes.
    """

    classes: list[str]
    files: list[Path]
    shown: np.ndarray
    boxed: bool

    def objects(self, number: int) -> Objects:
        """The objects of a picture, difficult ones too. Raises EarshotError as `read_objects` does."""
        return read_objects(annotation_of(self.files[number]), self.classes)


def read_annotated(data_dir: Path) -> AnnotatedImages:
    """The images of a folder. Raises EarshotError for another layout than VOC2007's, and where an image is missing."""
    classes, splits = read_dataset(data_dir)
    files, labels = splits["test"]
    require_images(files)
    return AnnotatedImages(classes, files, labels == 1, annotation_of(files[0]).parent.is_dir())


def draw_boxes(objects: Objects) -> tuple[np.ndarray, Tensor]:
    """What the classes of a picture cover: their numbers (present,), and float32 (RASTER * RASTER, present) of 0 and 1.

    The picture is squeezed to RASTER x RASTER px; a px whose middle lies in a box is covered.
    """
    middles = (np.arange(RASTER) + 0.5) / RASTER
    present = np.unique(objects.classes)
    covered = np.zeros((RASTER, RASTER, len(present)), np.float32)
    for box, kind in zip(objects.boxes, np.searchsorted(present, objects.classes), strict=True):
        left, top, right, bottom = box / np.array([objects.width, objects.height] * 2)
        rows, columns = (top <= middles) & (middles < bottom), (left <= middles) & (middles < right)
        covered[..., kind] = np.maximum(covered[..., kind], rows[:, None] & columns)
    return present, torch.from_numpy(covered.reshape(-1, len(present)))


class Overlap:
    """The px that units pick out and that classes cover, summed over pictures.

    Args:
        thresholds: from which on a unit picks a px out, (units,); at 0 it picks those above.
        classes: how many there are.
        rows, columns: what scales maps to RASTER px, (RASTER, height) and (RASTER, width).
    """

    def __init__(self, thresholds: np.ndarray, classes: int, rows: Tensor, columns: Tensor) -> None:
        least = np.maximum(thresholds * (1 - ROUNDING), np.finfo(np.float32).tiny)
        self.thresholds = torch.from_numpy(least)[:, None, None]
        self.rows, self.columns = rows, columns
        self.picked, self.covered = np.zeros(len(thresholds)), np.zeros(classes)
        self.both = np.zeros((len(thresholds), classes))

    def add(self, maps: Tensor, present: np.ndarray, covered: Tensor) -> None:
        """A picture: float32 maps (units, height, width), and its boxes as `draw_boxes` gives them."""
        self.covered[present] += covered.sum(0).numpy()
        # A scaled map is nowhere above the map's maximum.
        reaching = (maps.amax((1, 2), keepdim=True) >= self.thresholds).flatten().nonzero()[:, 0]
        for part in reaching.split(UNITS_AT_ONCE):
            picked = (scaled(maps[part], self.rows, self.columns) >= self.thresholds[part]).flatten(1).float()
            units = part.numpy()
            self.picked[units] += picked.sum(1).numpy()
            self.both[np.ix_(units, present)] += (picked @ covered).numpy()

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of every unit with every class: (units, classes), 0 where neither is anywhere."""
        union = self.picked[:, None] + self.covered - self.both
        return np.divide(self.both, union, out=np.zeros_like(union), where=union > 0)


def best_classes(iou: np.ndarray, classes: Sequence[str]) -> list[tuple[str, float]]:
    """The class whose boxes each unit covers best, and how well; "" for one that covers none."""
    return [(classes[row.argmax()] if row.any() else "", float(row.max())) for row in iou]
