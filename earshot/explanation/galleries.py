"""Galleries of units: the frames that activate each most, side by side, dark where the unit does not respond."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from earshot.explanation.activations import TopActivations
from earshot.explanation.frames import FramePool
from earshot.explanation.layers import Layer, look_through
from earshot.explanation.media import jpeg_of
from earshot.explanation.receptive_fields import Fields
from earshot.networks.crops import crop_frames

SQUARE = 112  # px of a frame in a gallery
DIMMED = 0.25  # brightness of what no unit of a gallery responds to
SUBPIXEL = 4  # binary digits after the point of a circle's place


def lit(responding: np.ndarray, fields: tuple[Fields, Fields], side: int) -> np.ndarray:
    """The part of a square that lies in the circle of a position: bool (SQUARE, SQUARE).

    Args:
        responding: which positions of a map count, bool (height, width).
        fields: of the layer, from top to bottom and from left to right.
        side: of the picture that the network saw, px.
    """
    scale = SQUARE / side
    radius = scale * (fields[0].actual + fields[1].actual) / 4
    if not np.isfinite(radius):
        return np.full((SQUARE, SQUARE), responding.any())
    # A circle's place is the middle of a px; of edges, from which fields count, it is half a px less.
    rows, columns = (
        scale * axis.centers(count, side) - 0.5 for axis, count in zip(fields, responding.shape, strict=True)
    )
    square = np.zeros((SQUARE, SQUARE), np.uint8)
    for row, column in np.argwhere(responding).tolist():
        place = [round(value * 2**SUBPIXEL) for value in (columns[column], rows[row], radius)]
        cv2.circle(square, place[:2], place[2], 1, cv2.FILLED, shift=SUBPIXEL)
    return square > 0


def draw_squares(
    layers: Mapping[str, Layer],
    pool: FramePool,
    strongest: Mapping[str, TopActivations],
    fields: tuple[Fields, Fields],
    shown: int,
    scratch: Path,
) -> dict[str, np.ndarray]:
    """The strongest frames of each unit by the networks' prefixes, uint8 (units, shown, SQUARE, SQUARE, 3), on disk.

    A position responds where it reaches half of the unit's maximum over all frames (Owens 2016, section 4.1); around
    it, a circle of the px that matter to the unit is lit, and the rest of the frame is dimmed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    squares: dict[str, np.ndarray] = {}
    places: dict[str, dict[int, list[tuple[int, int]]]] = {}  # units and ranks by the frame's number
    for prefix, layer in layers.items():
        file = scratch / f"{prefix}squares"
        squares[prefix] = np.memmap(file, np.uint8, "w+", shape=(layer.units, shown, SQUARE, SQUARE, 3))
        places[prefix] = defaultdict(list)
        for unit in range(layer.units):
            for rank, number in enumerate(strongest[prefix].of(unit, shown)):
                places[prefix][number].append((unit, rank))
    wanted = {number for each in places.values() for number in each}
    side = next(iter(layers.values())).network.image_size
    for frames, maps in look_through(layers, pool.batches(wanted), pool.scenes, "galleries"):
        small = crop_frames([frame.jpeg for frame in frames], SQUARE).permute(0, 2, 3, 1).numpy()
        for prefix, values in maps.items():
            units = sorted({unit for frame in frames for unit, _ in places[prefix].get(frame.number, ())})
            found = dict(zip(units, values[:, units].float().cpu().numpy().swapaxes(0, 1), strict=True))
            for place, frame in enumerate(frames):
                for unit, rank in places[prefix].get(frame.number, ()):
                    responding = found[unit][place] >= strongest[prefix].maxima[unit] / 2
                    bright = lit(responding, fields, side)[..., None]
                    squares[prefix][unit, rank] = np.where(bright, small[place], small[place] * DIMMED)
    return squares


def gallery(squares: np.ndarray) -> bytes:
    """Squares (frames, SQUARE, SQUARE, 3) side by side, the first at the left, as JPEG; nothing where there is none."""
    if not len(squares):
        return b""
    strip = np.concatenate(list(squares), axis=1)
    return jpeg_of(Image.fromarray(strip), longest=strip.shape[1])
