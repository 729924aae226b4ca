"""The clips of a run as one plain table, which other viewers show: every clip that was listed, kept or refused.

| column | |
|---|---|
| clip_id, source | name of the clip, and its file |
| status, reason, detail | kept or refused, and why |
| group, split, duration | of a kept clip |
| annotations, flags | of humans; possible faults |
| peak, clipped, change | the measurements behind the flags |
| frames, times | the frames, JPEG, and their times in seconds |
| image, image_time | the middle frame, for viewers that show one, and its time |
| sound | FLAC |
| audio_embedding, image_embedding | mean over the clip, from a table of `earshot embed` |
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.files import shard_paths, write_atomically
from earshot.corpus.ledger import LedgerRow, read_ledger
from earshot.embedding.table import read_origin, read_parts, vectors
from earshot.scenes.annotations import read_annotations
from earshot.scenes.table import read_row_groups

COPIED = ("group", "split", "duration", "flags", "peak", "clipped", "change", "frames", "times", "sound")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("clip_id", "source", "status", "reason", "detail", "group", "split")]
    + [("duration", pa.float64()), ("annotations", pa.list_(pa.string())), ("flags", pa.list_(pa.string()))]
    + [(name, pa.float32()) for name in ("peak", "clipped", "change")]
    + [("frames", pa.list_(pa.binary())), ("times", pa.list_(pa.float64()))]
    + [("image", pa.binary()), ("image_time", pa.float64()), ("sound", pa.binary())]
    + [(f"{name}_embedding", pa.list_(pa.float32())) for name in ("audio", "image")]
)
ROWS_AT_ONCE = 100


class ClipEmbeddings:
    """The mean embeddings of clips, from a table of `earshot embed`; one float32 vector a clip and modality in memory.

    Raises EarshotError if the file is no such table.
    """

    def __init__(self, table: Path) -> None:
        origin = read_origin(table)
        dimensions = {"audio": origin.audio_dimensions, "images": origin.image_dimensions}
        self._sums: dict[str, dict[str, np.ndarray]] = {name: {} for name, size in dimensions.items() if size}
        self._numbers: dict[tuple[str, str], int] = defaultdict(int)
        for part in read_parts(table, ["clip_id", *self._sums]):
            clip_ids = part["clip_id"].to_pylist()
            for name, sums in self._sums.items():
                values, rows = vectors(part[name], dimensions[name])
                for row, value in zip(rows, values, strict=True):
                    clip_id = clip_ids[row]
                    sums[clip_id] = sums[clip_id] + value if clip_id in sums else value.copy()
                    self._numbers[name, clip_id] += 1

    def of(self, clip_id: str) -> dict[str, list[float]]:
        """The columns of a clip; none that it has no embedding for."""
        names = [name for name, sums in self._sums.items() if clip_id in sums]
        means = {name: self._sums[name][clip_id] / self._numbers[name, clip_id] for name in names}
        return {f"{name.removesuffix('s')}_embedding": mean.tolist() for name, mean in means.items()}


def write_parquet(root: Path, output: Path, embeddings: ClipEmbeddings | None = None) -> int:
    """Write the table of the clips of a run; return their number.

    Raises EarshotError if the stage extract has not run under `root`.
    """
    number, rows = 0, []
    with write_atomically(output) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for row in clip_rows(root, embeddings):
            rows.append(row)
            number += 1
            if len(rows) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return number


def clip_rows(root: Path, embeddings: ClipEmbeddings | None = None) -> Iterator[dict[str, Any]]:
    """The row of every clip, kept clips first in each shard; columns without a value are left out.

    Raises EarshotError if the stage extract has not run under `root`.
    """
    scenes = root / "data" / "scenes"
    for shard in shard_paths(scenes, ".parquet"):
        ledger = {row.clip_id: row for row in read_ledger(scenes / "ledger" / f"{shard.stem}.csv")}
        annotations = read_annotations(root / "data" / "annotations" / shard.name)
        for _, group in read_row_groups(shard, ["clip_id", *COPIED]):
            for number in range(len(group)):
                (clip,) = group.slice(number, 1).to_pylist()
                row = ledger.pop(clip["clip_id"], LedgerRow(clip["clip_id"], "", "kept"))
                embedded = embeddings.of(row.clip_id) if embeddings else {}
                yield _of_ledger(row) | _of_scene(clip) | {"annotations": annotations.get(row.clip_id, [])} | embedded
        yield from map(_of_ledger, ledger.values())


def _of_ledger(row: LedgerRow) -> dict[str, Any]:
    return vars(row)


def _of_scene(clip: dict[str, Any]) -> dict[str, Any]:
    copied = {name: clip[name] for name in COPIED}
    middle = len(clip["frames"]) // 2
    image = {"image": clip["frames"][middle], "image_time": clip["times"][middle]} if clip["frames"] else {}
    return copied | image
