"""The selectivity of units: the classes of their top frames and top images, and the boxes that they cover."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from earshot.core.hashing import stable_hash
from earshot.core.prefetch import prefetch
from earshot.evaluation.image_files import read_image
from earshot.explanation.activations import Distribution, PositionVariance, TopActivations
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
Rank = Literal["maximum", "mean"]


@dataclass(frozen=True)
class UnitSelectivity:
    """The selectivity of the units of one network.

    Args:
        maxima: the largest activation of each over all frames, (units,).
        positions: the share of the variance of its activations that the position explains, (units,).
        by_frames, by_images: the most frequent class of its top frames, or of its top images, and its share.
        by_boxes: the class whose boxes it covers best, and the IoU; NaN without boxes.
    """

    maxima: np.ndarray
    positions: np.ndarray
    by_frames: UnitPurities
    by_images: UnitPurities
    by_boxes: UnitPurities


def activations(maps: Tensor, rank_by: Rank) -> Tensor:
    """The activation of each unit that ranks frames, (frames, units), of maps (frames, units, height, width).

    Args:
        rank_by: the largest of the map (Owens 2016, section 4.1), or the mean after the ReLU over all positions
            (Mahadev 2020, Figure 2, by the published code).
    """
    return maps.amax((2, 3)) if rank_by == "maximum" else torch.relu(maps.float()).mean((2, 3))


class UnitResponses:
    """What one pass over frames or images keeps of the units of a network.

    Args:
        units: the number of units.
        count: the number of top frames to keep for each.
        rank_by: what ranks frames, as in `activations`.

    Attributes:
        top: the top frames.
        maxima: the largest activation of each unit, 0 for a unit that never responds, float32 (units,).
        positions: the variance that positions explain.
    """

    def __init__(self, units: int, count: int, rank_by: Rank) -> None:
        self.top, self.rank_by = TopActivations(units, count), rank_by
        self.maxima, self.positions = np.zeros(units, np.float32), PositionVariance(units)

    def add(self, maps: Tensor, numbers: np.ndarray, groups: np.ndarray, keys: np.ndarray) -> None:
        """Add the maps of frames, (frames, units, height, width); the rest as in `TopActivations.add`."""
        largest = maps.amax((2, 3)).float().cpu().numpy()
        ranked = activations(maps, self.rank_by).float().cpu().numpy()
        self.top.add(ranked, numbers, groups, keys)
        self.maxima = np.maximum(self.maxima, largest.max(0))
        self.positions.add(maps)


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


def look_at_frames(layers: Layers, pool: FramePool, count: int, rank_by: Rank) -> dict[str, UnitResponses]:
    """The responses of all units to frames, with the top frames of each, one per group, by the networks' prefixes."""
    responses = {prefix: UnitResponses(layer.units, count, rank_by) for prefix, layer in layers.items()}
    for frames, maps in look_through(layers, pool.batches(), pool.scenes, "units"):
        numbers = np.array([frame.number for frame in frames])
        groups, keys = hashes([frame.group for frame in frames]), hashes([_name(frame) for frame in frames])
        for prefix, values in maps.items():
            responses[prefix].add(values, numbers, groups, keys)
    return responses


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


def look_at_images(
    layers: Layers, images: AnnotatedImages, count: int, rank_by: Rank
) -> tuple[dict[str, UnitResponses], dict[str, np.ndarray]]:
    """The responses of all units to annotated images, and the activations that QUANTILE of all positions exceed."""
    responses = {prefix: UnitResponses(layer.units, count, rank_by) for prefix, layer in layers.items()}
    distributions = {prefix: Distribution(layer.units) for prefix, layer in layers.items()}
    keys = hashes([str(file.relative_to(images.root)) for file in images.files])
    for rows, maps in read_images(layers, images, np.arange(len(images.files)), "annotated images"):
        for prefix, values in maps.items():
            responses[prefix].add(values, rows, keys[rows], keys[rows])
            distributions[prefix].add(values)
    return responses, {prefix: each.quantile(QUANTILE) for prefix, each in distributions.items()}


def score_images(top_images: TopActivations, images: AnnotatedImages, count: int) -> UnitPurities:
    """The most frequent class of the `count` top images of each unit, and its share."""
    tops = ([images.displayed[n] for n in top_images.of(unit, count)] for unit in range(len(top_images.values)))
    return [purity(top, count) for top in tops]


def share_audible(
    top_frames: TopActivations,
    classes: Sequence[str],
    count: int,
    clips: Mapping[int, str],
    annotations: Mapping[str, Sequence[str]],
) -> float | None:
    """The share of clips, among the `count` top ones of each unit, whose annotations hold the unit's class.

    None without a class or a clip (Owens 2016, Table 1, row 3, where humans listened to the top 30 clips).

    Args:
        classes: of each unit, by what its top images show; "" leaves the unit out.
        clips: by the frames' numbers.
        annotations: what is audible, by clip.
    """
    is_audible = [
        name.casefold() in {word.casefold() for word in annotations.get(clips[number], ())}
        for unit, name in enumerate(classes)
        if name
        for number in top_frames.of(unit, count)
    ]
    return float(np.mean(is_audible)) if is_audible else None


def cover_boxes(
    layers: Layers, images: AnnotatedImages, fields: tuple[Fields, Fields], thresholds: Mapping[str, np.ndarray]
) -> dict[str, UnitPurities]:
    """The class whose boxes each unit covers best, and the IoU, by the networks' prefixes."""
    overlaps: dict[str, Overlap] = {}
    for rows, maps in read_images(layers, images, np.arange(len(images.files)), "boxes"):
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


def read_images(
    layers: Layers, images: AnnotatedImages, numbers: np.ndarray, title: str
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Batches of image numbers and the maps of every layer; whole images are scaled to the networks' size."""
    size = layers[next(iter(layers))].network.image_size
    batches = [numbers[first : first + IMAGES] for first in range(0, len(numbers), IMAGES)]

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


def _name(frame: Frame) -> str:
    return f"{frame.clip_id}/{frame.moment}"
