"""Divide the rows of a manifest into shards, before any request.

Rows of one source are adjacent and in one shard, so that the source is fetched once. Sources keep the order of the
manifest, and rows their order within a source. The rows are spooled to a file; in memory each row is a few hashes and
offsets.
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
from earshot.corpus.manifest import ManifestRow, is_parquet, source_name
from earshot.corpus.overlaps import merged_groups, rows_with_rival_groups
from earshot.corpus.requested import row_of, row_text
from earshot.corpus.selection import Selection

if TYPE_CHECKING:  # importing it requires network libraries, which processes that read shards do not need
    from earshot.download.published import Manifest


def write_shard_lists(manifest: "Manifest", folder: Path, size: int, selection: Selection | None = None) -> int:
    """Write the selected rows of a manifest to files of at most `size` rows, one for each shard; return their number.

    A source with more rows than `size` is split. Duplicate rows of a published list become one, with all annotations.

    Raises EarshotError for an invalid row, for a manifest without rows, as `Selection.check` does, and for duplicate
    rows of the user's own list.
    """
    selection = selection or Selection()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        rows = _spool(manifest, selection, file)
        selected = rows.select(selection.clips)
        if selection.part != (1, 1):
            in_part = [selection.is_in_part(row_of(rows.read(position))) for position in selected.tolist()]
            selected = selected[np.array(in_part, bool)]
            if not len(selected):
                raise EarshotError(
                    f"{manifest.file}: no clip is in this corpus.select.part; divide it into fewer parts"
                )
        order, lengths = merge_sources(selected, np.frombuffer(rows.sources, np.uint64))
        begin = number = 0
        for number, count in enumerate(shard_sizes(lengths, size), 1):
            with write_atomically(folder / f"{shard_name(number - 1)}.jsonl") as temporary_path:
                temporary_path.write_bytes(b"".join(rows.read(position) for position in order[begin : begin + count]))
            begin += count
    return number


def merge_sources(selected: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The selected rows, with those of one source adjacent.

    Args:
        selected: positions of rows, ascending, (rows,).
        sources: the source of every row as a number, also of rows that are not selected.

    Returns:
        The positions in their new order, (rows,), and the number of rows of each source, (sources,).
    """
    _, first, source = np.unique(sources[selected], return_index=True, return_inverse=True)
    order = selected[np.argsort(first[source], kind="stable")]
    return order, np.bincount(source)[np.argsort(first)]


def shard_sizes(lengths: np.ndarray, size: int) -> Iterator[int]:
    """The number of rows of each shard, at most `size`; splits only sources that are longer."""
    filled = 0
    for length in np.ascontiguousarray(
        lengths, np.int64
    ).data:  # iterating over the array itself would give numpy scalars
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
    """The rows of a manifest: lines of a file, their offsets, and 8-byte hashes."""

    file: BinaryIO
    begins: array = field(default_factory=lambda: array("Q", [0]))  # and the end of the last one
    sources: array = field(default_factory=lambda: array("Q"))
    ranks: array = field(default_factory=lambda: array("Q"))  # only if a number of clips is drawn
    joined: dict[int, bytes] = field(default_factory=dict)  # rows with the annotations of later duplicates
    dropped: list[int] = field(default_factory=list)  # the later duplicates

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, row: ManifestRow) -> None:
        text = row_text(row)
        self.file.write(text)
        self.begins.append(self.begins[-1] + len(text))
        self.sources.append(stable_hash(source_name(row)))

    def read(self, position: int) -> bytes:
        begin, end = self.begins[position], self.begins[position + 1]
        return self.joined.get(position) or os.pread(self.file.fileno(), end - begin, begin)

    def select(self, limit: int) -> np.ndarray:
        """The positions of all rows, or of the `limit` rows with the lowest ranks, ascending."""
        kept = np.delete(np.arange(len(self)), self.dropped)
        if not 0 < limit < len(kept):
            return kept
        ranks = np.frombuffer(self.ranks, np.uint64)[kept]
        return np.sort(kept[np.argsort(ranks, kind="stable")[:limit]])


