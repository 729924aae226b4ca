"""The tables of exhibits, Parquet files in data/explain/<exhibit>: what a report reads and a notebook can.

Each exhibit's module says which columns its tables have. Pictures are JPEG (photographs, also with something drawn over
them) or PNG (spectrograms and other graphs), sounds are MP3, videos MP4 (H.264 and AAC). A network is `encoder`,
`wrong_sound` or `random`. Annotations are what humans said. A rank counts from 1.
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
NOTHING = "nothing"  # the fact that says why there is nothing to show
ROW_GROUP = 50  # rows, of pictures and sounds: some megabytes

TEXTS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float32())
INT, REAL, TEXT, BYTES, FLAG = pa.int32(), pa.float32(), pa.string(), pa.binary(), pa.bool_()
MOMENT = {"clip_id": TEXT, "moment": INT, "group": TEXT, "annotations": TEXTS}


def write_table(folder: Path, tables: Mapping[str, pa.Schema], name: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write `<name>.parquet` of the columns `tables[name]`, whole or not at all, fifty rows in memory; their number."""
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
    """The rows of `<name>.parquet`, of all columns or of some, one row group in memory at a time.

    Raises EarshotError where it is missing or damaged, or lacks one of the columns.
    """
    file = folder / f"{name}.parquet"
    with open_parquet(file, columns or (), "explain") as table:
        for group in range(table.num_row_groups):
            yield from table.read_row_group(group, columns, use_threads=False).to_pylist()
