"""Listing the clips of a corpus, shard by shard: from tar files, or from a folder of videos and its sub-folders.

Every file counts as a clip unless its suffix names another kind; a file that cannot be used is refused by name. The
listing of a shard is written at once, so that a clip takes eight bytes of memory.
"""

import hashlib
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.media.clips import MediaFile, Skipped, may_be_clip, read_listing, write_listing
from earshot.media.folders import MANIFEST, Folder, clips_in_folder, walk
from earshot.media.tar_process import TarLister, refused_shard
from earshot.media.tars import PACKED

DIGITS = 8  # of the hash in the names of clips that would otherwise share a name


def list_shards(
    root: Path,
    shard_clips: int,
    listing: Callable[[int], Path],
    *,
    follow_links: Sequence[Path] = (),
    unmatched: Literal["stop", "warn"] = "warn",
) -> int:
    """Write the listing of each shard of `root` to the path that `listing` returns; return the number of shards.

    A shard is a tar file, in any sub-folder and of any name; without tar files it is `shard_clips` files. Both are in
    sorted order. Where clips would share a clip_id, a hash of their location is appended. One warning counts the files
    that are no clips although a user may take them for one.

    Args:
        root: the folder.
        shard_clips: files in a shard, without tar files.
        listing: returns the path of a shard's listing.
        follow_links: folders outside to which links in the folder may lead.
        unmatched: whether rows of a folder's manifest without a file, and files without a row, stop or warn.

    Raises EarshotError if there are no clips, if tar files and videos are mixed, and for an invalid manifest.
    """
    if not root.is_dir():
        raise EarshotError(f"{root}: no such folder; set corpus.clips to a folder of videos or of tar shards")
    tars, skipped = _tars(root, follow_links), Skipped()
    shards: Iterator[list[MediaFile]]
    if tars:
        shards = _list_tars(Folder(root, follow_links), tars, skipped)
        if (root / MANIFEST).is_file():
            skipped.add(f"{MANIFEST} beside tars, whose groups come from the .json of each clip", MANIFEST)
    else:
        shards = _batches(clips_in_folder(root, follow_links, unmatched, skipped), shard_clips)
    names, begins = array("Q"), [0]
    for number, clips in enumerate(shards):
        write_listing(listing(number), clips)
        names.extend(stable_hash(clip.clip_id) for clip in clips)
        begins.append(len(names))
    if not names:
        raise EarshotError(f"{root}: holds no videos; set corpus.clips to a folder of them, or of tars, not compressed")
    skipped.warn(root)
    _rename_repeated(listing, np.frombuffer(names, np.uint64), begins)
    return len(begins) - 1


def _tars(root: Path, follow_links: Sequence[Path]) -> list[str]:
    """The relative names of the tar files below `root`; beside them compressed ones are listed, to be refused.

    Raises EarshotError if the folder also holds videos.
    """
    loose, tars, packed = None, [], []
    for name in walk(root, follow_links):
        if name.lower().endswith(".tar"):
            tars.append(name)
        elif PACKED.search(name):
            packed.append(name)
        elif loose is None and may_be_clip(PurePosixPath(name).name):
            loose = name
        if tars and loose:
            raise EarshotError(f"{root}: holds tar shards and also {loose}; keep only one kind in the folder")
    return sorted(tars + packed) if tars else []


def _list_tars(folder: Folder, tars: Sequence[str], skipped: Skipped) -> Iterator[list[MediaFile]]:
    """The clips of each tar, or its refusal if it is a link out of the folder."""
    refusals = {tar: folder.refused_link(folder.root / tar) for tar in tars}
    with TarLister(folder.root / tar for tar in tars if not refusals[tar]) as lister:
        for tar in tars:
            if refused := refusals[tar]:
                yield [refused_shard(folder.root, tar, *refused)]
            else:
                yield lister.clips(folder.root, tar, skipped)


def _batches(clips: Iterator[MediaFile], size: int) -> Iterator[list[MediaFile]]:
    while batch := list(itertools.islice(clips, size)):
        yield batch


def _rename_repeated(listing: Callable[[int], Path], names: np.ndarray, begins: list[int]) -> None:
    """Give clips that share a name names of their own; `names` are the hashes of the names, (clips,)."""
    for rank in itertools.count():
        repeated = _repeated(names)
        if not repeated.any():
            return
        names = names.copy()
        for number in _shards_with(repeated, begins):
            begin, clips = begins[number], read_listing(listing(number))
            for place, clip in enumerate(clips):
                if repeated[begin + place]:
                    # A name that was made to equal one with a hash is told apart by the place in the list.
                    clips[place] = _with_location(clip, begin + place if rank else None)
            names[begin : begins[number + 1]] = [stable_hash(clip.clip_id) for clip in clips]
            write_listing(listing(number), clips)


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Which of these occur more than once, bool (clips,)."""
    values, counts = np.unique(hashes, return_counts=True)
    return np.isin(hashes, values[counts > 1])


def _shards_with(clips: np.ndarray, begins: list[int]) -> list[int]:
    """The numbers of the shards that hold at least one of these clips."""
    return [number for number, (begin, end) in enumerate(itertools.pairwise(begins)) if clips[begin:end].any()]


def _with_location(clip: MediaFile, place: int | None) -> MediaFile:
    """The clip with a hash of its location, and of its place in the list if given, appended to its name."""
    location = f"{clip.source}\0{clip.offset}" + ("" if place is None else f"\0{place}")
    digest = hashlib.sha256(location.encode("utf-8", "surrogateescape")).hexdigest()
    return replace(clip, clip_id=f"{clip.clip_id}-{digest[:DIGITS]}")
