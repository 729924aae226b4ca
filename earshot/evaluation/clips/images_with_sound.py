"""Images with their sound and boxes around what is heard, in the layouts of VGG-SS and Flickr-SoundNet.

A data_dir holds `frames/<name>.jpg`, `audio/<name>.wav` (or .flac), and the boxes:

- `vggss.json`, a list of {"file", "class", "bbox"} with boxes [left, top, right, bottom] in shares of width and height
  (Chen 2021); the truth is 1 inside any box. A picture whose boxes are empty counts, as there, and scores 0;
- or `Annotations/<name>.xml`, a box of each annotator in pixels of a picture of 256 x 256 (Senocak 2018); the truth is
  the share of two annotators that agree, at most 1.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from earshot.core.errors import EarshotError
from earshot.evaluation.clips.localization_maps import SIDE
from earshot.evaluation.image_files import require_images

FLICKR_SIDE = 256  # px in which Flickr-SoundNet's boxes are drawn
AGREE = 2  # annotators of Flickr-SoundNet whose agreement counts as certain
LAYOUT = "frames, audio, and vggss.json or Annotations"
Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of width and height


@dataclass(frozen=True)
class LocalizationExample:
    """A picture with its sound, the class of what is heard, and the boxes around it."""

    frame: Path
    sound: Path
    kind: str
    boxes: tuple[Box, ...]
    agree: int  # boxes that must cover a place for it to count wholly

    def truth(self) -> np.ndarray:
        """How much every place belongs to what is heard, 0 to 1: float64 (SIDE, SIDE)."""
        covered = np.zeros((SIDE, SIDE))
        for left, top, right, bottom in (np.array(box).clip(0, 1) * SIDE for box in self.boxes):
            covered[int(top) : int(bottom), int(left) : int(right)] += 1
        return np.minimum(covered / self.agree, 1)


def read_dataset(data_dir: Path) -> list[LocalizationExample]:
    """The pictures of a data_dir in VGG-SS's or Flickr-SoundNet's layout, in the order of their names.

    Raises EarshotError for another layout, for a picture or sound that is missing, and for boxes that are none.
    """
    if (data_dir / "vggss.json").is_file():
        listed = _vggss(data_dir / "vggss.json")
    elif (data_dir / "Annotations").is_dir():
        listed = [_flickr(file) for file in sorted((data_dir / "Annotations").glob("*.xml"))]
    else:
        raise EarshotError(f"{data_dir}: wanted {LAYOUT}; mend evaluate.localization.data_dir")
    if not listed:
        raise EarshotError(f"{data_dir}: lists no pictures, wanted {LAYOUT}")
    agree = 1 if (data_dir / "vggss.json").is_file() else AGREE
    found = [
        LocalizationExample(
            data_dir / "frames" / f"{name}.jpg", _sound_file(data_dir / "audio", name), kind, boxes, agree
        )
        for name, kind, boxes in sorted(listed)
    ]
    require_images([each.frame for each in found])
    return found


def _sound_file(folder: Path, name: str) -> Path:
    places = [folder / f"{name}{suffix}" for suffix in (".wav", ".flac")]
    there = [place for place in places if place.is_file()]
    if not there:
        raise EarshotError(f"{places[0]}: no such sound, but the benchmark's list names it; restore the files")
    return there[0]


def _vggss(file: Path) -> list[tuple[str, str, tuple[Box, ...]]]:
    """Names, classes and boxes of vggss.json."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return [(_name(file, e["file"]), str(e["class"]), _boxes(file, e["file"], e["bbox"], 1)) for e in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EarshotError(f"{file}: cannot be read ({error!r:.200}); wanted a list of file, class and bbox") from None


def _flickr(file: Path) -> tuple[str, str, tuple[Box, ...]]:
    """Name, class and boxes of one picture: the numbers of every <bbox>, left, top, right, bottom, in its last four."""
    try:
        found = [[float(each.text or "") for each in list(box)[-4:]] for box in ElementTree.parse(file).iter("bbox")]
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); wanted an annotator's <bbox> of four pixels") from None
    return file.stem, "sound", _boxes(file, file.stem, found, FLICKR_SIDE)


def _name(file: Path, name: str) -> str:
    if Path(name).name != name:
        raise EarshotError(f"{file}: names picture {name!r}, wanted a plain name such as zpWuikVorYg_000032")
    return name


def _boxes(file: Path, name: str, found: Sequence[Sequence[float]], side: float) -> tuple[Box, ...]:
    """Boxes in shares of the picture, cut at its edges; some of VGG-SS are empty, and one has an edge at -2.9e16."""
    boxes = [np.clip(np.array(box, float) / side, 0, 1).tolist() for box in found]
    if not boxes or not all(len(box) == 4 and np.isfinite(box).all() for box in boxes):
        raise EarshotError(f"{file}: {name} has the boxes {found!r:.100}, wanted left, top, right, bottom")
    return tuple(tuple(box) for box in boxes)
