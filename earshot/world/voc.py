"""A small benchmark in the layout of PASCAL VOC2007: images with several objects, boxes, flags, masks, image sets."""

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from earshot.core.files import write_atomically
from earshot.world.media import write_image
from earshot.world.scenes import VisibleObject, render_image
from earshot.world.sources import KINDS, generator

# The colors of VOC's masks: bit 7 - k of red, green and blue is bit 3k, 3k + 1 and 3k + 2 of the class.
PALETTE = np.array(
    [[sum((n >> 3 * k + c & 1) << 7 - k for k in range(8)) for c in range(3)] for n in range(256)], np.uint8
)
OBJECTS = (0.3, 0.4, 0.3)  # shares of images with one, two and three sources


def devkit(folder: Path) -> Path:
    """The folder of VOC2007 within a dataset."""
    return folder / "VOCdevkit" / "VOC2007"


def render_voc(folder: Path, seed: int, numbers: Iterable[int], *, image_size: int) -> None:
    """Render the images with these numbers, their annotations and their masks."""
    for number in numbers:
        rng = generator(seed, "voc kinds", number)
        kinds = tuple(rng.choice(KINDS, size=1 + rng.choice(3, p=OBJECTS)).tolist())
        image, objects, mask = render_image(seed, "voc", number, image_size=image_size, kinds=kinds)
        write_image(devkit(folder) / "JPEGImages" / f"{number:06d}.jpg", image)
        with write_atomically(devkit(folder) / "Annotations" / f"{number:06d}.xml") as temporary:
            temporary.write_text(annotation(number, image, objects), encoding="utf-8")
        write_mask(devkit(folder) / "SegmentationClass" / f"{number:06d}.png", mask)


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write the classes of px, uint8 (height, width), as a PNG with a palette, in which VOC keeps them."""
    image = Image.fromarray(mask, "L")
    image.putpalette(PALETTE.tobytes())
    with write_atomically(path) as temporary:
        image.save(temporary, "PNG")


def annotation(number: int, image: np.ndarray, objects: list[VisibleObject]) -> str:
    """The XML of an image. As in VOC, boxes are in pixels counted from 1, both ends included."""
    root = ElementTree.Element("annotation")
    _add(root, folder="VOC2007", filename=f"{number:06d}.jpg")
    height, width, depth = image.shape
    _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=depth)
    _add(root, segmented=0)
    for each in objects:
        entry = ElementTree.SubElement(root, "object")
        _add(entry, name=each.kind, pose="Unspecified", truncated=int(each.truncated), difficult=int(each.difficult))
        left, top, right, bottom = each.box
        _add(ElementTree.SubElement(entry, "bndbox"), xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, **fields: object) -> None:
    for name, value in fields.items():
        ElementTree.SubElement(parent, name).text = str(value)


def write_image_sets(folder: Path, *, train: int, val: int, test: int) -> None:
    """Write ImageSets/Main and Segmentation: the images in order are train, val, test; trainval is the first two."""
    numbers = range(1, train + val + test + 1)
    present = {number: _labels(devkit(folder) / "Annotations" / f"{number:06d}.xml") for number in numbers}
    sets = {"train": numbers[:train], "val": numbers[train : train + val], "trainval": numbers[: train + val],
            "test": numbers[train + val :]}  # fmt: skip
    for name, members in sets.items():
        for task in ("Main", "Segmentation"):
            _write_lines(folder, name, [f"{number:06d}" for number in members], task)
        for kind in KINDS:
            lines = [f"{number:06d} {present[number].get(kind, -1):2d}" for number in members]
            _write_lines(folder, f"{kind}_{name}", lines)


def _labels(path: Path) -> dict[str, int]:
    """1 for the kinds in an image, 0 for those with only difficult objects."""
    labels: dict[str, int] = {}
    for entry in ElementTree.parse(path).iter("object"):
        kind, clear = entry.findtext("name", ""), int(entry.findtext("difficult") == "0")
        labels[kind] = max(clear, labels.get(kind, 0))
    return labels


def _write_lines(folder: Path, name: str, lines: list[str], task: str = "Main") -> None:
    with write_atomically(devkit(folder) / "ImageSets" / task / f"{name}.txt") as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
