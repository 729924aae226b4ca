"""Drawing a few of many for an exhibit: by the seed, the same on every machine."""

import heapq
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

import numpy as np

from earshot.core.hashing import stable_hash


def draw_evenly(classes: Sequence[str], count: int, seed: int) -> list[int]:
    """The numbers of at most `count` items, drawn so that the classes take turns; classes: of each item.

    Items and classes stand in a random order.
    """
    drawn = np.random.default_rng(seed)
    waiting: dict[str, list[int]] = {name: [] for name in drawn.permutation(sorted(set(classes))).tolist()}
    for number in drawn.permutation(len(classes)).tolist():
        waiting[classes[number]].append(number)
    turns = zip_longest(*waiting.values())  # the first of each class, the second ...
    return [number for number in chain.from_iterable(turns) if number is not None][:count]


def draw_names(names: Iterable[str], count: int, seed: int) -> set[str]:
    """At most `count` of these names; a smaller number is a part of a larger one, and a new name moves one at most."""
    return set(heapq.nsmallest(count, names, key=lambda name: stable_hash(f"{seed}/{name}")))
