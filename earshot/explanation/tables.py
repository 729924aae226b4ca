"""The tables of exhibits: Parquet files in data/explain/<exhibit> for the report and for notebooks.

The module of each exhibit defines the columns of its tables. Images are JPEG (photographs, also with overlays) or PNG
(spectrograms, other graphs, and images that no camera took), sounds are MP3, videos are MP4 (H.264 and AAC). A network
is `encoder`, `wrong_sound` or `random`. Annotations come from humans. Ranks count from 1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.files import write_atomically
from earshot.core.parquet import open_parquet

METADATA_FILE = "exhibit.json"  # beside the tables
SKIPPED = "skipped"  # key of the metadata: the reason why there are no tables
ROW_GROUP = 50  # rows; with images and sounds some megabytes

TEXTS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float32())
INT, REAL, TEXT, BYTES, FLAG = pa.int32(), pa.float32(), pa.string(), pa.binary(), pa.bool_()
MOMENT = {"clip_id": TEXT, "moment": INT, "group": TEXT, "annotations": TEXTS}


def write_table(folder: Path, tables: Mapping[str, pa.Schema], name: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write `<name>.parquet` with the columns `tables[name]` atomically, 50 rows in memory; return their number."""
    waiting, schema, written = iter(rows), tables[name], 0
    with (
        write_atomically(folder / f"{name}.parquet") as temporary_path,
        pq.ParquetWriter(temporary_path, schema) as writer,
    ):
        while group := list(islice(waiting, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += len(group)
    return written


def read_table(folder: Path, name: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of `<name>.parquet`, with all columns or some, one row group in memory at a time.

    Raises EarshotError if the file is missing or damaged, or lacks one of the columns.
    """
    file = folder / f"{name}.parquet"
    with open_parquet(file, columns or (), "explain") as table:
        for group in range(table.num_row_groups):
            yield from table.read_row_group(group, columns, use_threads=False).to_pylist()
