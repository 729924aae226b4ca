"""Join the parts of a list that several machines have downloaded: their clips, ledgers and lists of requested clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.files import link_file, shard_name
from earshot.core.hashing import stable_hash
from earshot.corpus.completeness import requested_shard, requested_shards
from earshot.corpus.ledger import read_ledger
from earshot.corpus.requested import read_requested
from earshot.download.earlier import RECORD_FILE, WHOLE, read_record, write_record
from earshot.download.published import LISTS_FILE


def merge_parts(folders: Sequence[Path], output: Path) -> dict[str, int]:
    """Write the clips of all parts to `output`, which does not exist yet; return the counts of clips by status.

    Raises EarshotError if a part is missing, given twice or incomplete, if the parts are of different lists, selections
    or limits, or if a clip is in two of them; nothing is then written.
    """
    folders = _in_order(folders)
    _check_clips(folders)
    counts = {"kept": 0, "refused": 0, "pending": 0}
    number = 0
    for folder in folders:
        for at, (requested, ledger) in enumerate(requested_shards(folder)):
            new_requested, new_ledger = requested_shard(output, number)
            for source, target in ((requested, new_requested), (ledger, new_ledger)):
                link_file(source, target)
            link_file(folder / f"{shard_name(at)}.tar", output / f"{shard_name(number)}.tar")
            for row in read_ledger(ledger):
                counts[row.status] += 1
            number += 1
    if (folders[0] / LISTS_FILE).exists():
        link_file(folders[0] / LISTS_FILE, output / LISTS_FILE)
    record = read_record(folders[0])
    write_record(output, record | {"part": WHOLE, "request": record["whole"]})
    return counts


def _in_order(folders: Sequence[Path]) -> list[Path]:
    """The folders in the order of their parts."""
    records = {folder: read_record(folder) for folder in folders}
    parts: dict[int, Path] = {}
    first = next(iter(records.values()), {})
    for folder, record in records.items():
        if not {"part", "whole", "conditions"} <= record.keys():
            raise EarshotError(
                f"{folder / RECORD_FILE}: is no record of a download; give the folders data/clips of parts"
            )
        for key, what in (("whole", "list, selection or limits"), ("conditions", "limits")):
            if record[key] != first[key]:
                raise EarshotError(f"{folder}: was downloaded with another {what} than {folders[0]}; download it again")
        part, of = map(int, record["part"].split("/"))
        if of != int(first["part"].split("/")[1]) or part in parts:
            other = parts.get(part, folders[0])
            raise EarshotError(
                f"{folder}: is part {record['part']}, {other} is {records[other]['part']}; give each once"
            )
        if _bytes(folder) != _bytes(folders[0]):
            raise EarshotError(
                f"{folder / LISTS_FILE}: differs from {folders[0] / LISTS_FILE}: the published list changed; download "
                "the older of the two parts again"
            )
        parts[part] = folder
    number = int(first["part"].split("/")[1])
    missing = [f"{part}/{number}" for part in range(1, number + 1) if part not in parts]
    if missing:
        raise EarshotError(f"part {', '.join(missing)} is missing; give the folders of all {number} parts")
    return [parts[part] for part in sorted(parts)]


def _bytes(folder: Path) -> bytes | None:
    file = folder / LISTS_FILE
    return file.read_bytes() if file.exists() else None


def _check_clips(folders: Sequence[Path]) -> None:
    """Raise EarshotError for a clip in two parts, and for a shard without its tar file or with another ledger."""
    hashes: list[np.ndarray] = []
    for folder in folders:
        clips: list[int] = []
        for at, (requested, ledger) in enumerate(requested_shards(folder)):
            tar = folder / f"{shard_name(at)}.tar"
            names = [row.clip_id for row in read_requested(requested)]
            if not tar.is_file() or not ledger.is_file() or names != [row.clip_id for row in read_ledger(ledger)]:
                raise EarshotError(f"{tar}: the shard is incomplete; copy the folder again")
            clips += [stable_hash(name) for name in names]
        hashes.append(np.unique(np.array(clips, np.uint64)))
        if len(hashes[-1]) < len(clips):
            raise EarshotError(f"{folder}: has a clip twice; download it again")
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    doubled = set(values[counts > 1].tolist())
    for folder in folders if doubled else ():
        for requested, _ in requested_shards(folder):
            for row in read_requested(requested):
                if stable_hash(row.clip_id) in doubled:
                    raise EarshotError(
                        f"{folder}: the clip {row.clip_id} is in another part too; download the parts again"
                    )


def summary(counts: dict[str, Any], output: Path) -> str:
    """The closing line."""
    return f"{output}: {counts['kept']:,} clips kept, {counts['refused']:,} refused, {counts['pending']:,} pending"
