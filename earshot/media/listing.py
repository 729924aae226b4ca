"""Which clips a corpus has, shard by shard: those of tar files, or of a folder of videos and its sub-folders.

Every file that is not known to be something else counts as a clip, so that what cannot be used is refused by name. The
listing of each shard is written as soon as it is known; in memory a clip is eight bytes.
"""

import hashlib
import itertools
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.media.clips import Clip, may_be_clip, read_listing, write_listing
from earshot.media.folders import clips_in_folder, walk
from earshot.media.tars import PACKED, clips_in_tar

DIGITS = 8  # of the hash that tells apart clips whose names come to the same


def list_shards(root: Path, shard_clips: int, listing: Callable[[int], Path]) -> int:
    """Write the clips under `root` into files, that of each shard where `listing` says; return the number of shards.

    A shard is a tar file if there are any, in sub-folders too and whatever they are called, else `shard_clips` files;
    both by sorted name. Clips whose names come to the same have a hash of where they are in their clip_id.

    Raises EarshotError where there are none, where tar files and videos are mixed, and for a manifest that is none.
    """
    if not root.is_dir():
        raise EarshotError(f"{root}: no such folder; corpus.clips wants a folder of videos or of tar shards")
    tars = _tars(root)
    shards = (list(clips_in_tar(root, tar)) for tar in tars) if tars else _batches(clips_in_folder(root), shard_clips)
    names, begins = array("Q"), [0]
    for number, clips in enumerate(shards):
        write_listing(listing(number), clips)
        names.extend(stable_hash(clip.clip_id) for clip in clips)
        begins.append(len(names))
    if not names:
        raise EarshotError(f"{root}: holds no videos; corpus.clips wants a folder of them, or of tars, not compressed")
    _tell_apart(listing, np.frombuffer(names, np.uint64), begins)
    return len(begins) - 1


def _tars(root: Path) -> list[str]:
    """The relative names of the tar files below `root`; beside them compressed ones count too, to be refused.

    Raises EarshotError where there are videos too.
    """
    loose, tars, packed = None, [], []
    for name in walk(root):
        if name.lower().endswith(".tar"):
            tars.append(name)
        elif PACKED.search(name):
            packed.append(name)
        elif loose is None and may_be_clip(PurePosixPath(name).name):
            loose = name
        if tars and loose:
            raise EarshotError(f"{root}: holds tar shards and also {loose}; keep one kind in the folder")
    return sorted(tars + packed) if tars else []


def _batches(clips: Iterator[Clip], size: int) -> Iterator[list[Clip]]:
    while batch := list(itertools.islice(clips, size)):
        yield batch


def _tell_apart(listing: Callable[[int], Path], names: np.ndarray, begins: list[int]) -> None:
    """Name anew the clips whose names come to the same; names are known by their hashes, (clips,)."""
    repeated = _repeated(names)
    if not repeated.any():
        return
    final = names.copy()
    for number in _shards_with(repeated, begins):
        begin, clips = begins[number], read_listing(listing(number))
        clips = [_placed(clip) if repeated[begin + place] else clip for place, clip in enumerate(clips)]
        final[begin : begins[number + 1]] = [stable_hash(clip.clip_id) for clip in clips]
        write_listing(listing(number), clips)
    again, seen = _repeated(final), set()
    for number in _shards_with(again, begins):
        for place, clip in enumerate(read_listing(listing(number)), begins[number]):
            if again[place] and clip.clip_id in seen:
                raise EarshotError(f"several clips come to the name {clip.clip_id}; rename one of their files")
            seen |= {clip.clip_id} if again[place] else set()


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Which of these are there more than once, (clips,)."""
    values, counts = np.unique(hashes, return_counts=True)
    return np.isin(hashes, values[counts > 1])


def _shards_with(clips: np.ndarray, begins: list[int]) -> list[int]:
    """The numbers of the shards that hold one of these clips."""
    return [number for number, (begin, end) in enumerate(itertools.pairwise(begins)) if clips[begin:end].any()]


def _placed(clip: Clip) -> Clip:
    """A clip with a hash of where it is in its name."""
    place = f"{clip.source}\0{clip.offset}".encode("utf-8", "surrogateescape")
    return replace(clip, clip_id=f"{clip.clip_id}-{hashlib.sha256(place).hexdigest()[:DIGITS]}")
