"""The wrong-sound control: every clip gets the sounds of a clip of another group.

A network trained on such labels can learn to distinguish clips, and that the moments of a clip belong together, but not
what a scene sounds like: only the link between image and sound is broken. Whatever accuracy it reaches does not come
from sound.
"""

import warnings
import zlib
from collections.abc import Sequence

import numpy as np

NOBODY = -1


def derange_sounds(
    splits: np.ndarray, split_names: Sequence[str], groups: np.ndarray, clips: np.ndarray, seed: int
) -> np.ndarray:
    """For each moment, the index of the moment whose sound it gets, int64 (moments,); splits do not mix.

    Whole clips are exchanged: the moments of a clip get those of one other clip in order, repeated if it has fewer.
    Within a split each clip is used once, which keeps the label frequencies, and never for its own group. If one group
    holds more than half of a split's clips, this is impossible: each clip then gets a random clip of another group,
    with a warning. A split with a single group gets NOBODY (-1), with a warning.

    Args:
        splits: number of each moment's split in `split_names`, (moments,).
        groups: number of each moment's group, (moments,).
        clips: number of each moment's clip, (moments,); a clip's moments follow each other.
    """
    source = np.full(len(groups), NOBODY, dtype=np.int64)
    for number, name in enumerate(split_names):
        rows = np.flatnonzero(splits == number)
        if not len(rows):
            continue
        deranged = _derange_split(
            groups[rows], clips[rows], name, np.random.default_rng([seed, zlib.crc32(name.encode())])
        )
        if deranged is not None:
            source[rows] = rows[deranged]
    return source


def _derange_split(
    groups: np.ndarray, clips: np.ndarray, name: str, generator: np.random.Generator
) -> np.ndarray | None:
    starts = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
    sizes = np.diff(np.r_[starts, len(clips)])
    if (groups == groups[0]).all():
        warnings.warn(
            f"split {name}: all clips are of one group, so the wrong-sound control has no labels", stacklevel=3
        )
        return None
    deranged = derange_clips(groups[starts], sizes, generator)
    if deranged is None:
        text = f"split {name}: one group has over half of the clips, so wrong sounds are drawn with repetition"
        warnings.warn(text, stacklevel=3)
        deranged = draw_clips(groups[starts], generator)
    position = np.arange(len(clips)) - np.repeat(starts, sizes)  # of a moment in its clip
    return np.repeat(starts[deranged], sizes) + position % np.repeat(sizes[deranged], sizes)


def derange_clips(groups: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray | None:
    """A permutation of clips that gives no clip one of its own group, (clips,); None if there is none.

    Clips of equal size are exchanged among themselves if their groups allow it, so that each moment is used once too.
    Clips of the other sizes are exchanged together; if that fails, all clips are.

    Args:
        groups: number of each clip's group, (clips,).
        sizes: number of each clip's moments, (clips,).
    """
    deranged, left = np.arange(len(groups)), [np.empty(0, dtype=np.int64)]
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        if not _rotate(deranged, same, groups, generator):
            left.append(same)
    if _rotate(deranged, np.concatenate(left), groups, generator):
        return deranged
    return deranged if _rotate(deranged, np.arange(len(groups)), groups, generator) else None


def draw_clips(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each clip, a random clip of another group; requires two groups; (clips,) to (clips,)."""
    order = np.argsort(groups, kind="stable")
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    own_first, own_count = np.repeat(first, counts), np.repeat(counts, counts)
    drawn = generator.integers(len(groups) - own_count)
    drawn += np.where(drawn >= own_first, own_count, 0)  # skip its own group
    deranged = np.empty(len(groups), dtype=np.int64)
    deranged[order] = order[drawn]
    return deranged


def derange_to_others(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each clip, the index of a clip of another group, int64 (clips,); all -1 if there is only one group."""
    numbers = np.unique(groups, return_inverse=True)[1]
    if numbers.max(initial=0) == 0:
        return np.full(len(groups), -1)
    deranged = derange_clips(numbers, np.ones(len(groups), np.int64), rng)
    return draw_clips(numbers, rng) if deranged is None else deranged


def sounds_of_others(groups: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each clip, a clip among others that is of another group, each used about once, int64 (clips,); -1: none.

    Args:
        groups: number of each clip's group, (clips,).
        others: number of each other clip's group, (others,), at least one.
    """
    drawn = np.resize(rng.permutation(len(others)), len(groups))
    for clip in np.flatnonzero(others[drawn] == groups).tolist():
        possible = np.flatnonzero(others != groups[clip])
        drawn[clip] = rng.choice(possible) if len(possible) else -1
    return drawn


def _rotate(deranged: np.ndarray, clips: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> bool:
    """Arrange `clips` in a circle, group after group in random order, and rotate it by the size of the largest group.

    No clip then gets one of its own group, unless that group holds more than half: then this changes nothing and
    returns False.
    """
    _, number, counts = np.unique(groups[clips], return_inverse=True, return_counts=True)
    largest = counts.max(initial=0)
    if 2 * largest > len(clips):
        return False
    order = clips[np.argsort(generator.permutation(len(counts))[number], kind="stable")]
    deranged[order] = np.roll(order, -largest)
    return True
