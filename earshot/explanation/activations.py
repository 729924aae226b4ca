"""Running statistics of the activations of all units: the top frames, the distribution, and what positions explain."""

import numpy as np
import torch
from torch import Tensor

from earshot.core.errors import EarshotError

NONE = -1  # in place of the number of a frame
# A bin of the distribution holds the values that bfloat16 rounds to one number: 128 bins per doubling, so that the edge
# of a bin is less than 1/128 below any value in it. Bins range from 2^-16, below which activations count as 0, to 2^16.
FINEST, COARSEST = -16, 16
STEPS = 128


class TopActivations:
    """The frames that activate each unit most, one per group; the result does not depend on the order of frames.

    Ties are ordered by the keys of the frames. A frame whose activation is zero or less is not among the top frames.

    Args:
        units: the number of units.
        count: the number of frames to keep for each.

    Attributes:
        values: the largest activations, falling, then -inf, float32 (units, count).
        frames: their numbers, then NONE, int64 (units, count).
    """

    def __init__(self, units: int, count: int) -> None:
        self.values = np.full((units, count), -np.inf, np.float32)
        self.frames = np.full((units, count), NONE)
        self._groups, self._keys = np.zeros((2, units, count), np.uint64)

    def add(self, values: np.ndarray, frames: np.ndarray, groups: np.ndarray, keys: np.ndarray) -> None:
        """Add frames.

        Args:
            values: the largest activation of each unit in each frame, (frames, units).
            frames, groups, keys: integers for each frame, (frames,): its number, its group, and a key that is unique
                and does not depend on the order of frames.

        Raises:
            EarshotError: an activation is not a finite number.
        """
        if not np.isfinite(values).all():
            raise EarshotError("an activation is not a finite number; expected a fully trained network")
        values = np.where(values > 0, values, -np.inf).T  # (units, frames)
        touched = np.flatnonzero(values.max(1) >= np.maximum(self.values[:, -1], np.finfo(np.float32).tiny))
        if not len(touched):
            return
        kept = [self.values, self.frames, self._groups, self._keys]
        shape = len(touched), len(frames)
        added = [values[touched], *(np.broadcast_to(each, shape) for each in (frames, groups, keys))]
        both = [np.concatenate([old[touched], new], axis=1) for old, new in zip(kept, added, strict=True)]
        order = np.lexsort((both[3], -both[0]))
        both = [np.take_along_axis(each, order, 1) for each in both]
        again = _repeats(both[2])
        both[0][again], both[1][again] = -np.inf, NONE
        order = np.argsort(again, axis=1, kind="stable")[:, : self.values.shape[1]]
        for old, new in zip(kept, both, strict=True):
            old[touched] = np.take_along_axis(new, order, 1)

    @property
    def maxima(self) -> np.ndarray:
        """The largest activation of each unit, 0 for a unit that no frame activates: float32 (units,)."""
        return np.maximum(self.values[:, 0], 0)

    def of(self, unit: int, count: int) -> list[int]:
        """The numbers of a unit's top frames, at most `count`."""
        return [number for number in self.frames[unit, :count].tolist() if number != NONE]


def _repeats(values: np.ndarray) -> np.ndarray:
    """Which entries of each row equal an earlier entry, bool (rows, entries)."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, 1)
    repeated = np.zeros(values.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return repeated


class Distribution:
    """A histogram of the activations of each unit over all positions; counts of parts can be added.

    Attributes:
        counts: int64 (units, bins); the first bin holds values below 2^-16.
    """

    def __init__(self, units: int) -> None:
        self.counts = torch.zeros(units, (COARSEST - FINEST) * STEPS + 1, dtype=torch.int64)

    def add(self, maps: Tensor) -> None:
        """Add the maps of images, (images, units, height, width)."""
        units, bins = self.counts.shape
        flat = maps.detach().float().transpose(0, 1).flatten(1).contiguous()  # (units, positions of all images)
        # The first 16 bits of a float32 are its sign, its exponent and seven digits.
        steps = (flat.view(torch.int32) >> 16) - ((FINEST + 127) * STEPS - 1)
        numbers = steps.clamp_(0, bins - 1) + torch.arange(units, device=flat.device)[:, None] * bins
        self.counts += torch.bincount(numbers.flatten(), minlength=units * bins).view(units, bins).cpu()

    def quantile(self, share: float) -> np.ndarray:
        """The activations that a share of all positions exceeds: float32 (units,), too low by less than 1/128.

        0 for a unit that is active at fewer positions.
        """
        above = self.counts.flip(1).cumsum(1).flip(1)  # positions in each bin or a later one, (units, bins)
        bins = (above > share * above[:, :1]).sum(1) - 1  # the last bin with more than that share at or above it
        edges = ((bins + ((FINEST + 127) * STEPS - 1)) << 16).to(torch.int32).view(torch.float32)
        return torch.where(bins > 0, edges, 0.0).numpy()


class PositionVariance:
    """The share of the variance of each unit's activations that the position in the map explains.

    It is 1 for a unit that responds at one place whatever the image, and 0 for one that prefers no place (Owens 2016,
    section 4.1, finds units selective for position without a measure; this one is ours: the correlation ratio).
    Activations below zero count as zero, as after a ReLU.

    Args:
        units: the number of units.
    """

    def __init__(self, units: int) -> None:
        self.images, self.sums = 0, torch.zeros(units, 1, 1, dtype=torch.float64)
        self.squares = torch.zeros(units, dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """Add the maps of images, all of one size: (images, units, height, width)."""
        values = maps.detach().float().cpu().clamp(min=0).double()
        self.images += len(values)
        self.sums = self.sums + values.sum(0)
        self.squares += values.square().sum((0, 2, 3))

    @property
    def share(self) -> np.ndarray:
        """float64 (units,); 0 for a unit that does not vary."""
        means = self.sums.flatten(1) / max(self.images, 1)  # (units, positions)
        mean = means.mean(1)
        total = self.squares / max(self.images, 1) / means.shape[1] - mean**2
        between = means.square().mean(1) - mean**2
        varies = total > torch.finfo(torch.float32).eps * mean**2
        return torch.where(varies, between / total.clamp(min=torch.finfo(torch.float64).tiny), 0.0).numpy()
