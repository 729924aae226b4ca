"""The maps of overlapping windows of one spectrogram: what windows share is computed once.

Windows of 1 s every .1 s overlap by nine tenths. Away from its borders, a column of a map in one window is also a
column of the map in the next; only near the borders they differ, because each window is padded with zeros there. So
each layer is applied once to the whole spectrogram, and again to the columns at the borders of each window. The
results are those of the windows one by one, up to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Step:
    """How a layer moves over time: `kernel` columns every `stride`, after `padding` columns of zeros at both ends."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0

    @classmethod
    def of(cls, layer: nn.Module) -> "Step":
        """That of a layer of a tower.

        Raises:
            TypeError: a tower has no such layer.
        """
        if isinstance(layer, nn.Conv2d):
            return cls(layer.kernel_size[1], layer.stride[1], int(layer.padding[1]))
        if isinstance(layer, nn.MaxPool2d):
            return cls(*(cast(int, side) for side in (layer.kernel_size, layer.stride, layer.padding)))
        if isinstance(layer, nn.BatchNorm2d | nn.ReLU):
            return cls()
        raise TypeError(f"{layer}: expected a convolution, a max pool, batch norm or ReLU")

    def width(self, width: int) -> int:
        """Columns after the layer, of so many before it."""
        return (width + 2 * self.padding - self.kernel) // self.stride + 1

    def left(self, border: int) -> int:
        """Columns after the layer that depend on the first `border` before it or on zeros to their left."""
        return -(-(border + self.padding) // self.stride)

    def right(self, border: int, width: int) -> int:
        """The same for the last columns of a window of that width, and zeros to their right."""
        return self.width(width) - (width - border - self.kernel + self.padding) // self.stride - 1


@dataclass(frozen=True)
class Overlapping:
    """The maps of some windows between two layers.

    Args:
        shared: (1, channels, height, columns), the map of the whole spectrogram.
        starts: of each window, the column of `shared` at which it begins.
        left, right: (windows, channels, height, columns), where each window's map differs from `shared`.
        width: columns of a window.
        windows: the number of each window.
    """

    shared: Tensor
    starts: list[int]
    left: Tensor
    right: Tensor
    width: int
    windows: list[int]

    def columns(self, begin: int, end: int) -> Tensor:
        """Those columns of every window: (windows, channels, height, end - begin)."""
        first, last = self.left.shape[3], self.width - self.right.shape[3]
        inside = slice(max(begin, first), max(min(end, last), begin, first))
        parts = [
            self.left[..., begin:end],
            torch.cat([self.shared[..., start + inside.start : start + inside.stop] for start in self.starts]),
            self.right[..., max(begin - last, 0) : max(end - last, 0)],
        ]
        filled = [part for part in parts if part.shape[3]]
        return torch.cat(filled, dim=3) if len(filled) > 1 else filled[0]

    def through(self, layers: Sequence[nn.Module]) -> Iterator[tuple[Tensor, list[int]]]:
        """The maps after all layers, (windows, channels, height, columns), and the numbers of their windows."""
        if not layers:
            yield self.columns(0, self.width), self.windows
            return
        layer, rest = layers[0], layers[1:]
        step = Step.of(layer)
        width = step.width(self.width)
        left, right = step.left(self.left.shape[3]), step.right(self.right.shape[3], self.width)
        if left + right >= width:  # nothing is shared from here on
            yield nn.Sequential(*layers)(self.columns(0, self.width)), self.windows
            return
        end, begin = step.stride * (left - 1) - step.padding + step.kernel, step.stride * (width - right) - step.padding
        lefts = _applied(layer, self.columns(0, end), (step.padding, 0)) if left else None
        rights = _applied(layer, self.columns(begin, self.width), (0, step.padding)) if right else None
        begins = [start - step.padding for start in self.starts]
        for phase in sorted({begin % step.stride for begin in begins}):  # one after another, so that memory is free
            of = [number for number, begin in enumerate(begins) if begin % step.stride == phase]
            shared = _applied(layer, self.shared[..., phase:], (0, 0))
            none = shared.new_empty(len(of), *shared.shape[1:3], 0)
            group = Overlapping(
                shared,
                [begins[number] // step.stride for number in of],
                none if lefts is None else lefts[of],
                none if rights is None else rights[of],
                width,
                [self.windows[number] for number in of],
            )
            yield from group.through(rest)


def maps_of_windows(tower: nn.Sequential, spectrogram: Tensor, starts: Sequence[int], width: int) -> Tensor:
    """The maps of windows of a spectrogram by a tower in eval mode: (windows, channels, height', width').

    Args:
        tower: of convolutions, max pools, batch norm and ReLU.
        spectrogram: (1, channels, height, columns), normalized.
        starts: the first column of each window.
        width: columns of a window.
    """
    none = spectrogram.new_empty(len(starts), *spectrogram.shape[1:3], 0)
    overlapping = Overlapping(spectrogram, list(starts), none, none, width, list(range(len(starts))))
    maps, numbers = zip(*overlapping.through(list(tower)), strict=True)
    return torch.cat(maps)[torch.tensor([number for group in numbers for number in group]).argsort()]


def _applied(layer: nn.Module, columns: Tensor, zeros: tuple[int, int]) -> Tensor:
    """A layer on columns with so many columns of zeros before and after them, and no others."""
    if not isinstance(layer, nn.Conv2d):
        return layer(columns)
    padded = functional.pad(columns, zeros) if any(zeros) else columns
    return functional.conv2d(padded, layer.weight, layer.bias, layer.stride, (int(layer.padding[0]), 0))
