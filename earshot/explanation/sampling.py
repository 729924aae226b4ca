"""Random subsets for exhibits, which depend on the seed alone."""

import heapq
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

import numpy as np

from earshot.core.hashing import stable_hash


def draw_evenly(classes: Sequence[str], count: int, seed: int) -> list[int]:
    """The numbers of at most `count` random items, alternating between classes; `classes`: the class of each item.

    Items and classes are in random order.
    """
    drawn = np.random.default_rng(seed)
    waiting: dict[str, list[int]] = {name: [] for name in drawn.permutation(sorted(set(classes))).tolist()}
    for number in drawn.permutation(len(classes)).tolist():
        waiting[classes[number]].append(number)
    turns = zip_longest(*waiting.values())  # the first of each class, the second ...
    return [number for number in chain.from_iterable(turns) if number is not None][:count]


def draw_names(names: Iterable[str], count: int, seed: int) -> set[str]:
    """At most `count` random names. A smaller draw is a subset of a larger one; a new name replaces at most one."""
    return set(heapq.nsmallest(count, names, key=lambda name: stable_hash(f"{seed}/{name}")))
