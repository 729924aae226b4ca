"""Duplicates: the same sound or video under another id, detected by the fingerprints in the table of scenes.

Two clips of different groups are duplicates if their sounds match or their videos match. Two clips of one group, cut
from one video, are duplicates only if every fingerprint that both have matches, so that overlapping clips stay. Clips
are visited in the order of their ids; a clip stays unless it matches one that stays.

Fingerprints match if few of their bits differ. Matches are found by sorting: fingerprints are rolled by some bytes and
sorted, and each is compared with the next few; two that match share a long prefix in some of the 32 orders. Among a
million synthetic sounds this found, in 40 s, 99.8 % of the pairs that differ in 7 % of their bits, as after compressing
again, and 92 % of those that differ in 14 %.

Memory holds the ids and fingerprints of all clips, some 250 bytes each. The time is that of 32 sorts.
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
NEXT = 4  # number of following fingerprints in an order to compare each with
WORD_BITS = 64
ROUNDS = 50  # of resolving linked clips; clips that are unresolved then stay
COLUMNS = ("clip_id", "group", "audio_print", "image_print")


@dataclass(frozen=True)
class Prints:
    """Fingerprints of one kind for all clips.

    Args:
        words: the bits, uint64 (clips, words); zeros where a clip has no fingerprint.
        known: which clips have one, bool (clips,).
        limit: the number of bits in which matching fingerprints may differ.
    """

    words: np.ndarray
    known: np.ndarray
    limit: int

    @property
    def bits(self) -> int:
        """The number of bits of a fingerprint."""
        return self.words.shape[1] * WORD_BITS

    def distances(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The number of differing bits of each pair of clips, (pairs,)."""
        return np.bitwise_count(self.words[one] ^ self.words[other]).sum(1, dtype=np.int64)

    def both(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether both clips of a pair have a fingerprint, bool (pairs,)."""
        return self.known[one] & self.known[other]

    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether both clips of a pair have fingerprints and these match, bool (pairs,)."""
        return self.both(one, other) & (self.distances(one, other) <= self.limit)

    def matches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of clips whose fingerprints match, as two arrays of numbers; a pair may be repeated."""
        clips = np.flatnonzero(self.known)
        words = self.words[clips]
        step = self.words.shape[1] * 8 // ORDERS or 1
        for order in range(ORDERS):
            rolled = np.roll(words.view(np.uint8), -step * order, axis=1).view(">u8").astype(np.uint64)
            ranked = clips[np.lexsort(rolled.T[::-1])]
            for following in range(1, NEXT + 1):
                one, other = ranked[:-following], ranked[following:]
                match = self.distances(one, other) <= self.limit
                yield one[match], other[match]


@dataclass(frozen=True)
class CorpusPrints:
    """The clips of all shards, in order: ids, groups as numbers, fingerprints, and the first clip of each shard."""

    ids: pa.ChunkedArray
    groups: np.ndarray
    starts: np.ndarray
    sounds: Prints
    images: Prints


def write_duplicates(shards: Sequence[Path], folder: Path, sound_share: float, image_share: float) -> None:
    """Find the duplicates among the clips of all shards of scenes and write those of each shard to a file in `folder`.

    Args:
        shards: as extracted, before any clip is refused or flagged.
        folder: of the files; `read_duplicates` reads them.
        sound_share, image_share: the share of a fingerprint's bits in which duplicates may differ.
    """
    corpus = read_corpus(shards, sound_share, image_share)
    first = first_of_each(corpus)
    duplicates = np.flatnonzero(first != np.arange(len(first)))
    bounds = np.searchsorted(duplicates, [*corpus.starts, len(first)])
    for number, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        rows = duplicates[begin:end]
        reasons = zip(_texts(corpus.ids, rows), _reasons(corpus, rows, first[rows]), strict=True)
        with write_atomically(duplicates_path(folder, number)) as temporary_path:
            temporary_path.write_text(json.dumps(dict(reasons)))


def read_duplicates(folder: Path, number: int) -> dict[str, str]:
    """The duplicates in one shard by clip id, each with a text that names its original."""
    return json.loads(duplicates_path(folder, number).read_text())


def duplicates_path(folder: Path, number: int) -> Path:
    """The file that lists the duplicates of a shard."""
    return folder / f"{shard_name(number)}.json"


def read_corpus(shards: Sequence[Path], sound_share: float, image_share: float) -> CorpusPrints:
    """Read ids, groups and fingerprints, a row group at a time."""
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
    return CorpusPrints(
        ids=pa.chunked_array(parts["clip_id"], pa.string()),
        groups=groups.dictionary_encode().indices.to_numpy(),
        starts=np.array(starts, np.int64),
        sounds=_all_prints(parts["audio_print"], SOUND_WORDS, sound_share),
        images=_all_prints(parts["image_print"], IMAGE_WORDS, image_share),
    )


def _prints(values: list[bytes], words: int) -> np.ndarray:
    """Fingerprints as uint64 (clips, words), zeros where there is none."""
    zeros = bytes(words * 8)
    return np.frombuffer(b"".join(each or zeros for each in values), np.uint64).reshape(-1, words)


def _all_prints(parts: list[np.ndarray], words: int, share: float) -> Prints:
    joined = np.concatenate([np.empty((0, words), np.uint64), *parts])
    return Prints(joined, np.any(joined, axis=1), limit=int(share * words * WORD_BITS))


def first_of_each(corpus: CorpusPrints) -> np.ndarray:
    """For every clip the number of the first, by id, of the clips that stay and match it; int64 (clips,).

    Connected components of matching clips are formed, and the first clip of each stays. Clips of the component that do
    not match it directly are compared again among themselves.
    """
    from scipy.sparse import coo_array  # 30 MB that only one process needs
    from scipy.sparse.csgraph import connected_components

    clips = len(corpus.groups)
    labels = np.arange(clips)
    for prints in (corpus.sounds, corpus.images):
        for one, other in prints.matches():
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


def are_the_same(corpus: CorpusPrints, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which pairs of clips are duplicates, bool (pairs,)."""
    kinds = (corpus.sounds, corpus.images)
    sound, image = (prints.same(one, other) for prints in kinds)
    sound_differs, image_differs = (
        prints.both(one, other) & ~same for prints, same in zip(kinds, (sound, image), strict=True)
    )
    same_video = corpus.groups[one] == corpus.groups[other]
    return (sound | image) & ~(same_video & (sound_differs | image_differs))


def _texts(ids: pa.ChunkedArray, rows: np.ndarray) -> list[str]:
    return ids.take(pa.array(rows)).to_pylist()


def _reasons(corpus: CorpusPrints, rows: np.ndarray, firsts: np.ndarray) -> Iterator[str]:
    """The original of each clip, and the share of bits in which their fingerprints differ."""
    kinds = {"sound": corpus.sounds, "image": corpus.images}
    shares = {name: prints.distances(rows, firsts) / prints.bits for name, prints in kinds.items()}
    known = {name: prints.both(rows, firsts) for name, prints in kinds.items()}
    for place, first in enumerate(_texts(corpus.ids, firsts)):
        differ = [f"{name} {shares[name][place]:.1%}" for name in kinds if known[name][place]]
        yield f"the same as {first} (bits that differ: {', '.join(differ)})"
