"""VOC's annotations: the objects of an image.

Boxes are edges in px: left, top, right, bottom. VOC's boxes are inclusive pixels counted from 1: pixels 3 to 5 become
the edges 2 and 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.xml_files import parse_xml

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"0": False, "1": True}
MAX_PIXELS = 1 << 15  # side of an image


@dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Args:
        width, height: of the image in px.
        boxes: float64 (objects, 4).
        classes: int64 (objects,).
        difficult, truncated: bool (objects,).
    """

    width: int
    height: int
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    truncated: np.ndarray


def annotation_of(image: Path) -> Path:
    """The annotation file of an image in JPEGImages."""
    return image.parent.parent / "Annotations" / f"{image.stem}.xml"


def read_objects(file: Path, classes: Sequence[str]) -> Objects:
    """The objects of these classes in an annotation, with the classes' indices.

    Raises EarshotError for a file that is missing, no XML, longer than 1 MB or declares a document type (entities can
    grow without bound), for a missing or invalid value, and for a box that is not inside the image.
    """
    root = parse_xml(file)
    width, height = (int(_number(file, root, f"size/{side}", 1, MAX_PIXELS)) for side in ("width", "height"))
    entries = [entry for entry in root.findall("object") if _text(file, entry, "name") in classes]
    return Objects(
        width=width,
        height=height,
        boxes=np.array([_box(file, entry, width, height) for entry in entries], np.float64).reshape(-1, 4),
        classes=np.array([classes.index(_text(file, entry, "name")) for entry in entries], np.int64),
        difficult=np.array([_flag(file, entry, "difficult") for entry in entries], bool),
        truncated=np.array([_flag(file, entry, "truncated") for entry in entries], bool),
    )


def _box(file: Path, entry: ElementTree.Element, width: int, height: int) -> list[float]:
    limits = (width, height, width, height)
    left, top, right, bottom = (
        _number(file, entry, f"bndbox/{corner}", 1, limit) for corner, limit in zip(CORNERS, limits, strict=True)
    )
    if left > right or top > bottom:
        actual = f"from {left:g}, {top:g} to {right:g}, {bottom:g}"
        raise EarshotError(
            f"{file}: a box goes {actual}, expected xmin, ymin up to xmax, ymax; restore the official file"
        )
    return [left - 1, top - 1, right, bottom]


def _number(file: Path, entry: ElementTree.Element, name: str, lowest: int, highest: int) -> float:
    text = _text(file, entry, name)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not lowest <= value <= highest:
        raise EarshotError(f"{file}: {name} is {text!r:.60}, expected a number from {lowest} to {highest}")
    return value


def _flag(file: Path, entry: ElementTree.Element, name: str) -> bool:
    text = _text(file, entry, name)
    if text not in FLAGS:
        raise EarshotError(f"{file}: {name} is {text!r:.60}, expected 0 or 1")
    return FLAGS[text]


def _text(file: Path, entry: ElementTree.Element, name: str) -> str:
    text = entry.findtext(name)
    if text is None:
        raise EarshotError(f"{file}: an annotation or object lacks {name}; restore the official file")
    return text.strip()
