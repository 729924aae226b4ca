"""What units are selective for: what their strongest frames and annotated pictures show, and which boxes they cover."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from earshot.core.hashing import stable_hash
from earshot.core.prefetch import prefetch
from earshot.evaluation.image_files import read_image
from earshot.explanation.activations import Distribution, TopActivations
from earshot.explanation.frames import Frame, FramePool
from earshot.explanation.layers import Layer, look_through, maps_of
from earshot.explanation.network_dissection import RASTER, AnnotatedImages, Overlap, best_classes, draw_boxes
from earshot.explanation.receptive_fields import Fields
from earshot.pipeline.settings import settings

JUDGED_SHARE = 5  # one in so many of the source videos, or of the pictures, at most
QUANTILE = 0.01  # of all positions, above which a unit picks one out (Bau 2020; 2017 has .005)
IMAGES = 32  # in a batch

Layers = Mapping[str, Layer]  # by the networks' prefixes
UnitPurities = list[tuple[str, float]]  # of every unit a class, and how much it is that


@dataclass(frozen=True)
class JudgedUnits:
    """What is told of the units of one network.

    Args:
        maxima: the largest activation of each over all frames, (units,).
        shown, boxed: what its strongest frames, and its strongest pictures, show most, and the share of them.
        covered: the class whose boxes it covers best, and the IoU; NaN where there are no boxes.
    """

    maxima: np.ndarray
    shown: UnitPurities
    boxed: UnitPurities
    covered: UnitPurities


@dataclass(frozen=True)
class Counted:
    """What a pool of frames holds.

    Args:
        groups: source videos.
        shares: of the frames, by what their clips are annotated with.
    """

    groups: int
    shares: dict[str, float]


def count_pool(pool: FramePool, said: Mapping[str, Sequence[str]]) -> Counted:
    """The source videos and annotations of a pool; said: annotations by clip."""
    groups: set[int] = set()
    annotations: Counter[str] = Counter()
    for batch in pool.batches(images=False):
        groups |= {stable_hash(frame.group) for frame in batch}
        for frame in batch:
            annotations.update(set(said.get(frame.clip_id, ())))
    return Counted(len(groups), {name: count / len(pool) for name, count in annotations.items()})


def count_judged(top: int, pool: int) -> int:
    """How many of a pool a unit is judged by."""
    return max(min(top, pool // JUDGED_SHARE), 1)


def strongest_frames(layers: Layers, pool: FramePool, count: int) -> dict[str, TopActivations]:
    """The strongest frames of all units, one a group, by the networks' prefixes."""
    found = {prefix: TopActivations(layer.units, count) for prefix, layer in layers.items()}
    for frames, maps in look_through(layers, pool.batches(), pool.scenes, "units"):
        numbers = np.array([frame.number for frame in frames])
        groups, keys = hashes([frame.group for frame in frames]), hashes([_name(frame) for frame in frames])
        for prefix, values in maps.items():
            found[prefix].add(values.amax((2, 3)).float().cpu().numpy(), numbers, groups, keys)
    return found


def judge_frames(
    strongest: TopActivations, count: int, clips: Mapping[int, str], said: Mapping[str, Sequence[str]]
) -> UnitPurities:
    """What the `count` strongest frames of each unit show, and the share of them.

    Args:
        clips: by the frames' numbers.
        said: annotations by clip.
    """
    tops = ([said.get(clips[n], ()) for n in strongest.of(unit, count)] for unit in range(len(strongest.values)))
    return [purity(top, count) for top in tops]


def clips_of_frames(pool: FramePool, strongest: Iterable[TopActivations]) -> dict[int, str]:
    """The clips that the strongest frames of any unit are from, by their numbers."""
    wanted = {number for each in strongest for number in np.unique(each.frames).tolist()}
    return {frame.number: frame.clip_id for batch in pool.batches(wanted, images=False) for frame in batch}


