"""Reuse the clips of an earlier run.

The clips of the last run stay until the next run has finished (`persist` in dvc.yaml), with a record of their request.
A run with the same request keeps them all. Another run reuses each row that is identical and has the same conditions:
kept clips from their tar files, refused ones with their reasons. Files beside the manifest may have changed, so they
are read again.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.files import link_file, shard_name, write_atomically
from earshot.core.hashing import fingerprint, stable_hash
from earshot.corpus.completeness import requested_shard, requested_shards
from earshot.corpus.ledger import LedgerRow, count, read_ledger
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.requested import public_row, read_requested, row_text
from earshot.params.download import DownloadParams

WHOLE = "1/1"  # the part that has all clips
RECORD_FILE = "download.json"  # beside the clips
INDEX = np.dtype([("row", np.uint64), ("shard", np.uint32)])  # hash of a requested row, and its shard


def record_of(inputs: Sequence[Path], params: DownloadParams, format_version: int | None) -> dict[str, Any]:
    """The record of a request.

    Keys: `conditions`, which decide the outcome of a requested row; `request`, a hash of the conditions, the content of
    the manifest and the selection; `part`; `whole`, the `request` of all parts together.
    """
    conditions = {"format_version": format_version} | params.download.model_dump(exclude={"shard_clips"})
    select = params.corpus.select
    requests = (
        fingerprint(inputs, {"select": each.model_dump(), "download": params.download.model_dump()} | conditions)
        for each in (select, select.model_copy(update={"part": WHOLE}))
    )
    return {"request": next(requests), "conditions": conditions, "part": select.part, "whole": next(requests)}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record beside the clips."""
    with write_atomically(folder / RECORD_FILE) as temporary_path:
        temporary_path.write_text(json.dumps(record, indent=2) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """The record beside clips; empty if there is none or it cannot be read."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def count_outcomes(rows: Iterable[LedgerRow]) -> dict[str, int]:
    """Counts of a ledger under the names of the metrics, and pending_<reason>."""
    rows = list(rows)
    pending = Counter(f"pending_{row.reason}" for row in rows if row.status == "pending")
    return count(rows, total="clips_requested") | pending


def counts_of_finished(folder: Path, record: dict[str, Any]) -> Counter[str] | None:
    """The counts of the clips in `folder` if a run with this record would produce the same clips; otherwise None."""
    counts: Counter[str] = Counter()
    if read_record(folder) != record:
        return None
    try:
        for number, (requested_path, ledger) in enumerate(requested_shards(folder)):
            rows = read_ledger(ledger)
            same = [row.clip_id for row in rows] == [row.clip_id for row in read_requested(requested_path)]
            if not same or not _tar(folder, number).is_file():
                return None
            counts.update(count_outcomes(rows))
    except (OSError, ValueError, EarshotError):
        return None
    return counts if counts["clips_requested"] and not counts["clips_pending"] else None


def index_earlier(folder: Path, record: dict[str, Any], index: Path) -> "Earlier | None":
    """The earlier clips in `folder` with an index of their rows; None if they have other conditions."""
    if read_record(folder).get("conditions") != record["conditions"]:
        return None
    hashes = [
        np.array([(stable_hash(line), number) for line in requested_path.read_text().splitlines(keepends=True)], INDEX)
        for number, (requested_path, _) in enumerate(requested_shards(folder))
    ]
    with write_atomically(index) as temporary_path, open(temporary_path, "wb") as file:
        np.save(file, np.sort(np.concatenate(hashes or [np.empty(0, INDEX)])))
    return Earlier(folder, index)


@dataclass(frozen=True)
class Earlier:
    """The clips of an earlier run in `folder`, and the file with the `index` of its rows."""

    folder: Path
    index: Path

    def link_shard(self, number: int, requested_path: Path, tar: Path) -> list[LedgerRow] | None:
        """Link the tar file of a shard with the same, all settled rows to `tar`; return its ledger, or None."""
        before, ledger = requested_shard(self.folder, number)
        try:
            requested = read_requested(requested_path)
            same = read_requested(before) == list(map(public_row, requested)) and not any(r.is_local for r in requested)
            rows = read_ledger(ledger) if same else []
            if not rows or any(row.status == "pending" for row in rows):
                return None
            link_file(_tar(self.folder, number), tar)
        except (FileNotFoundError, ValueError, EarshotError):
            return None
        return rows

    def take(self, requested: Iterable[ManifestRow], folder: Path) -> Iterator[LedgerRow]:
        """Yield the ledger rows of the requested rows that are settled; copy kept clips into `folder`."""
        index = np.load(self.index, mmap_mode="r")
        by_shard: dict[int, list[ManifestRow]] = {}
        for row in requested:
            key = np.uint64(stable_hash(row_text(public_row(row)).decode()))
            position = np.searchsorted(index["row"], key)
            if not row.is_local and position < len(index) and index["row"][position] == key:
                by_shard.setdefault(int(index["shard"][position]), []).append(row)
        for number, rows in by_shard.items():
            try:
                yield from self._take_shard(number, rows, folder)
            except (OSError, ValueError, KeyError, tarfile.TarError, EarshotError):
                continue  # damaged files are fetched again

    def _take_shard(self, number: int, rows: list[ManifestRow], folder: Path) -> Iterator[LedgerRow]:
        before, ledger = requested_shard(self.folder, number)
        requested, outcomes = set(read_requested(before)), {row.clip_id: row for row in read_ledger(ledger)}
        with tarfile.open(_tar(self.folder, number)) as tar:
            for row in rows:
                outcome = outcomes[row.clip_id]
                if public_row(row) not in requested or outcome.status == "pending":
                    continue
                for suffix in ("json", "mp4") if outcome.status == "kept" else ():
                    name = f"{row.clip_id}.{suffix}"
                    if clip := tar.extractfile(name):
                        with write_atomically(folder / name) as temporary_path:
                            temporary_path.write_bytes(clip.read())
                yield outcome


def _tar(folder: Path, number: int) -> Path:
    return folder / f"{shard_name(number)}.tar"
