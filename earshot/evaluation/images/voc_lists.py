"""The lists of PASCAL VOC2007: the images of train, val and test, and their classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.text import read_lines

SPLITS = ("train", "val", "test")
LAYOUT = "VOCdevkit/VOC2007 with JPEGImages and ImageSets/Main"
Split = tuple[list[Path], np.ndarray]


def has_voc2007(data_dir: Path) -> bool:
    """Whether a folder is VOC2007, or a folder of VOC2007 or VOCdevkit."""
    return bool(_roots(data_dir))


def _roots(data_dir: Path) -> list[Path]:
    roots = [data_dir / "VOCdevkit" / "VOC2007", data_dir / "VOC2007", data_dir]
    return [root for root in roots if (root / "ImageSets").is_dir()]


def read_dataset(data_dir: Path) -> tuple[list[str], dict[str, Split]]:
    """The classes, and for train, val and test the images and their labels: float32 (images, classes), 1, -1 or 0.

    `data_dir` is VOC2007, or a folder of VOC2007 or VOCdevkit. Raises EarshotError for another layout, for an image
    that is listed twice or in two splits, and for a class without positive images in some split.
    """
    roots = _roots(data_dir)
    if not roots:
        raise EarshotError(f"{data_dir}: holds no VOC2007, expected {LAYOUT}; correct the benchmark's data_dir")
    sets = roots[0] / "ImageSets" / "Main"
    classes = sorted(file.stem.removesuffix("_train") for file in sets.glob("*_train.txt"))
    if not classes:
        raise EarshotError(f"{sets}: holds no lists such as aeroplane_train.txt; restore the official ImageSets")
    splits: dict[str, Split] = {}
    lists: dict[str, Path] = {}  # of each image, the list that names it
    for split in SPLITS:
        file = sets / f"{split}.txt"
        names = [line[0] for _, line in _read_lines(file)]
        if shared := [name for name in names if name in lists]:
            other = lists[shared[0]].name
            raise EarshotError(
                f"{file}: {shared[0]} is in {other} too, expected in one; restore the official ImageSets"
            )
        lists |= dict.fromkeys(names, file)
        labels = np.stack([_read_class(sets / f"{name}_{split}.txt", names) for name in classes], axis=1)
        for name, column in zip(classes, labels.T, strict=True):
            if not (column == 1).any():
                raise EarshotError(f"{sets / f'{name}_{split}.txt'}: no image shows a {name}, expected at least one")
        splits[split] = [roots[0] / "JPEGImages" / f"{name}.jpg" for name in names], labels
    return classes, splits


def _read_class(file: Path, names: Sequence[str]) -> np.ndarray:
    """The labels of one class for the images of a split, in their order."""
    labels = {}
    for number, line in _read_lines(file):
        if len(line) != 2 or line[1] not in ("1", "-1", "0"):
            raise EarshotError(f"{file}, line {number}: {' '.join(line)!r}, expected an image's name and 1, -1 or 0")
        labels[line[0]] = float(line[1])
    missing = [name for name in names if name not in labels]
    if missing:
        raise EarshotError(f"{file}: lacks image {missing[0]} of its split; restore the official ImageSets")
    return np.array([labels[name] for name in names], np.float32)


def _read_lines(file: Path) -> list[tuple[int, list[str]]]:
    """The number and the words of each line; raises EarshotError for an image that two lines name."""
    lines = [
        (number, line.split())
        for number, line in enumerate(read_lines(file, "restore the official ImageSets"), 1)
        if line
    ]
    first: dict[str, int] = {}
    for number, (name, *_) in lines:
        if "/" in name or "\\" in name or name.startswith("."):
            raise EarshotError(f"{file}: names image {name!r}, expected a plain name such as 000005")
        if first.setdefault(name, number) != number:
            raise EarshotError(
                f"{file}, line {number}: lists {name} again after line {first[name]}, expected once; remove one of them"
            )
    return lines