def judge_images(
    layers: Layers, images: AnnotatedImages, fields: tuple[Fields, Fields], count: int
) -> dict[str, tuple[UnitPurities, UnitPurities]]:
    """What the `count` strongest of annotated pictures show, and the boxes that units cover, as `Judged` has them."""
    strongest = {prefix: TopActivations(layer.units, count) for prefix, layer in layers.items()}
    spread = {prefix: Distribution(layer.units) for prefix, layer in layers.items()}
    keys = hashes([file.stem for file in images.files])
    for rows, maps in _look_at_images(layers, images, "annotated pictures"):
        for prefix, values in maps.items():
            strongest[prefix].add(values.amax((2, 3)).float().cpu().numpy(), rows, keys[rows], keys[rows])
            spread[prefix].add(values)
    shown = {}
    for prefix, each in strongest.items():
        tops = ([_classes_of(images, n) for n in each.of(unit, count)] for unit in range(len(each.values)))
        shown[prefix] = [purity(top, count) for top in tops]
    thresholds = {prefix: each.quantile(QUANTILE) for prefix, each in spread.items()}
    covered = cover_boxes(layers, images, fields, thresholds) if images.boxed else {}
    return {prefix: (each, covered.get(prefix, [("", np.nan)] * len(each))) for prefix, each in shown.items()}


def cover_boxes(
    layers: Layers, images: AnnotatedImages, fields: tuple[Fields, Fields], thresholds: Mapping[str, np.ndarray]
) -> dict[str, UnitPurities]:
    """The class whose boxes each unit covers best, and the IoU, by the networks' prefixes."""
    overlaps: dict[str, Overlap] = {}
    for rows, maps in _look_at_images(layers, images, "boxes"):
        boxes = [draw_boxes(images.objects(row)) for row in rows.tolist()]
        for prefix, values in maps.items():
            side = layers[prefix].network.image_size
            if prefix not in overlaps:
                scales = (axis.scaling(n, side, RASTER) for axis, n in zip(fields, values.shape[2:], strict=True))
                overlaps[prefix] = Overlap(thresholds[prefix], len(images.classes), *scales)
            for each, drawn in zip(values.float().cpu(), boxes, strict=True):
                overlaps[prefix].add(each, *drawn)
    return {prefix: best_classes(overlap.iou, images.classes) for prefix, overlap in overlaps.items()}


def hashes(names: Sequence[str]) -> np.ndarray:
    """Numbers that stand for names, uint64 (names,)."""
    return np.array([stable_hash(name) for name in names], np.uint64)


def _look_at_images(
    layers: Layers, images: AnnotatedImages, title: str
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Numbers of pictures, and what every layer makes of them, squeezed to the networks' size and seen whole."""
    size = layers[""].network.image_size
    batches = np.split(np.arange(len(images.files)), range(IMAGES, len(images.files), IMAGES))

    def decode(rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return rows, torch.stack([read_image(images.files[row], size, size) for row in rows.tolist()])

    decoded = prefetch(decode, batches, settings().threads)
    for rows, squeezed in tqdm(decoded, total=len(batches), desc=title, unit="batch", leave=False):
        yield rows, maps_of(layers, squeezed)


def purity(shown: Sequence[Iterable[str]], judged: int) -> tuple[str, float]:
    """What most of some frames show, and its share of `judged` frames; of two the first by name, of nothing "".

    Args:
        shown: by each frame, which counts for all of it.
    """
    counts = Counter(name for names in shown for name in set(names))
    if not counts:
        return "", 0.0
    name = min(counts, key=lambda each: (-counts[each], each))
    return name, counts[name] / judged


def _classes_of(images: AnnotatedImages, number: int) -> list[str]:
    return [name for name, shown in zip(images.classes, images.shown[number], strict=True) if shown]


def _name(frame: Frame) -> str:
    return f"{frame.clip_id}/{frame.moment}"