def _spool(manifest: "Manifest", selection: Selection, file: BinaryIO) -> _Rows:
    """The rows with the selected classes, each clip once; overlapping pieces of a source share a group."""
    rows, line = _Rows(file), 0
    lines, clips, groups = array("Q"), array("Q"), array("Q")  # of the manifest; hashes; freed before rows are sorted
    for line, row in manifest.rows():
        if selection.takes(row):
            rows.add(row)
            lines.append(line)
            clips.append(stable_hash(row.clip_id))
            if not manifest.is_published:  # whose groups are the sources
                groups.append(stable_hash(row.group))
            if selection.clips:
                rows.ranks.append(selection.rank(row))
    if not line:
        raise EarshotError(f"{manifest.file}: holds no clips below its header; add rows")
    selection.check(manifest.file)
    file.flush()
    _check_doubles(manifest, rows, lines, np.frombuffer(clips, np.uint64))
    if groups:
        _merge_groups(manifest, rows, lines, np.frombuffer(groups, np.uint64))
    if selection.clips > len(rows) - len(rows.dropped):
        have = len(rows) - len(rows.dropped)
        warnings.warn(f"{manifest.file}: has {have:,} clips, corpus.select.clips is {selection.clips:,}", stacklevel=2)
    return rows


def _check_doubles(manifest: "Manifest", rows: _Rows, lines: array, hashes: np.ndarray) -> None:
    """Merge duplicate rows of a published list; raise EarshotError for those of the user's own list."""
    values, counts = np.unique(hashes, return_counts=True)
    first_positions: dict[str, int] = {}
    for position in np.flatnonzero(np.isin(hashes, values[counts > 1])).tolist():
        row = row_of(rows.read(position))
        first = first_positions.setdefault(row.clip_id, position)
        if first == position:
            continue
        if not manifest.is_published:
            unit = "row" if is_parquet(manifest.file) else "line"
            raise EarshotError(
                f"{manifest.file}, {unit} {lines[position]}: clip {row.clip_id} repeats {unit} "
                f"{lines[first]}; remove one of them, or give the source another name"
            )
        before = row_of(rows.read(first))
        annotations = tuple(dict.fromkeys((*before.annotations, *row.annotations)))
        rows.joined[first] = row_text(replace(before, annotations=annotations))
        rows.dropped.append(position)
    if rows.dropped:
        last = row_of(rows.read(rows.dropped[-1])).clip_id
        warnings.warn(f"{manifest.file}: {len(rows.dropped):,} rows repeat a clip, such as {last}", stacklevel=2)


def _merge_groups(manifest: "Manifest", rows: _Rows, lines: array, groups: np.ndarray) -> None:
    """Give overlapping pieces of one source, and all other rows of their groups, one group."""
    sources = np.frombuffer(rows.sources, np.uint64)
    rivals = rows_with_rival_groups(sources, groups)
    times = [(round(row.start * 1000), round(row.end * 1000)) for row in (row_of(rows.read(p)) for p in rivals)]
    starts, ends = np.array(times, np.int64).reshape(-1, 2).T
    merged = merged_groups(sources[rivals], starts, ends, groups[rivals])
    if not merged:
        return
    changed = np.flatnonzero(np.isin(groups, np.array(list(merged), np.uint64))).tolist()
    names, begins = np.unique(groups, return_index=True)
    first = dict(zip(names.tolist(), begins.tolist(), strict=True))
    for position in changed:
        group = row_of(rows.read(first[merged[int(groups[position])]])).group
        rows.joined[position] = row_text(replace(row_of(rows.read(position)), group=group))
    unit = "row" if is_parquet(manifest.file) else "line"
    line, kept = lines[changed[0]], first[merged[int(groups[changed[0]])]]
    warnings.warn(
        f"{manifest.file}: pieces of one source overlap under different groups, so {len(changed):,} rows change their "
        f"group; {unit} {line} gets {row_of(rows.read(kept)).group!r} of {unit} {lines[kept]}; give them one group",
        stacklevel=2,
    )
