"""Listing the clips of a corpus, shard by shard: from tar files, or from a folder of videos and its sub-folders.

A .tar.gz is unpacked into a scratch folder first. Every file counts as a clip unless its suffix names another kind; a
file that cannot be used is refused by name. The listing of a shard is written at once, so that a clip takes eight bytes
of memory.
"""

import hashlib
import itertools
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.corpus.completeness import REQUESTED
from earshot.media.clips import MediaFile, Skipped, ignored_kind, may_be_clip, read_listing, write_listing
from earshot.media.folders import MANIFEST, Folder, clips_in_folder, walk
from earshot.media.joining import JoinedLists
from earshot.media.tar_process import TarLister, refused_shard
from earshot.media.unpacking import GZIPPED, Unpacked

COMPRESSED = re.compile(r"\.(tar\.(bz2|gz|xz|zst)|tgz|tbz2?|txz)$", re.IGNORECASE)
NOT_UNPACKED = ("unsupported", "the shard is compressed; decompress it to .tar, or compress it as .tar.gz")
DIGITS = 8  # of the hash in the names of clips that would otherwise share a name


def list_shards(
    root: Path,
    shard_clips: int,
    listing: Callable[[int], Path],
    *,
    scratch: Path | None = None,
    follow_links: Sequence[Path] = (),
    unmatched: Literal["stop", "warn"] = "warn",
    lists: JoinedLists | None = None,
    skipped: Skipped | None = None,
) -> int:
    """Write the listing of each shard of `root` to the path that `listing` returns; return the number of shards.

    A shard is a tar file, in any sub-folder and of any name; without tar files it is `shard_clips` files. Both are in
    sorted order. Where clips would share a clip_id, a hash of their location is appended. One warning counts the files
    that are no clips although a user may take them for one.

    Args:
        root: the folder.
        shard_clips: files in a shard, without tar files.
        listing: returns the path of a shard's listing.
        scratch: the folder for unpacked tars, which must stay as long as the clips are read. None: compressed tars are
            refused.
        follow_links: folders outside to which links in the folder may lead.
        unmatched: whether rows of a folder's manifest without a file, and files without a row, stop or warn.
        lists: lists that give groups and annotations; their rows without a file become refusals in further shards.
        skipped: counts the files that are no clips.

    Raises EarshotError if there are no clips, if tar files and videos are mixed, and for an invalid manifest.
    """
    if not root.is_dir():
        raise EarshotError(f"{root}: no such folder; set corpus.clips to a folder of videos or of tar shards")
    skipped = Skipped() if skipped is None else skipped
    tars = _tars(root, follow_links, skipped)
    shards: Iterator[list[MediaFile]]
    if tars:
        shards = _list_tars(Folder(root, follow_links), tars, scratch, skipped)
        if (root / MANIFEST).is_file():
            skipped.add(f"{MANIFEST} beside tars, whose groups come from the .json of each clip", MANIFEST)
    else:
        shards = _batches(clips_in_folder(root, follow_links, unmatched, skipped), shard_clips)
    if lists:
        shards = itertools.chain(_joined(shards, lists), _batches(lists.missing(), shard_clips))
    names, begins = array("Q"), [0]
    for number, clips in enumerate(shards):
        write_listing(listing(number), clips)
        names.extend(stable_hash(clip.clip_id) for clip in clips)
        begins.append(len(names))
    if lists:
        lists.check(root, unmatched)
    if not names:
        raise EarshotError(f"{root}: holds no videos; set corpus.clips to a folder of them, or of .tar or .tar.gz")
    skipped.warn(root)
    _rename_repeated(listing, np.frombuffer(names, np.uint64), begins)
    return len(begins) - 1


def packed_tars(root: Path, follow_links: Sequence[Path], scratch: Path) -> list[Unpacked]:
    """The compressed tars of a corpus that can be unpacked into `scratch`.

    Raises EarshotError as `list_shards` does if tar files and videos are mixed.
    """
    if not root.is_dir():
        return []
    return [*_packed(Folder(root, follow_links), _tars(root, follow_links, Skipped()), scratch).values()]


def _packed(folder: Folder, tars: Sequence[str], scratch: Path | None) -> dict[str, Unpacked]:
    if scratch is None:
        return {}
    packed = (tar for tar in tars if GZIPPED.search(tar) and not folder.refused_link(folder.root / tar))
    return {tar: Unpacked(folder.root / tar, tar, scratch) for tar in packed}


def _tars(root: Path, follow_links: Sequence[Path], skipped: Skipped) -> list[str]:
    """The relative names of the tar files below `root`, compressed ones too; `skipped` counts the files beside them.

    Beside videos, a compressed one is no shard. Raises EarshotError if the folder holds videos and plain tars.
    """
    loose, plain, gzipped, others, beside = None, [], [], [], Skipped()
    downloaded = (root / REQUESTED).is_dir()  # by the stage download, whose ledgers lie beside the tars
    for name in walk(root, follow_links):
        if name.lower().endswith(".tar"):
            plain.append(name)
        elif GZIPPED.search(name):
            gzipped.append(name)
        elif COMPRESSED.search(name):
            others.append(name)
        elif loose is None and may_be_clip(PurePosixPath(name).name):
            loose = name
        elif not downloaded and name.lower() != MANIFEST:
            beside.add(ignored_kind(name), name)
        if plain and loose:
            raise EarshotError(f"{root}: holds tar shards and also {loose}; keep only one kind in the folder")
    if not plain and (loose or not gzipped):
        return []
    for kind, (count, first) in beside.kinds.items():
        skipped.add(kind, first, count)
    return sorted(plain + gzipped + others)


def _list_tars(
    folder: Folder, tars: Sequence[str], scratch: Path | None, skipped: Skipped
) -> Iterator[list[MediaFile]]:
    """The clips of each tar, or its refusal if it is a link out of the folder or cannot be unpacked."""
    refusals = {tar: folder.refused_link(folder.root / tar) for tar in tars}
    packed = _packed(folder, tars, scratch)
    refusals |= {tar: refusals[tar] or NOT_UNPACKED for tar in tars if COMPRESSED.search(tar) and tar not in packed}
    for each in packed.values():
        each.unpack()
        if each.problem and not each.tar.exists():
            refusals[each.source] = each.problem
    paths = {tar: packed[tar].tar if tar in packed else folder.root / tar for tar in tars if not refusals[tar]}
    with TarLister(paths.values()) as lister:
        for tar in tars:
            if refused := refusals[tar]:
                yield [refused_shard(folder.root / tar, tar, *refused)]
                continue
            clips = lister.clips(paths[tar], tar, skipped)
            if tar in packed and (problem := packed[tar].problem):
                clips = [clip for clip in clips if clip.source != tar]  # one refusal of the shard is enough
                clips.append(refused_shard(folder.root / tar, tar, *problem))
            yield clips


def _joined(shards: Iterator[list[MediaFile]], lists: JoinedLists) -> Iterator[list[MediaFile]]:
    for clips in shards:
        yield list(map(lists.join, clips))


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
