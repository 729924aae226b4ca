"""Overlapping pieces of one source: they share images, so they must share a group."""

import numpy as np


def rows_with_rival_groups(sources: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The positions of all rows of sources that have rows of several groups, ascending.

    Args:
        sources, groups: of each row as numbers, (rows,).
    """
    order = np.argsort(sources)
    sorted_sources, sorted_groups = sources[order], groups[order]
    differs = (sorted_sources[1:] == sorted_sources[:-1]) & (sorted_groups[1:] != sorted_groups[:-1])
    rivals = np.unique(sorted_sources[1:][differs])
    return np.flatnonzero(np.isin(sources, rivals)) if len(rivals) else np.empty(0, np.int64)


def merged_groups(sources: np.ndarray, starts: np.ndarray, ends: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    """For each group that is merged into another, that group: of all merged ones, the one of the first row.

    Two groups are merged if a row of one overlaps a row of the other in the same source. Pieces that only touch do not
    overlap.

    Args:
        sources, groups: of each row as numbers, (rows,).
        starts, ends: of each row in its source (ms), int64 (rows,).
    """
    names, first, number = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((starts, sources))
    source = np.cumsum(np.diff(sources[order], prepend=sources[order][:1]) != 0)
    offset = source * (ends.max(initial=0) + 1)  # the latest end before a row is then of its own source, or below it
    latest = np.maximum.accumulate(ends[order] + offset)
    overlaps = starts[order][1:] + offset[1:] < latest[:-1]
    pairs = np.stack([number[order][:-1][overlaps], number[order][1:][overlaps]], axis=1)
    earliest = list(range(len(names)))  # of each group, one that it is merged into: a forest

    def root(group: int) -> int:
        while earliest[group] != group:
            group = earliest[group]
        return group

    for pair in np.unique(pairs, axis=0).tolist():
        one, other = sorted(map(root, pair), key=first.__getitem__)
        earliest[other] = one
    return {int(names[group]): int(names[root(group)]) for group in range(len(names)) if root(group) != group}
