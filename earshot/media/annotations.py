"""What humans said of clips, in a table of its own that no training stage reads: clip_id and a list of annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.pipeline.shards import write_atomically

SCHEMA = pa.schema([("clip_id", pa.string()), ("annotations", pa.list_(pa.string()))])


def write_annotations(path: Path, annotations: Mapping[str, Sequence[str]]) -> None:
    """Write a shard, a row a clip (also one of which nobody said anything), whole or not at all."""
    columns = {"clip_id": list(annotations), "annotations": [list(said) for said in annotations.values()]}
    with write_atomically(path) as growing:
        pq.write_table(pa.table(columns, schema=SCHEMA), growing, compression="none", row_group_size=100)


def read_annotations(path: Path) -> dict[str, list[str]]:
    """Read a shard: annotations by clip_id."""
    table = pq.read_table(path, schema=SCHEMA)
    return dict(zip(table["clip_id"].to_pylist(), table["annotations"].to_pylist(), strict=True))
