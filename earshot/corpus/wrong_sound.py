"""The wrong-sound control: every clip gets the sounds of a clip of another group.

A network trained on such labels can learn to tell clips apart, and that the moments of a clip belong together, but
nothing of what a scene sounds like: the tie between picture and sound is cut and everything else stays. What such a
network reaches did not come from sound.
"""

import warnings
import zlib
from collections.abc import Sequence

import numpy as np

NOBODY = -1


def derange_sounds(
    splits: np.ndarray, split_names: Sequence[str], groups: np.ndarray, clips: np.ndarray, seed: int
) -> np.ndarray:
    """For each moment the index of the moment whose sound it gets, int64 (moments,); no split mixes with another.

    Clips are dealt whole: the moments of a clip get those of one other clip in order, from the first again where that
    has fewer. Within a split every clip is dealt once, so that labels are as frequent as before, and none to its own
    group. Where one group holds more than half of a split's clips that cannot be: there each clip gets a random one
    of other groups, with a warning. A split of a single group gets NOBODY's sounds, -1, with a warning.

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
        warnings.warn(f"split {name}: all clips are of one group, so there is no wrong sound to deal", stacklevel=3)
        return None
    deranged = derange_clips(groups[starts], sizes, generator)
    if deranged is None:
        text = f"split {name}: one group has over half of the clips, so wrong sounds are drawn at random"
        warnings.warn(text, stacklevel=3)
        deranged = draw_clips(groups[starts], generator)
    place = np.arange(len(clips)) - np.repeat(starts, sizes)  # of a moment in its clip
    return np.repeat(starts[deranged], sizes) + place % np.repeat(sizes[deranged], sizes)


def derange_clips(groups: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray | None:
    """A permutation of clips that gives none a clip of its own group, (clips,), or None where there is none.

    Clips of equal size are dealt among themselves where their groups allow it, so that every moment is dealt once
    too. Clips of the sizes that do not are dealt together, or else all clips are.

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
    """For each clip a random clip of other groups, of which there must be some; (clips,) to (clips,)."""
    order = np.argsort(groups, kind="stable")
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    own_first, own_count = np.repeat(first, counts), np.repeat(counts, counts)
    drawn = generator.integers(len(groups) - own_count)
    drawn += np.where(drawn >= own_first, own_count, 0)  # step over the own group
    deranged = np.empty(len(groups), dtype=np.int64)
    deranged[order] = order[drawn]
    return deranged


def derange_to_others(groups: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    """For each clip the place of a clip of another group, int64 (clips,); -1 for all where there is but one group."""
    numbers = np.unique(groups, return_inverse=True)[1]
    if numbers.max(initial=0) == 0:
        return np.full(len(groups), -1)
    deranged = derange_clips(numbers, np.ones(len(groups), np.int64), drawn)
    return draw_clips(numbers, drawn) if deranged is None else deranged


def _rotate(deranged: np.ndarray, clips: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> bool:
    """Deal `clips` in a circle, group beside group in random order: each gets the clip as many places on as the
    largest group is long. So nobody meets their own group, unless it is more than half of all: then nothing is dealt
    and the answer is False.
    """
    _, number, counts = np.unique(groups[clips], return_inverse=True, return_counts=True)
    largest = counts.max(initial=0)
    if 2 * largest > len(clips):
        return False
    order = clips[np.argsort(generator.permutation(len(counts))[number], kind="stable")]
    deranged[order] = np.roll(order, -largest)
    return True
