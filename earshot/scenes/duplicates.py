"""Duplicates: the same sound or picture under another id, found by the fingerprints in the table of scenes.

Two clips of different groups are the same where their sounds are or their pictures are. Clips of one group, cut from
one video, are the same only where all they can be known by is; that they overlap makes them no duplicates. In the order
of their ids a clip stays unless it is the same as one that stays.

Fingerprints are near where few of their bits differ. What is near is found by sorting: fingerprints are rolled by some
bytes and sorted, and each is compared with the next few; two that are near share a long beginning in some of the 32
orders. Among a million made-up sounds 99.8 % of the pairs were found that differ in 7 % of their bits, as coding anew
makes them differ, and 92 % of those that differ in 14 %, in 40 s.

Memory holds the ids and fingerprints of all clips, some 250 bytes each, and time is that of 32 sorts.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from earshot.core.files import shard_name, write_atomically
from earshot.scenes.table import read_scenes

SOUND_WORDS, IMAGE_WORDS = 4, 8  # of 64 bits, of a fingerprint
ORDERS = 32
NEXT = 4  # how many of those that follow in an order each is compared with
WORD_BITS = 64
ROUNDS = 50  # in which clips that are linked are told apart; what is left then stays
COLUMNS = ("clip_id", "group", "audio_print", "image_print")


@dataclass(frozen=True)
class Prints:
    """Fingerprints of one kind of all clips: uint64 (clips, words), which clips have one, and how near is the same.

    Args:
        words: the bits; zeros where a clip has no fingerprint.
        known: bool (clips,).
        limit: the number of bits by which two of the same may differ.
    """

    words: np.ndarray
    known: np.ndarray
    limit: int

    @property
    def bits(self) -> int:
        """Of one fingerprint."""
        return self.words.shape[1] * WORD_BITS

    def distances(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Bits by which the clips of two lists of numbers differ, (pairs,)."""
        return np.bitwise_count(self.words[one] ^ self.words[other]).sum(1, dtype=np.int64)

    def both(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Where both clips of a pair have one, bool (pairs,)."""
        return self.known[one] & self.known[other]

    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Where both clips of a pair have one and these are near, bool (pairs,)."""
        return self.both(one, other) & (self.distances(one, other) <= self.limit)

    def near(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of clips whose fingerprints are near, as two lists of numbers; a pair may come more than once."""
        clips = np.flatnonzero(self.known)
        words = self.words[clips]
        step = self.words.shape[1] * 8 // ORDERS or 1
        for order in range(ORDERS):
            rolled = np.roll(words.view(np.uint8), -step * order, axis=1).view(">u8").astype(np.uint64)
            ranked = clips[np.lexsort(rolled.T[::-1])]
            for following in range(1, NEXT + 1):
                one, other = ranked[:-following], ranked[following:]
                near = self.distances(one, other) <= self.limit
                yield one[near], other[near]


@dataclass(frozen=True)
class Corpus:
    """The clips of all shards in their order: ids, groups as numbers, fingerprints, and where each shard begins."""

    ids: pa.ChunkedArray
    groups: np.ndarray
    starts: np.ndarray
    sounds: Prints
    images: Prints


def write_duplicates(shards: Sequence[Path], folder: Path, sound_share: float, image_share: float) -> None:
    """Find the duplicates among the clips of all shards of scenes and write those of each shard to a file of `folder`.

    Args:
        shards: as they were extracted, none of them changed.
        folder: `read_duplicates` reads the files.
        sound_share, picture_share: of the bits of a fingerprint, by which two of the same may differ.
    """
    corpus = read_corpus(shards, sound_share, image_share)
    first = first_of_each(corpus)
    found = np.flatnonzero(first != np.arange(len(first)))
    bounds = np.searchsorted(found, [*corpus.starts, len(first)])
    for number, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        rows = found[begin:end]
        told = zip(_texts(corpus.ids, rows), _words(corpus, rows, first[rows]), strict=True)
        with write_atomically(duplicates_path(folder, number)) as temporary_path:
            temporary_path.write_text(json.dumps(dict(told)))


def read_duplicates(folder: Path, number: int) -> dict[str, str]:
    """The duplicates in one shard: what they are the same as, in words, by clip id."""
    return json.loads(duplicates_path(folder, number).read_text())


def duplicates_path(folder: Path, number: int) -> Path:
    """Where the duplicates of a shard are listed."""
    return folder / f"{shard_name(number)}.json"


def read_corpus(shards: Sequence[Path], sound_share: float, image_share: float) -> Corpus:
    """Read what tells duplicates, a row group at a time."""
    parts: dict[str, list] = {name: [] for name in COLUMNS}
    starts, rows = [], 0
    for shard in shards:
        starts.append(rows)
        for table in read_scenes(shard, COLUMNS):
            rows += len(table)
            parts["clip_id"] += table["clip_id"].chunks
            parts["group"] += table["group"].chunks
            for name, words in (("audio_print", SOUND_WORDS), ("image_print", IMAGE_WORDS)):
                parts[name].append(_prints(table[name].to_pylist(), words))
    groups = pa.chunked_array(parts["group"], pa.string()).unify_dictionaries().combine_chunks()
    return Corpus(
        ids=pa.chunked_array(parts["clip_id"], pa.string()),
        groups=groups.dictionary_encode().indices.to_numpy(),
        starts=np.array(starts, np.int64),
        sounds=_all_prints(parts["audio_print"], SOUND_WORDS, sound_share),
        images=_all_prints(parts["image_print"], IMAGE_WORDS, image_share),
    )


def _prints(found: list[bytes], words: int) -> np.ndarray:
    """uint64 (clips, words), zeros for what has none."""
    none = bytes(words * 8)
    return np.frombuffer(b"".join(each or none for each in found), np.uint64).reshape(-1, words)


def _all_prints(parts: list[np.ndarray], words: int, share: float) -> Prints:
    joined = np.concatenate([np.empty((0, words), np.uint64), *parts])
    return Prints(joined, np.any(joined, axis=1), limit=int(share * words * WORD_BITS))


def first_of_each(corpus: Corpus) -> np.ndarray:
    """For every clip the number of the first, by id, of those that stay and are the same as it; int64 (clips,).

    Clips are put together with all that they are linked to, and the first of each lot stays; those of the lot that are
    not the same as it, but linked by way of others, are looked at again among themselves.
    """
    from scipy.sparse import coo_array  # 30 MB, which every worker would hold and one process needs
    from scipy.sparse.csgraph import connected_components

    clips = len(corpus.groups)
    labels = np.arange(clips)
    for prints in (corpus.sounds, corpus.images):
        for one, other in prints.near():
            joins = labels[one] != labels[other]
            joins[joins] = are_the_same(corpus, one[joins], other[joins])
            if joins.any():
                ends = labels[one[joins]], labels[other[joins]]
                edges = coo_array((np.ones(len(ends[0]), bool), ends), (clips, clips))
                labels = connected_components(edges, directed=False)[1][labels]
    firsts = np.arange(clips)
    left = pc.sort_indices(corpus.ids).to_numpy().astype(np.int64)
    leads = np.empty(clips, np.int64)
    for _ in range(ROUNDS):
        leads[labels[left[::-1]]] = left[::-1]  # the last to be written is the first by id
        lead = leads[labels[left]]
        settled = (lead == left) | are_the_same(corpus, left, lead)
        firsts[left[settled]] = lead[settled]
        left = left[~settled]
    return firsts


def are_the_same(corpus: Corpus, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which pairs of clips are the same, bool (pairs,)."""
    kinds = (corpus.sounds, corpus.images)
    sound, image = (prints.same(one, other) for prints in kinds)
    sound_speaks_against, image_speaks_against = (
        prints.both(one, other) & ~same for prints, same in zip(kinds, (sound, image), strict=True)
    )
    of_one_video = corpus.groups[one] == corpus.groups[other]
    return (sound | image) & ~(of_one_video & (sound_speaks_against | image_speaks_against))


def _texts(ids: pa.ChunkedArray, rows: np.ndarray) -> list[str]:
    return ids.take(pa.array(rows)).to_pylist()


def _words(corpus: Corpus, rows: np.ndarray, firsts: np.ndarray) -> Iterator[str]:
    """What each clip is the same as, and by how many of their bits the fingerprints differ."""
    kinds = {"sound": corpus.sounds, "image": corpus.images}
    shares = {name: prints.distances(rows, firsts) / prints.bits for name, prints in kinds.items()}
    known = {name: prints.both(rows, firsts) for name, prints in kinds.items()}
    for place, first in enumerate(_texts(corpus.ids, firsts)):
        differ = [f"{name} {shares[name][place]:.1%}" for name in kinds if known[name][place]]
        yield f"the same as {first} (bits that differ: {', '.join(differ)})"
