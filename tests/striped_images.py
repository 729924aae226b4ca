"""Images whose stripes reveal their classes, and a small VOC2007 of them in the official layout."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

VOC_CLASSES = ("aeroplane", "cow", "tvmonitor")


def draw_image(file: Path, kinds: set[int], seed: int) -> None:
    """Horizontal, vertical or diagonal stripes, one kind for each class, on a background of any color."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:90, :120]
    image = rng.uniform(60, 160, 3) + rng.normal(0, 8, (90, 120, 3))
    for kind in kinds:
        wave = ((row, column, row + column)[kind] + rng.uniform(0, 8)) // 4 % 2
        image += 50 * wave[..., None] - 25
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, quality=90)


def write_voc_dataset(folder: Path, sizes: Mapping[str, int]) -> None:
    """Write VOCdevkit below a folder: several classes an image, some difficult; `sizes` of train, val, test."""
    year, number, rng = folder / "VOCdevkit" / "VOC2007", 0, np.random.default_rng(1)
    sets = year / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for split, size in sizes.items():
        lists: dict[str, list[str]] = {name: [] for name in ("", *VOC_CLASSES)}
        for index in range(size):
            number += 1
            labels = [1 if kind == index % 3 or rng.random() < 0.2 else -1 for kind in range(3)]
            draw_image(year / "JPEGImages" / f"{number:06d}.jpg", {k for k in range(3) if labels[k] == 1}, number)
            if index in (3, 4):
                labels[(index + 1) % 3] = 0
            lists[""].append(f"{number:06d}\n")
            for name, label in zip(VOC_CLASSES, labels, strict=True):
                lists[name].append(f"{number:06d} {label:2d}\n")
        for name, lines in lists.items():
            (sets / f"{name}_{split}.txt".removeprefix("_")).write_text("".join(lines))
