"""Where a sound comes from in a picture, against boxes that humans drew, in the layouts of VGG-SS and Flickr-SoundNet.

A tree holds `frames/<name>.jpg`, `audio/<name>.wav` (or .flac), and the boxes:

- `vggss.json`, a list of {"file", "class", "bbox"} with boxes [left, top, right, bottom] in shares of width and height
  (Chen 2021); the truth is 1 inside any box. A picture whose boxes are empty counts, as there, and scores 0;
- or `Annotations/<name>.xml`, a box of each annotator in pixels of a picture of 256 x 256 (Senocak 2018); the truth is
  the share of two annotators that agree, at most 1.

A picture is squeezed to the network's square and shown with the sound at the middle of the recording. The network's map
is scaled up to 224 x 224, bilinear. Positive is what lies above

- its median, half of the picture (`median`: the code of Chen 2021 and its successors, on both sets), or
- half-way from its least to its greatest value (`half`: a fixed threshold, as cIoU was defined by Senocak 2018).

cIoU is the truth inside the positive region, over the whole truth and the positive region where there is none of it.
`ciou` is the share of pictures with a cIoU of at least .5, `auc` the area under that share as the threshold goes from 0
to 1 in steps of .05. `peak` is the share of pictures whose map is highest inside a box, which no threshold decides.

Controls: a map that falls evenly from the middle of the picture to its corners (`centre_`); the whole picture
(`whole_`), whose peak is anywhere; the random and the wrong-sound network; and the trained network that hears the sound
of another picture (`other_sound_`), which tells what stands out to the eye alone.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.evaluation.benchmark import Answer, Question
from earshot.evaluation.clips.clip_embeddings import class_rows, load_correspondences
from earshot.evaluation.images.image_features import read_picture, require_pictures
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.device import chosen_device

PROTOCOL = "localisation of sounds"
SIDE = 224  # px of the map that is measured, as in both papers' code
FLICKR_SIDE = 256  # px in which Flickr-SoundNet's boxes are drawn
AGREE = 2  # annotators of Flickr-SoundNet whose agreement counts as certain
BATCH = 16
RULES = ("median", "half")
LAYOUT = "frames, audio, and vggss.json or Annotations"
Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of width and height


@dataclass(frozen=True)
class Located:
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


def evaluate(question: Question) -> Answer:
    """cIoU, its area, and the share of peaks inside the boxes: of the network and of all controls."""
    networks = load_correspondences(question.encoder)
    pictures = read_tree(question.tree)
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    empty = 0
    for first in tqdm(range(0, len(pictures), BATCH), desc="localisation", unit="batch", leave=False):
        rows = range(first, min(first + BATCH, len(pictures)))
        truths = np.stack([pictures[row].truth() for row in rows])  # (batch, SIDE, SIDE)
        for prefix, maps in all_maps(networks, pictures, rows):
            for metric, values in score(maps, truths).items():
                parts[prefix + metric].append(values)
        parts["whole_peak"][-1] = (truths > 0).mean((1, 2))
        empty += int((~truths.any((1, 2))).sum())
    found = {name: np.concatenate(values) for name, values in parts.items()}
    scores = {name: (values >= 0.5).astype(float) if "ciou" in name else values for name, values in found.items()}
    metrics: dict[str, Any] = {}
    for name, values in scores.items():
        metrics[name] = float(values.mean())
        if "ciou" in name:
            metrics[name.replace("ciou", "auc")] = area_under(found[name])
    told = [f"{metric} {metrics[metric]:.3f} (random {metrics[f'random_{metric}']:.3f}, centre "
            f"{metrics[f'centre_{metric}']:.3f})" for metric in ("peak", "ciou_median", "auc_median")]  # fmt: skip
    rows = class_rows([[picture.kind] for picture in pictures], scores)
    metrics |= {"pictures": len(pictures), "pictures_without_box": empty}
    asked = [picture.frame.stem for picture in pictures]
    return Answer(metrics, rows, f"{PROTOCOL}, {len(pictures):,} pictures", ", ".join(told), asked)


def score(maps: np.ndarray, truths: np.ndarray) -> dict[str, np.ndarray]:
    """cIoU by both rules, and whether the peak is inside a box, of maps and truths (pictures, SIDE, SIDE)."""
    pairs = list(zip(maps, truths, strict=True))
    found = {f"ciou_{rule}": np.array([ciou(positive(each, rule), truth) for each, truth in pairs]) for rule in RULES}
    return found | {"peak": np.array([float(truth.flat[each.argmax()] > 0) for each, truth in pairs])}


def positive(values: np.ndarray, rule: str) -> np.ndarray:
    """Where a map says that the sound comes from, bool (SIDE, SIDE); everywhere for one that is the same everywhere."""
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        return np.ones(values.shape, bool)
    return values > (np.median(values) if rule == "median" else (lowest + highest) / 2)


def ciou(region: np.ndarray, truth: np.ndarray) -> float:
    """Consensus intersection over union (Senocak 2018); 0 where there is no truth.

    Args:
        region: what is told, bool (height, width).
        truth: what is so, 0 to 1, (height, width).
    """
    whole = truth.sum() + (region & (truth == 0)).sum()
    return float(truth[region].sum() / whole) if whole else 0.0


def area_under(values: np.ndarray) -> float:
    """The area under the share of values that reach a threshold, over 21 thresholds from 0 to 1, by trapezoids."""
    thresholds = np.linspace(0, 1, 21)
    reached = [float(np.mean(values >= threshold - 1e-12)) for threshold in thresholds]
    return float(np.trapezoid(reached, thresholds))


def centre_map() -> np.ndarray:
    """A map that falls evenly from the middle to the corners: (SIDE, SIDE)."""
    away = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    return -np.hypot(away[:, None], away)


def all_maps(
    networks: Mapping[str, Correspondence], pictures: Sequence[Located], rows: range
) -> Iterator[tuple[str, np.ndarray]]:
    """The maps of some pictures, (rows, SIDE, SIDE), by every network and control, with the prefix of its metrics.

    Raises:
        EarshotError: a network has no map, or a file cannot be read.
    """
    network = networks[""]
    seen = torch.stack([read_picture(pictures[row].frame, network.image_size, network.image_size) for row in rows])
    heard, others = (
        torch.stack([middle_slice(pictures[place].sound, network) for place in places])
        for places in (rows, [row - 1 for row in rows])  # the sound of the picture before, the last one's for the first
    )
    for prefix, each in networks.items():
        yield prefix, sounding_maps(each, seen, heard)
    yield "other_sound_", sounding_maps(network, seen, others)
    yield "centre_", np.broadcast_to(centre_map(), (len(rows), SIDE, SIDE))
    yield "whole_", np.zeros((len(rows), SIDE, SIDE))


@torch.inference_mode()
def sounding_maps(network: Correspondence, seen: Tensor, heard: Tensor) -> np.ndarray:
    """A network's maps of pictures and sounds, scaled up bilinear: log-odds, float32 (pairs, SIDE, SIDE).

    Raises EarshotError where the network has no map, or one that is not finite.
    """
    device = chosen_device()
    maps = network.sounding_map(seen.to(device), heard.to(device))
    if not torch.isfinite(maps).all():
        raise EarshotError("a map is not a finite number; wanted a network that was trained to the end")
    return interpolate(maps[:, None].float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0].cpu().numpy()


def middle_slice(file: Path, network: Correspondence) -> Tensor:
    """The middle of a recording as the network wants it, silent where that is too short.

    Float32 (samples,), or (2, samples) for a network of two channels. Raises EarshotError for a file that is no sound.
    """
    samples, rate, channels = network.sound_samples, network.sound_rate, network.sound_channels
    try:
        sound, own_rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise EarshotError(f"{file}: cannot be read as sound ({error}); restore the file") from None
    sound = sound.mean(1, keepdims=True) if channels == 1 else sound[:, [0, -1]]
    if own_rate != rate:
        sound = soxr.resample(sound, own_rate, rate, quality="HQ")
    start = max((len(sound) - samples) // 2, 0)
    whole = np.zeros((channels, samples), np.float32)
    cut = sound[start : start + samples].T
    whole[:, : cut.shape[1]] = cut
    return torch.from_numpy(whole[0] if channels == 1 else whole)


def read_tree(tree: Path) -> list[Located]:
    """The pictures of a tree in VGG-SS's or Flickr-SoundNet's layout, in the order of their names.

    Raises EarshotError for another layout, for a picture or sound that is missing, and for boxes that are none.
    """
    if (tree / "vggss.json").is_file():
        listed = _vggss(tree / "vggss.json")
    elif (tree / "Annotations").is_dir():
        listed = [_flickr(file) for file in sorted((tree / "Annotations").glob("*.xml"))]
    else:
        raise EarshotError(f"{tree}: wanted {LAYOUT}; mend evaluate.localisation.tree")
    if not listed:
        raise EarshotError(f"{tree}: lists no pictures, wanted {LAYOUT}")
    agree = 1 if (tree / "vggss.json").is_file() else AGREE
    found = [
        Located(tree / "frames" / f"{name}.jpg", _sound_file(tree / "audio", name), kind, boxes, agree)
        for name, kind, boxes in sorted(listed)
    ]
    require_pictures([each.frame for each in found])
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
        found = [[float(each.text) for each in list(box)[-4:]] for box in ElementTree.parse(file).iter("bbox")]
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
