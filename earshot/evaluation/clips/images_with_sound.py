"""Images with their sound and boxes around its source, in the layouts of VGG-SS and Flickr-SoundNet.

A data_dir holds `frames/<name>.jpg`, `audio/<name>.wav` (or .flac), and the boxes:

- `vggss.json`, a list of {"file", "class", "bbox"} with boxes [left, top, right, bottom] in shares of width and height
  (Chen 2021); the truth is 1 inside any box. As in the original, an image with empty boxes counts and scores 0;
- or `Annotations/<name>.xml`, a box of each annotator in px of an image of 256 x 256 (Senocak 2018); the truth is the
  share of two annotators that agree, at most 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json
from earshot.core.untrusted import is_file, read_document
from earshot.core.xml_files import parse_xml
from earshot.evaluation.clips.localization_maps import SIDE
from earshot.evaluation.image_files import require_images

FLICKR_SIDE = 256  # px of the images with Flickr-SoundNet's boxes
AGREE = 2  # annotators of Flickr-SoundNet who must agree for a truth of 1
LAYOUT = "frames, audio, and vggss.json or Annotations"
Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of width and height


@dataclass(frozen=True)
class LocalizationExample:
    """An image with its sound, the class of the sound, and the boxes around its source."""

    frame: Path
    sound: Path
    kind: str
    boxes: tuple[Box, ...]
    agree: int  # boxes that must cover a position for a truth of 1

    def truth(self) -> np.ndarray:
        """How certainly each position belongs to the source, 0 to 1: float64 (SIDE, SIDE)."""
        covered = np.zeros((SIDE, SIDE))
        for left, top, right, bottom in (np.array(box).clip(0, 1) * SIDE for box in self.boxes):
            covered[int(top) : int(bottom), int(left) : int(right)] += 1
        return np.minimum(covered / self.agree, 1)


def read_dataset(data_dir: Path) -> list[LocalizationExample]:
    """The examples of a data_dir in VGG-SS's or Flickr-SoundNet's layout, in the order of their names.

    Raises EarshotError for another layout, a missing image or sound, and invalid boxes.
    """
    if (data_dir / "vggss.json").is_file():
        listed = _vggss(data_dir / "vggss.json")
    elif (data_dir / "Annotations").is_dir():
        listed = [_flickr(file) for file in sorted((data_dir / "Annotations").glob("*.xml"))]
    else:
        raise EarshotError(f"{data_dir}: expected {LAYOUT}; correct evaluate.localization.data_dir")
    if not listed:
        raise EarshotError(f"{data_dir}: lists no images, expected {LAYOUT}")
    agree = 1 if (data_dir / "vggss.json").is_file() else AGREE
    examples = [
        LocalizationExample(
            data_dir / "frames" / f"{name}.jpg", _sound_file(data_dir / "audio", name), kind, boxes, agree
        )
        for name, kind, boxes in sorted(listed)
    ]
    require_images([example.frame for example in examples])
    return examples


def _sound_file(folder: Path, name: str) -> Path:
    candidates = [folder / f"{name}{suffix}" for suffix in (".wav", ".flac")]
    existing = [file for file in candidates if is_file(file)]
    if not existing:
        raise EarshotError(f"{candidates[0]}: no such sound, but the benchmark's list names it; restore the files")
    return existing[0]


def _vggss(file: Path) -> list[tuple[str, str, tuple[Box, ...]]]:
    """Names, classes and boxes of vggss.json."""
    try:
        entries = parse_json(read_document(file))
        return [(_name(file, e["file"]), str(e["class"]), _boxes(file, e["file"], e["bbox"], 1)) for e in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EarshotError(
            f"{file}: cannot be read ({error!r:.200}); expected a list of file, class and bbox"
        ) from None


def _flickr(file: Path) -> tuple[str, str, tuple[Box, ...]]:
    """Name, class and boxes of one image: the last four numbers of every <bbox> are left, top, right, bottom."""
    root = parse_xml(file)
    try:
        boxes = [[float(each.text or "") for each in list(box)[-4:]] for box in root.iter("bbox")]
    except (TypeError, ValueError) as error:
        raise EarshotError(
            f"{file}: cannot be read ({error}); expected a <bbox> of four numbers per annotator"
        ) from None
    return file.stem, "sound", _boxes(file, file.stem, boxes, FLICKR_SIDE)


def _name(file: Path, name: str) -> str:
    if Path(name).name != name:
        raise EarshotError(f"{file}: names image {name!r}, expected a plain name such as zpWuikVorYg_000032")
    return name


def _boxes(file: Path, name: str, edges: Sequence[Sequence[float]], side: float) -> tuple[Box, ...]:
    """Boxes in shares of the image, clipped to it; some of VGG-SS are empty, and one has an edge at -2.9e16."""
    boxes = [np.clip(np.array(box, float) / side, 0, 1).tolist() for box in edges]
    if not boxes or not all(len(box) == 4 and np.isfinite(box).all() for box in boxes):
        raise EarshotError(f"{file}: {name} has the boxes {edges!r:.100}, expected left, top, right, bottom")
    return tuple(tuple(box) for box in boxes)
