"""Galleries of units: the frames or images that activate each unit most, side by side, dimmed outside its fields."""

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from earshot.evaluation.image_files import read_image
from earshot.explanation.frames import FramePool
from earshot.explanation.layers import Layer, look_through
from earshot.explanation.media import jpeg_of
from earshot.explanation.network_dissection import AnnotatedImages
from earshot.explanation.receptive_fields import Fields
from earshot.explanation.selectivity import UnitResponses, read_images
from earshot.networks.crops import crop_frames

SQUARE = 112  # px of a frame in a gallery
DIMMED = 0.25  # brightness where the unit does not respond
SUBPIXEL = 4  # fractional bits of a circle's position


def lit(responding: np.ndarray, fields: tuple[Fields, Fields], side: int) -> np.ndarray:
    """The pixels of a square that lie in the circle of a responding position: bool (SQUARE, SQUARE).

    Args:
        responding: the responding positions of a map, bool (height, width).
        fields: the receptive fields of the layer along rows and columns.
        side: of the network's input image, px.
    """
    scale = SQUARE / side
    radius = scale * (fields[0].actual + fields[1].actual) / 4
    if not np.isfinite(radius):
        return np.full((SQUARE, SQUARE), responding.any())
    # OpenCV counts from the middle of a px, fields count from its edge: hence the half px.
    rows, columns = (
        scale * axis.centers(count, side) - 0.5 for axis, count in zip(fields, responding.shape, strict=True)
    )
    square = np.zeros((SQUARE, SQUARE), np.uint8)
    for row, column in np.argwhere(responding).tolist():
        place = [round(value * 2**SUBPIXEL) for value in (columns[column], rows[row], radius)]
        cv2.circle(square, place[:2], place[2], 1, cv2.FILLED, shift=SUBPIXEL)
    return square > 0


@dataclass(frozen=True)
class ImageMaps:
    """Frames or images with their maps.

    Args:
        numbers: of each.
        squares: each as uint8 (SQUARE, SQUARE, 3): (frames, SQUARE, SQUARE, 3).
        maps: by the networks' prefixes, (frames, units, height, width).
    """

    numbers: Sequence[int]
    squares: np.ndarray
    maps: Mapping[str, Tensor]


def frames_again(layers: Mapping[str, Layer], pool: FramePool, requested: Container[int]) -> Iterator[ImageMaps]:
    """The frames of these numbers."""
    for frames, maps in look_through(layers, pool.batches(requested), pool.scenes, "galleries"):
        squares = crop_frames([frame.jpeg for frame in frames], SQUARE).permute(0, 2, 3, 1).numpy()
        yield ImageMaps([frame.number for frame in frames], squares, maps)


def images_again(
    layers: Mapping[str, Layer], images: AnnotatedImages, requested: Collection[int]
) -> Iterator[ImageMaps]:
    """The annotated images of these numbers."""
    for rows, maps in read_images(layers, images, np.array(sorted(requested), np.int64), "galleries"):
        small = [read_image(images.files[row], SQUARE, SQUARE).permute(1, 2, 0) for row in rows.tolist()]
        yield ImageMaps(rows.tolist(), torch.stack(small).numpy(), maps)


def draw_squares(
    again: Callable[[set[int]], Iterable[ImageMaps]],
    responses: Mapping[str, UnitResponses],
    layers: Mapping[str, Layer],
    fields: tuple[Fields, Fields],
    frames_per_unit: int,
    scratch: Path,
) -> dict[str, np.ndarray]:
    """The top frames of each unit by the networks' prefixes, uint8 (units, frames, SQUARE, SQUARE, 3), on disk.

    A position responds if it reaches half of the unit's maximum over all frames (Owens 2016, section 4.1). A circle
    around it, as wide as its empirical receptive field, keeps its brightness; the rest of the frame is dimmed.

    Args:
        again: reads the frames, or images, of some numbers again.
        responses: of each network.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    squares: dict[str, np.ndarray] = {}
    places: dict[str, dict[int, list[tuple[int, int]]]] = {}  # units and ranks by the frame's number
    for prefix, layer in layers.items():
        file = scratch / f"{prefix}squares"
        squares[prefix] = np.memmap(file, np.uint8, "w+", shape=(layer.units, frames_per_unit, SQUARE, SQUARE, 3))
        places[prefix] = defaultdict(list)
        for unit in range(layer.units):
            for rank, number in enumerate(responses[prefix].top.of(unit, frames_per_unit)):
                places[prefix][number].append((unit, rank))
    side = next(iter(layers.values())).network.image_size
    for look in again({number for each in places.values() for number in each}):
        for prefix, values in look.maps.items():
            units = sorted({unit for number in look.numbers for unit, _ in places[prefix].get(number, ())})
            unit_maps = dict(zip(units, values[:, units].float().cpu().numpy().swapaxes(0, 1), strict=True))
            for place, number in enumerate(look.numbers):
                for unit, rank in places[prefix].get(number, ()):
                    responding = unit_maps[unit][place] >= responses[prefix].maxima[unit] / 2
                    bright = lit(responding, fields, side)[..., None]
                    square = look.squares[place]
                    squares[prefix][unit, rank] = np.where(bright, square, square * DIMMED)
    return squares


def gallery(squares: np.ndarray) -> bytes:
    """Squares (frames, SQUARE, SQUARE, 3) side by side from the left, as JPEG; empty bytes without squares."""
    if not len(squares):
        return b""
    strip = np.concatenate(list(squares), axis=1)
    return jpeg_of(Image.fromarray(strip), longest=strip.shape[1])
