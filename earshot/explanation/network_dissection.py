"""The IoU of units with the boxes of annotated images, as in Network Dissection (Bau 2017, section 2).

A unit picks out the px of an image where its map, scaled to the image, reaches the unit's threshold. The IoU with a
class is the intersection over the union of these px and the px of the class, each summed over all images. Boxes stand
in for the masks of the paper, so a unit that covers an object exactly covers only a part of its box.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from earshot.core.errors import EarshotError
from earshot.evaluation.image_files import require_images
from earshot.evaluation.images.voc_annotations import Objects, annotation_of, read_objects
from earshot.evaluation.images.voc_lists import LAYOUT, has_voc2007, read_dataset
from earshot.explanation.receptive_fields import scaled
from earshot.media.guarded_files import IMAGE_SUFFIXES

RASTER = 112  # px per side of scaled maps and drawn boxes; half of 224, as in Bau's release
UNITS_AT_ONCE = 256
ROUNDING = np.float32(1e-5)  # tolerance for interpolation between two equal values of a map


@dataclass(frozen=True)
class AnnotatedImages:
    """The images of the test split of a VOC data_dir, or those of any folder.

    Args:
        root: the folder.
        classes: in order.
        files: of the images.
        displayed: the classes in each image, without difficult objects.
        boxed: whether annotations with boxes exist.
    """

    root: Path
    classes: list[str]
    files: list[Path]
    displayed: list[list[str]]
    boxed: bool

    @property
    def most_frequent(self) -> float:
        """The share of images with the most frequent class."""
        counts = Counter(name for names in self.displayed for name in names)
        return max(counts.values(), default=0) / len(self.files)

    def objects(self, number: int) -> Objects:
        """The objects of an image, including difficult ones. Raises EarshotError as `read_objects` does."""
        return read_objects(annotation_of(self.files[number]), self.classes)


def read_annotated(data_dir: Path) -> AnnotatedImages:
    """The test images of VOC2007 in a folder, or else all JPEG and PNG images below it, whose folders name the classes.

    Owens (2016, section A2) takes images of SUN and ImageNet. Images in the folder itself have no class. Links are not
    followed.

    Raises EarshotError if an image of VOC2007 is missing, or the folder has no image.
    """
    if not has_voc2007(data_dir):
        return _images_below(data_dir)
    classes, splits = read_dataset(data_dir)
    files, labels = splits["test"]
    require_images(files)
    displayed = [[name for name, label in zip(classes, row, strict=True) if label == 1] for row in labels.tolist()]
    return AnnotatedImages(data_dir, classes, files, displayed, annotation_of(files[0]).parent.is_dir())


def _images_below(folder: Path) -> AnnotatedImages:
    files = [
        Path(inner) / name
        for inner, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if name.lower().endswith(IMAGE_SUFFIXES) and not (Path(inner) / name).is_symlink()
    ]
    if not files:
        raise EarshotError(f"{folder}: holds no image, expected {LAYOUT}, or JPEG or PNG images in a folder per class")
    displayed = [[] if file.parent == folder else [file.parent.name] for file in files]
    return AnnotatedImages(folder, sorted({name for names in displayed for name in names}), files, displayed, False)


def draw_boxes(objects: Objects) -> tuple[np.ndarray, Tensor]:
    """The px covered by each class of an image: numbers (present,), float32 (RASTER * RASTER, present) of 0, 1.

    The image is scaled to RASTER x RASTER px; a px is covered if its middle lies in a box.
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
    """The px that units pick out and that classes cover, summed over images.

    Args:
        thresholds: the values at or above which a unit picks out a px, (units,); at 0, values above 0.
        classes: the number of classes.
        rows, columns: matrices that scale maps to RASTER px, (RASTER, height) and (RASTER, width).
    """

    def __init__(self, thresholds: np.ndarray, classes: int, rows: Tensor, columns: Tensor) -> None:
        least = np.maximum(thresholds * (1 - ROUNDING), np.finfo(np.float32).tiny)
        self.thresholds = torch.from_numpy(least)[:, None, None]
        self.rows, self.columns = rows, columns
        self.picked, self.covered = np.zeros(len(thresholds)), np.zeros(classes)
        self.both = np.zeros((len(thresholds), classes))

    def add(self, maps: Tensor, present: np.ndarray, covered: Tensor) -> None:
        """Add an image: float32 maps (units, height, width), and its boxes as `draw_boxes` returns them."""
        self.covered[present] += covered.sum(0).numpy()
        # A scaled map never exceeds the maximum of the map.
        reaching = (maps.amax((1, 2), keepdim=True) >= self.thresholds).flatten().nonzero()[:, 0]
        for part in reaching.split(UNITS_AT_ONCE):
            picked = (scaled(maps[part], self.rows, self.columns) >= self.thresholds[part]).flatten(1).float()
            units = part.numpy()
            self.picked[units] += picked.sum(1).numpy()
            self.both[np.ix_(units, present)] += (picked @ covered).numpy()

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of every unit with every class: (units, classes), 0 if both are empty."""
        union = self.picked[:, None] + self.covered - self.both
        return np.divide(self.both, union, out=np.zeros_like(union), where=union > 0)


def best_classes(iou: np.ndarray, classes: Sequence[str]) -> list[tuple[str, float]]:
    """The class whose boxes each unit covers best, and the IoU; "" for a unit that covers none."""
    return [(classes[row.argmax()] if row.any() else "", float(row.max())) for row in iou]
