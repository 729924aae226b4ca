"""The lists of PASCAL VOC2007: the images of train, val and test, and their classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.text import read_lines

SPLITS = ("train", "val", "test")
LAYOUT = "VOCdevkit/VOC2007 with JPEGImages and ImageSets/Main"
Split = tuple[list[Path], np.ndarray]


def read_dataset(data_dir: Path) -> tuple[list[str], dict[str, Split]]:
    """The classes, and for train, val and test the images and their labels: float32 (images, classes), 1, -1 or 0.

    `data_dir` is VOC2007, or a folder of VOC2007 or VOCdevkit. Raises EarshotError for another layout, and for a class
    without positive images in some split.
    """
    roots = [data_dir / "VOCdevkit" / "VOC2007", data_dir / "VOC2007", data_dir]
    roots = [root for root in roots if (root / "ImageSets").is_dir()]
    if not roots:
        raise EarshotError(f"{data_dir}: holds no VOC2007, expected {LAYOUT}; correct the benchmark's data_dir")
    sets = roots[0] / "ImageSets" / "Main"
    classes = sorted(file.stem.removesuffix("_train") for file in sets.glob("*_train.txt"))
    if not classes:
        raise EarshotError(f"{sets}: holds no lists such as aeroplane_train.txt; restore the official ImageSets")
    splits = {}
    for split in SPLITS:
        names = [line[0] for line in _read_lines(sets / f"{split}.txt")]
        labels = np.stack([_read_class(sets / f"{name}_{split}.txt", names) for name in classes], axis=1)
        for name, column in zip(classes, labels.T, strict=True):
            if not (column == 1).any():
                raise EarshotError(f"{sets / f'{name}_{split}.txt'}: no image shows a {name}, expected at least one")
        splits[split] = [roots[0] / "JPEGImages" / f"{name}.jpg" for name in names], labels
    return classes, splits


def _read_class(file: Path, names: Sequence[str]) -> np.ndarray:
    """The labels of one class for the images of a split, in their order."""
    labels = {}
    for number, line in enumerate(_read_lines(file), 1):
        if len(line) != 2 or line[1] not in ("1", "-1", "0"):
            raise EarshotError(f"{file}, line {number}: {' '.join(line)!r}, expected an image's name and 1, -1 or 0")
        labels[line[0]] = float(line[1])
    missing = [name for name in names if name not in labels]
    if missing:
        raise EarshotError(f"{file}: lacks image {missing[0]} of its split; restore the official ImageSets")
    return np.array([labels[name] for name in names], np.float32)


def _read_lines(file: Path) -> list[list[str]]:
    lines = [line.split() for line in read_lines(file, "restore the official ImageSets") if line]
    for line in lines:
        if "/" in line[0] or "\\" in line[0] or line[0].startswith("."):
            raise EarshotError(f"{file}: names image {line[0]!r}, expected a plain name such as 000005")
    return lines
