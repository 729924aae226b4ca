"""The selectivity of units: the classes of their top frames and top images, and the boxes that they cover."""

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

EVALUATED_SHARE = 5  # at most one in so many of the source videos, or of the images, counts as top
QUANTILE = 0.01  # share of positions that a unit picks out (Bau 2020; Bau 2017 uses .005)
IMAGES = 32  # in a batch

Layers = Mapping[str, Layer]  # by the networks' prefixes
UnitPurities = list[tuple[str, float]]  # of every unit, a class and its share


@dataclass(frozen=True)
class UnitSelectivity:
    """The selectivity of the units of one network.

    Args:
        maxima: the largest activation of each over all frames, (units,).
        by_frames, by_images: the most frequent class of its top frames, or of its top images, and its share.
        by_boxes: the class whose boxes it covers best, and the IoU; NaN without boxes.
    """

    maxima: np.ndarray
    by_frames: UnitPurities
    by_images: UnitPurities
    by_boxes: UnitPurities


@dataclass(frozen=True)
class Counted:
    """The contents of a pool of frames.

    Args:
        groups: the number of source videos.
        shares: the share of frames whose clips have each annotation.
    """

    groups: int
    shares: dict[str, float]


def count_pool(pool: FramePool, annotations: Mapping[str, Sequence[str]]) -> Counted:
    """The source videos and annotations of a pool; `annotations`: by clip."""
    groups: set[int] = set()
    counts: Counter[str] = Counter()
    for batch in pool.batches(images=False):
        groups |= {stable_hash(frame.group) for frame in batch}
        for frame in batch:
            counts.update(set(annotations.get(frame.clip_id, ())))
    return Counted(len(groups), {name: count / len(pool) for name, count in counts.items()})


def count_evaluated(top: int, pool: int) -> int:
    """The number of top items of a pool that define the purity of a unit."""
    return max(min(top, pool // EVALUATED_SHARE), 1)


def find_top_frames(layers: Layers, pool: FramePool, count: int) -> dict[str, TopActivations]:
    """The top frames of all units, one per group, by the networks' prefixes."""
    top_frames = {prefix: TopActivations(layer.units, count) for prefix, layer in layers.items()}
    for frames, maps in look_through(layers, pool.batches(), pool.scenes, "units"):
        numbers = np.array([frame.number for frame in frames])
        groups, keys = hashes([frame.group for frame in frames]), hashes([_name(frame) for frame in frames])
        for prefix, values in maps.items():
            top_frames[prefix].add(values.amax((2, 3)).float().cpu().numpy(), numbers, groups, keys)
    return top_frames


def score_frames(
    top_frames: TopActivations, count: int, clips: Mapping[int, str], annotations: Mapping[str, Sequence[str]]
) -> UnitPurities:
    """The most frequent annotation of the `count` top frames of each unit, and its share.

    Args:
        clips: by the frames' numbers.
        annotations: by clip.
    """
    tops = (
        [annotations.get(clips[n], ()) for n in top_frames.of(unit, count)] for unit in range(len(top_frames.values))
    )
    return [purity(top, count) for top in tops]


def clips_of_frames(pool: FramePool, top_frames: Iterable[TopActivations]) -> dict[int, str]:
    """The clips of the top frames of all units, by the frames' numbers."""
    requested = {number for each in top_frames for number in np.unique(each.frames).tolist()}
    return {frame.number: frame.clip_id for batch in pool.batches(requested, images=False) for frame in batch}


def score_images(
    layers: Layers, images: AnnotatedImages, fields: tuple[Fields, Fields], count: int
) -> dict[str, tuple[UnitPurities, UnitPurities]]:
    """`by_images` and `by_boxes` of `UnitSelectivity`, from the `count` top images of each unit and the boxes."""
    top_images = {prefix: TopActivations(layer.units, count) for prefix, layer in layers.items()}
    distributions = {prefix: Distribution(layer.units) for prefix, layer in layers.items()}
    keys = hashes([file.stem for file in images.files])
    for rows, maps in _look_at_images(layers, images, "annotated images"):
        for prefix, values in maps.items():
            top_images[prefix].add(values.amax((2, 3)).float().cpu().numpy(), rows, keys[rows], keys[rows])
            distributions[prefix].add(values)
    by_images = {}
    for prefix, each in top_images.items():
        tops = ([_classes_of(images, n) for n in each.of(unit, count)] for unit in range(len(each.values)))
        by_images[prefix] = [purity(top, count) for top in tops]
    thresholds = {prefix: each.quantile(QUANTILE) for prefix, each in distributions.items()}
    by_boxes = cover_boxes(layers, images, fields, thresholds) if images.boxed else {}
    return {prefix: (each, by_boxes.get(prefix, [("", np.nan)] * len(each))) for prefix, each in by_images.items()}


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
    """Hashes of names, uint64 (names,)."""
    return np.array([stable_hash(name) for name in names], np.uint64)


def _look_at_images(
    layers: Layers, images: AnnotatedImages, title: str
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Batches of image numbers and the maps of every layer; whole images are scaled to the networks' size."""
    size = layers[""].network.image_size
    batches = np.split(np.arange(len(images.files)), range(IMAGES, len(images.files), IMAGES))

    def decode(rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return rows, torch.stack([read_image(images.files[row], size, size) for row in rows.tolist()])

    decoded = prefetch(decode, batches, settings().threads)
    for rows, squeezed in tqdm(decoded, total=len(batches), desc=title, unit="batch", leave=False, disable=None):
        yield rows, maps_of(layers, squeezed)


def purity(labels: Sequence[Iterable[str]], total: int) -> tuple[str, float]:
    """The most frequent class of some frames and its share of `total`; ties are ordered by name, "" without classes.

    Args:
        labels: the classes of each frame; the frame counts for all of them.
    """
    counts = Counter(name for names in labels for name in set(names))
    if not counts:
        return "", 0.0
    name = min(counts, key=lambda each: (-counts[each], each))
    return name, counts[name] / total


def _classes_of(images: AnnotatedImages, number: int) -> list[str]:
    return [name for name, present in zip(images.classes, images.labels[number], strict=True) if present]


def _name(frame: Frame) -> str:
    return f"{frame.clip_id}/{frame.moment}"
