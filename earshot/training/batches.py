"""Numbered batches from the row groups of a table, of which a few are in memory at a time.

Every batch is a pure function of the seed and its number: an interrupted training resumes with the next batch, and any
number of threads may prepare batches.
"""

import threading
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from earshot.core.rng import generator


class ItemGroup(Protocol):
    """Items that are read together: those of one row group of a shard that a training uses."""

    def __len__(self) -> int:
        """The number of items."""

    def read(self) -> list[Any]:
        """The items, in order."""


Group = TypeVar("Group", bound=ItemGroup)
Item = TypeVar("Item")


class Batches(Generic[Group, Item]):
    """Numbered batches of the items of groups.

    Every epoch draws a new order of the row groups, shuffles their items one pool at a time, and drops items that do
    not fill a last batch; batch n of epoch e has the number e * batches_per_epoch + n. Without a seed, there is one
    epoch, always in the same random order, whose last batch may be short. Access is thread-safe.

    The order of the table must not matter: a corpus is often sorted by class, and clips that follow each other are then
    alike. A pool therefore consists of row groups from the whole corpus.

    Args:
        groups: of the whole split.
        batch_size: items in a batch.
        seed: of the orders; None for items that are held out.
        pool: number of items that are shuffled together; the class has a default. Two pools are in memory at a time.
    """

    pool: int

    def __init__(self, groups: Sequence[Group], *, batch_size: int, seed: int | None, pool: int | None = None) -> None:
        self.groups = [group for group in groups if len(group)]
        self.sizes = np.array([len(group) for group in self.groups], dtype=np.int64)
        self.seed, self.pool = 0 if seed is None else seed, pool or self.pool
        self.items = int(self.sizes.sum())
        self.batch_size = min(batch_size, self.items)
        full, rest = divmod(self.items, max(self.batch_size, 1))
        self.batches_per_epoch = full + (1 if rest and seed is None else 0)
        self._pools: dict[tuple[int, int], tuple[np.ndarray, list[Item]]] = {}  # the groups and the shuffled items
        self._read: dict[int, list[Any]] = {}  # the items of the groups of these pools
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> list[Item]:
        """The items of batch `number`."""
        epoch, index = divmod(number, self.batches_per_epoch)
        start, end = index * self.batch_size, min((index + 1) * self.batch_size, self.items)
        order, starts, ends = self._plan(epoch)
        items: list[Item] = []
        for pool, (first, last) in enumerate(zip(starts, ends, strict=True)):
            if first < end and start < last:
                items += self._load(epoch, pool, order[pool])[max(start - first, 0) : min(end, last) - first]
        return items

    def _plan(self, epoch: int) -> tuple[list[np.ndarray], list[int], list[int]]:
        """The row groups of each pool of an epoch, and the first item and the end of each pool."""
        order = generator("row groups", self.seed, epoch).permutation(len(self.groups))
        ends = np.cumsum(self.sizes[order])
        last = max(self.items // self.pool - 1, 0)  # a short last pool joins the one before
        pool_numbers = np.minimum((ends - self.sizes[order]) // self.pool, last)
        cuts = np.flatnonzero(np.diff(pool_numbers)) + 1
        pool_ends = [*(ends[cuts - 1]).tolist(), self.items]
        return np.split(order, cuts), [0, *pool_ends[:-1]], pool_ends

    def _load(self, epoch: int, pool: int, numbers: np.ndarray) -> list[Item]:
        """The shuffled items of a pool; the two most recent pools stay in memory, and no group of theirs is read again.

        So a small corpus is read once, or nearly: all its groups are in one pool or two.
        """
        with self._lock:
            if (epoch, pool) not in self._pools:
                while len(self._pools) > 1:
                    del self._pools[next(iter(self._pools))]
                needed = set(numbers.tolist()).union(*(groups.tolist() for groups, _ in self._pools.values()))
                self._read = {number: items for number, items in self._read.items() if number in needed}
                for number in numbers.tolist():
                    if number not in self._read:
                        self._read[number] = self.groups[number].read()
                items = [item for number in numbers.tolist() for item in self._read[number]]
                self._pools[epoch, pool] = numbers, self._shuffled(items, epoch, pool)
            return self._pools[epoch, pool][1]

    def _shuffled(self, items: list[Any], epoch: int, pool: int) -> list[Item]:
        """The items of a pool in the order of their batches."""
        order = generator("pool", self.seed, epoch, pool).permutation(len(items))
        return [items[index] for index in order.tolist()]
