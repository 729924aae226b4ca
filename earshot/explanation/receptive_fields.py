"""What the positions of a layer see of the picture, for any network: NaN goes in, and where NaN comes out, it was seen.

Convolutions, pools, batch norm in eval mode and every usual nonlinearity carry NaN on, and nothing else makes it of
zeros. So px y belongs to the receptive field of a position just if NaN at y makes NaN of the position. Fields lie
evenly: position i sees the `size` px from first + i stride on. All three are measured far from the borders of a long
strip. In a picture a field may reach over a border, beyond which there is padding; then a position may also miss the
last px before the border, where some layer had none left to pair them with. And only the ends of a field are measured:
dilated kernels leave px between them out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

SHORTEST, LONGEST = 256, 8192  # px of a strip; a layer that sees all of the longest counts as one that sees everything
PERIOD = 64  # px; a multiple of all strides of networks for pictures
NARROWEST = (16, 32, 64, 96, 128, 256)  # px across a strip, of which the first is taken that leaves a map
# Zhou et al., "Object detectors emerge in deep scene CNNs" (2015), Table 1: of the 19, 67, 99, 131 and 195 px that
# units of AlexNet's layers can see, 17.8, 37.4, 52.1, 60.0 and 72.0 change their activations. This curve is within 5 %.
ACTUAL_FACTOR, ACTUAL_POWER = 3.15, 0.6

StageContext = Callable[[Tensor], Tensor]  # from normalised pictures (n, channels, height, width) to maps


@dataclass(frozen=True)
class Fields:
    """Receptive fields along one axis, in px; a size of None sees the whole picture.

    A picture's px p goes from the edge p to the edge p + 1.
    """

    first: int
    stride: int
    size: int | None

    def seen(self, position: int, side: int) -> range:
        """The px that a position sees of a picture of that side."""
        if self.size is None:
            return range(side)
        start = self.first + position * self.stride
        return range(max(start, 0), min(start + self.size, side))

    def centers(self, positions: int, side: int) -> np.ndarray:
        """The middles of the fields of all positions, float64 (positions,); some may lie outside of the picture."""
        if self.size is None:
            return (np.arange(positions) + 0.5) * side / positions
        return self.first + self.stride * np.arange(positions) + self.size / 2

    def scaling(self, positions: int, side: int, pixels: int) -> Tensor:
        """What scales a column of a map to so many pixels of the picture, bilinear: float32 (pixels, positions).

        A position's value is that of the middle of its field (Bau 2017, section 2.3), and beyond the outermost
        middles their values go on.
        """
        wanted = (np.arange(pixels) + 0.5) * side / pixels
        centers = self.centers(positions, side)
        columns = [np.interp(wanted, centers, row) for row in np.eye(positions)]
        return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)

    @property
    def actual(self) -> float:
        """The px of a field that matter to its unit: the diameter of Owens' circles (2016, section 4.1)."""
        return float("inf") if self.size is None else min(self.size, ACTUAL_FACTOR * self.size**ACTUAL_POWER)


def scaled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (..., height, width) as large as a picture, by the `scaling` of both axes."""
    return rows @ maps @ columns.T


@torch.inference_mode()
def measure_fields(run: StageContext, channels: int = 3) -> tuple[Fields, Fields]:
    """The receptive fields of a layer from top to bottom and from left to right.

    Args:
        run: the network up to the layer, in eval mode, on the CPU, of pictures of any size.
        channels: of the pictures.
    """
    # NNPACK's ways of convolving carry NaN from one position to the next; direct convolution does not.
    with torch.backends.nnpack.flags(enabled=False):
        return _along(2, run, channels), _along(3, run, channels)


def _along(axis: int, run: StageContext, channels: int) -> Fields:
    across = _narrowest(axis, run, channels)
    length = SHORTEST
    while length <= LONGEST:
        strip = _strip(axis, channels, length, across)
        positions = run(strip).shape[axis]
        gained = run(_strip(axis, channels, length + PERIOD, across)).shape[axis] - positions
        if not gained:  # as many positions for any picture
            break
        stride, middle = PERIOD // gained, length // 2
        first, last = _first(axis, run, strip, middle), _last(axis, run, strip, middle + stride)
        if first > 0 and last < positions - 1:
            # In `stride` steps from the middle on, one position sees no row any more, and one begins to.
            ended = _step(partial(_first, axis, run, strip), middle, stride)
            begun = _step(partial(_last, axis, run, strip), middle, stride) + 1
            start = begun - stride * last
            return Fields(start, stride, ended - stride * first - start + 1)
        length *= 2
    return Fields(0, 1, None)


def _step(place: Callable[[int], int], low: int, steps: int) -> int:
    """The last row from `low` on with the same place as it; `steps` rows on, the place is the next one."""
    same, other, before = low, low + steps, place(low)
    while other - same > 1:
        between = (same + other) // 2
        same, other = (between, other) if place(between) == before else (same, between)
    return same


def _first(axis: int, run: StageContext, strip: Tensor, row: int) -> int:
    """The first position that sees this row or a later one."""
    marked = strip.clone()
    marked.narrow(axis, row, strip.shape[axis] - row).fill_(torch.nan)
    return int(_seeing(axis, run(marked)).int().argmax())


def _last(axis: int, run: StageContext, strip: Tensor, row: int) -> int:
    """The last position that sees this row or an earlier one."""
    marked = strip.clone()
    marked.narrow(axis, 0, row + 1).fill_(torch.nan)
    return int(_seeing(axis, run(marked)).nonzero().max())


def _seeing(axis: int, maps: Tensor) -> Tensor:
    """Which positions along an axis are not a number anywhere: bool (positions,)."""
    return maps.isnan().any(1).any(4 - axis)[0]


def _narrowest(axis: int, run: StageContext, channels: int) -> int:
    for across in NARROWEST:
        try:
            run(_strip(axis, channels, SHORTEST, across))
        except RuntimeError:  # nothing is left for some kernel
            continue
        return across
    return SHORTEST


def _strip(axis: int, channels: int, length: int, across: int) -> Tensor:
    return torch.zeros(1, channels, *((length, across) if axis == 2 else (across, length)))
