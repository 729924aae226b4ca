"""The clips of a run as one plain table, which other viewers show: every clip that was listed, kept or refused.

| column | |
|---|---|
| clip_id, source | name of the clip, and its file |
| status, reason, detail | kept or refused, and why |
| group, split, duration | of a kept clip |
| annotations, flags | of humans; possible faults |
| peak, clipped, change | the measurements behind the flags |
| image, image_time | the middle frame, a JPEG, and its time in seconds |
| sound | FLAC |
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.files import shard_paths, write_atomically
from earshot.corpus.ledger import LedgerRow, read_ledger
from earshot.scenes.annotations import read_annotations
from earshot.scenes.table import read_row_groups

COPIED = ("group", "split", "duration", "flags", "peak", "clipped", "change", "sound")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("clip_id", "source", "status", "reason", "detail", "group", "split")]
    + [("duration", pa.float64()), ("annotations", pa.list_(pa.string())), ("flags", pa.list_(pa.string()))]
    + [(name, pa.float32()) for name in ("peak", "clipped", "change")]
    + [("image", pa.binary()), ("image_time", pa.float64()), ("sound", pa.binary())]
)
ROWS_AT_ONCE = 100


def write_parquet(root: Path, output: Path) -> int:
    """Write the table of the clips of a run; return their number.

    Raises EarshotError if the stage extract has not run under `root`.
    """
    number, rows = 0, []
    with write_atomically(output) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for row in _clips(root):
            rows.append(row)
            number += 1
            if len(rows) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return number


def _clips(root: Path) -> Iterator[dict[str, Any]]:
    """The row of every clip, kept clips first in each shard."""
    scenes = root / "data" / "scenes"
    for shard in shard_paths(scenes, ".parquet"):
        ledger = {row.clip_id: row for row in read_ledger(scenes / "ledger" / f"{shard.stem}.csv")}
        annotations = read_annotations(root / "data" / "annotations" / shard.name)
        for _, group in read_row_groups(shard, ["clip_id", "frames", "times", *COPIED]):
            for number in range(len(group)):
                (clip,) = group.slice(number, 1).to_pylist()
                row = ledger.pop(clip["clip_id"], LedgerRow(clip["clip_id"], "", "kept"))
                yield _of_ledger(row) | _of_scene(clip) | {"annotations": annotations.get(row.clip_id, [])}
        yield from map(_of_ledger, ledger.values())


def _of_ledger(row: LedgerRow) -> dict[str, Any]:
    return vars(row)


def _of_scene(clip: dict[str, Any]) -> dict[str, Any]:
    copied = {name: clip[name] for name in COPIED}
    middle = len(clip["frames"]) // 2
    image = {"image": clip["frames"][middle], "image_time": clip["times"][middle]} if clip["frames"] else {}
    return copied | image
