"""Dealing the rows of a manifest into shards, before anything is asked for."""

import itertools
import json
from array import array
from dataclasses import asdict
from pathlib import Path

import numpy as np

from earshot.corpus.manifest import ManifestRow, manifest_file, numbered_rows
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.shards import shard_name, write_atomically


def deal(manifest: Path, folder: Path, size: int) -> int:
    """Deal the rows of a manifest into files of `size` rows, a file a shard; return the number of shards.

    Raises EarshotError for a manifest without rows or with a clip that is asked for twice.
    """
    hashes = array("q")  # eight bytes a clip: a million clips are looked over for doubles in 8 MB
    folder.mkdir(parents=True, exist_ok=True)
    rows = (row for _, row in numbered_rows(manifest))
    number = 0
    while batch := list(itertools.islice(rows, size)):
        hashes.extend(hash(row.clip_id) for row in batch)
        with write_atomically(folder / f"{shard_name(number)}.jsonl") as growing:
            growing.write_text("".join(json.dumps(asdict(row)) + "\n" for row in batch), encoding="utf-8")
        number += 1
    if not number:
        raise EarshotError(f"{manifest_file(manifest)}: holds no clips below its header; add rows")
    _check_doubles(manifest, np.frombuffer(hashes, dtype=np.int64))
    return number


def _check_doubles(manifest: Path, hashes: np.ndarray) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    doubles = set(values[counts > 1].tolist())
    seen: dict[str, int] = {}
    for line, row in numbered_rows(manifest) if doubles else ():
        if hash(row.clip_id) in doubles and seen.setdefault(row.clip_id, line) != line:
            raise EarshotError(
                f"{manifest_file(manifest)}, line {line}: clip {row.clip_id} is asked for on line {seen[row.clip_id]} "
                "already; leave one out, or give the source another name"
            )


def read_asked(path: Path) -> list[ManifestRow]:
    """The rows of one shard, as `deal` wrote them."""
    values = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [ManifestRow(**value | {"annotations": tuple(value["annotations"])}) for value in values]
