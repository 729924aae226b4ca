"""Dealing the rows of a manifest into shards, before anything is asked for.

Rows of one source come next to each other and into one shard, so that the source is fetched once; sources keep the
order of the manifest, and rows the order within their source. The rows wait in a file meanwhile: in memory a row is a
few hashes and offsets, whatever it holds.
"""

import os
import tempfile
import warnings
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.core.hashing import stable_hash
from earshot.corpus.manifest import ManifestRow, is_parquet
from earshot.corpus.requested import row_of, row_text
from earshot.corpus.selection import Selection

if TYPE_CHECKING:  # which needs the libraries of the network, and processes that read shards do not
    from earshot.download.published import Manifest


def deal(manifest: "Manifest", folder: Path, size: int, selection: Selection | None = None) -> int:
    """Deal the selected rows of a manifest into files of at most `size` rows, a file a shard; return their number.

    A source with more rows than `size` is split. Rows of a published list that ask for one clip again are joined, with
    all annotations.

    Raises EarshotError for a row that cannot be understood, for a manifest without rows, as `Selection.check` does, and
    for a clip that a list of the user's own asks for twice.
    """
    selection = selection or Selection()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        rows = _spool(manifest, selection, file)
        order, lengths = merged(rows.chosen(selection.clips), np.frombuffer(rows.sources, np.uint64))
        begin = number = 0
        for number, count in enumerate(shard_sizes(lengths, size), 1):
            with write_atomically(folder / f"{shard_name(number - 1)}.jsonl") as temporary_path:
                temporary_path.write_bytes(b"".join(rows.read(position) for position in order[begin : begin + count]))
            begin += count
    return number


def merged(chosen: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen rows, those of one source next to each other.

    Args:
        chosen: positions of rows, rising, (rows,).
        sources: the source of every row as a number, chosen or not.

    Returns:
        The positions in their new order, (rows,), and the number of rows of each source, (sources,).
    """
    _, first, source = np.unique(sources[chosen], return_index=True, return_inverse=True)
    order = chosen[np.argsort(first[source], kind="stable")]
    return order, np.bincount(source)[np.argsort(first)]


def shard_sizes(lengths: np.ndarray, size: int) -> Iterator[int]:
    """The rows of each shard of at most `size`, where only sources longer than that are split."""
    filled = 0
    for length in np.ascontiguousarray(lengths, np.int64).data:  # an array's own items would be numpy's
        if filled and filled + min(length, size) > size:
            yield filled
            filled = 0
        filled += length
        while filled >= size:
            yield size
            filled -= size
    if filled:
        yield filled


@dataclass
class _Rows:
    """The rows of a manifest: lines of a file, where each begins there, and eight bytes of each thing that counts."""

    file: BinaryIO
    begins: array = field(default_factory=lambda: array("Q", [0]))  # and where the last one ends
    sources: array = field(default_factory=lambda: array("Q"))
    ranks: array = field(default_factory=lambda: array("Q"))  # where clips are drawn by them
    joined: dict[int, bytes] = field(default_factory=dict)  # rows that have taken in later ones
    dropped: list[int] = field(default_factory=list)  # those later ones

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, row: ManifestRow) -> None:
        text = row_text(row)
        self.file.write(text)
        self.begins.append(self.begins[-1] + len(text))
        self.sources.append(stable_hash(row.source))

    def read(self, position: int) -> bytes:
        begin, end = self.begins[position], self.begins[position + 1]
        return self.joined.get(position) or os.pread(self.file.fileno(), end - begin, begin)

    def chosen(self, most: int) -> np.ndarray:
        """The positions of all rows, or of the `most` with the lowest ranks, rising."""
        kept = np.delete(np.arange(len(self)), self.dropped)
        if not 0 < most < len(kept):
            return kept
        ranks = np.frombuffer(self.ranks, np.uint64)[kept]
        return np.sort(kept[np.argsort(ranks, kind="stable")[:most]])


def _spool(manifest: "Manifest", selection: Selection, file: BinaryIO) -> _Rows:
    """The rows that have the classes wanted, every clip once."""
    rows, line = _Rows(file), 0
    lines, clips = array("Q"), array("Q")  # of the manifest; hashes: both are done with before rows are sorted
    for line, row in manifest.rows():
        if selection.takes(row):
            rows.add(row)
            lines.append(line)
            clips.append(stable_hash(row.clip_id))
            if selection.clips:
                rows.ranks.append(selection.rank(row))
    if not line:
        raise EarshotError(f"{manifest.file}: holds no clips below its header; add rows")
    selection.check(manifest.file)
    file.flush()
    _check_doubles(manifest, rows, lines, np.frombuffer(clips, np.uint64))
    if selection.clips > len(rows) - len(rows.dropped):
        have = len(rows) - len(rows.dropped)
        warnings.warn(f"{manifest.file}: {have:,} clips are there, {selection.clips:,} are wanted", stacklevel=2)
    return rows


def _check_doubles(manifest: "Manifest", rows: _Rows, lines: array, hashes: np.ndarray) -> None:
    """Join the rows of one clip in a published list; refuse them in a list of the user's own, who can mend it."""
    values, counts = np.unique(hashes, return_counts=True)
    seen: dict[str, int] = {}
    for position in np.flatnonzero(np.isin(hashes, values[counts > 1])).tolist():
        row = row_of(rows.read(position))
        first = seen.setdefault(row.clip_id, position)
        if first == position:
            continue
        if not manifest.is_published:
            unit = "row" if is_parquet(manifest.file) else "line"
            raise EarshotError(
                f"{manifest.file}, {unit} {lines[position]}: clip {row.clip_id} is asked for on {unit} "
                f"{lines[first]} already; leave one out, or give the source another name"
            )
        before = row_of(rows.read(first))
        said = tuple(dict.fromkeys((*before.annotations, *row.annotations)))
        rows.joined[first] = row_text(replace(before, annotations=said))
        rows.dropped.append(position)
    if rows.dropped:
        last = row_of(rows.read(rows.dropped[-1])).clip_id
        warnings.warn(f"{manifest.file}: {len(rows.dropped):,} rows ask for a clip again, such as {last}", stacklevel=2)
