"""Receptive fields of the positions of a layer, measured with NaN for any network.

Convolutions, pools, batch norm in eval mode and the usual nonlinearities propagate NaN, and produce none from zeros. So
px y is in the receptive field of a position exactly if NaN at y makes the position NaN. Fields are evenly spaced:
position i depends on the `size` px from first + i stride on. These three numbers are measured far from the borders of a
long strip. In an image, a field may reach over a border into the padding; a position may then also miss the last px
before the border, where a strided layer drops them. Only the ends of a field are measured: gaps of dilated kernels are
ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

MIN_STRIP, MAX_STRIP = 256, 8192  # px of a strip; a field longer than the longest strip counts as the whole image
PERIOD = 64  # px; a multiple of the strides of all image networks
NARROWEST = (16, 32, 64, 96, 128, 256)  # px across a strip; the first one that gives a map is used
# Zhou et al., "Object detectors emerge in deep scene CNNs" (2015), Table 1: the theoretical fields of
# AlexNet's layers are 19, 67, 99, 131 and 195 px, the empirical ones 17.8, 37.4, 52.1, 60.0 and 72.0. This curve is
# within 5 %.
ACTUAL_FACTOR, ACTUAL_POWER = 3.15, 0.6

Forward = Callable[[Tensor], Tensor]  # from normalized images (n, channels, height, width) to maps


@dataclass(frozen=True)
class Fields:
    """Receptive fields along one axis, in px; a size of None means the whole image.

    Px p of an image spans from p to p + 1.
    """

    first: int
    stride: int
    size: int | None

    def extent(self, position: int, side: int) -> range:
        """The px of an image of that side in the field of a position."""
        if self.size is None:
            return range(side)
        start = self.first + position * self.stride
        return range(max(start, 0), min(start + self.size, side))

    def centers(self, positions: int, side: int) -> np.ndarray:
        """The centers of the fields of all positions, float64 (positions,); some may lie outside the image."""
        if self.size is None:
            return (np.arange(positions) + 0.5) * side / positions
        return self.first + self.stride * np.arange(positions) + self.size / 2

    def scaling(self, positions: int, side: int, pixels: int) -> Tensor:
        """A matrix that interpolates a column of a map to the pixels of the image: float32 (pixels, positions).

        The value of a position belongs to the center of its field (Bau 2017, section 2.3); it is constant beyond the
        outermost centers.
        """
        middles = (np.arange(pixels) + 0.5) * side / pixels
        centers = self.centers(positions, side)
        columns = [np.interp(middles, centers, row) for row in np.eye(positions)]
        return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)

    @property
    def actual(self) -> float:
        """The empirical size of a field in px: the diameter of the circles of Owens (2016, section 4.1)."""
        return float("inf") if self.size is None else min(self.size, ACTUAL_FACTOR * self.size**ACTUAL_POWER)


def scaled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (..., height, width) interpolated to the size of an image, by the `scaling` of both axes."""
    return rows @ maps @ columns.T


@torch.inference_mode()
def measure_fields(run: Forward, channels: int = 3) -> tuple[Fields, Fields]:
    """The receptive fields of a layer along rows and along columns.

    Args:
        run: the network up to the layer, in eval mode, on the CPU; takes images of any size.
        channels: of the images.
    """
    # NNPACK spreads NaN to neighboring positions; direct convolution does not.
    with torch.backends.nnpack.flags(enabled=False):
        return _along(2, run, channels), _along(3, run, channels)


def _along(axis: int, run: Forward, channels: int) -> Fields:
    across = _narrowest(axis, run, channels)
    length = MIN_STRIP
    while length <= MAX_STRIP:
        strip = _strip(axis, channels, length, across)
        positions = run(strip).shape[axis]
        gained = run(_strip(axis, channels, length + PERIOD, across)).shape[axis] - positions
        if not gained:  # the number of positions is fixed
            break
        stride, middle = PERIOD // gained, length // 2
        first, last = _first(axis, run, strip, middle), _last(axis, run, strip, middle + stride)
        if first > 0 and last < positions - 1:
            # Within `stride` rows from the middle on, the field of one position ends and that of another begins.
            ended = _step(partial(_first, axis, run, strip), middle, stride)
            begun = _step(partial(_last, axis, run, strip), middle, stride) + 1
            start = begun - stride * last
            return Fields(start, stride, ended - stride * first - start + 1)
        length *= 2
    return Fields(0, 1, None)


def _step(place: Callable[[int], int], low: int, steps: int) -> int:
    """The last row from `low` on with the same place as `low`; the place changes within `steps` rows."""
    same, other, before = low, low + steps, place(low)
    while other - same > 1:
        between = (same + other) // 2
        same, other = (between, other) if place(between) == before else (same, between)
    return same


def _first(axis: int, run: Forward, strip: Tensor, row: int) -> int:
    """The first position that depends on this row or a later one."""
    marked = strip.clone()
    marked.narrow(axis, row, strip.shape[axis] - row).fill_(torch.nan)
    return int(_affected(axis, run(marked)).int().argmax())


def _last(axis: int, run: Forward, strip: Tensor, row: int) -> int:
    """The last position that depends on this row or an earlier one."""
    marked = strip.clone()
    marked.narrow(axis, 0, row + 1).fill_(torch.nan)
    return int(_affected(axis, run(marked)).nonzero().max())


def _affected(axis: int, maps: Tensor) -> Tensor:
    """Which positions along an axis contain NaN: bool (positions,)."""
    return maps.isnan().any(1).any(4 - axis)[0]


def _narrowest(axis: int, run: Forward, channels: int) -> int:
    for across in NARROWEST:
        try:
            run(_strip(axis, channels, MIN_STRIP, across))
        except RuntimeError:  # too narrow for some kernel
            continue
        return across
    return MIN_STRIP


def _strip(axis: int, channels: int, length: int, across: int) -> Tensor:
    return torch.zeros(1, channels, *((length, across) if axis == 2 else (across, length)))
