"""A few clips out of the table of scenes."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths


def read_clips(scenes: Path, wanted: Container[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """These columns of the clips whose names are `wanted`, in the order of the table; of a row group only their rows.

    Raises EarshotError where a shard cannot be read.
    """
    for shard in shard_paths(scenes, ".parquet"):
        try:
            with pq.ParquetFile(shard) as file:
                for number in range(file.num_row_groups):
                    names = file.read_row_group(number, columns=["clip_id"], use_threads=False)["clip_id"].to_pylist()
                    rows = [row for row, name in enumerate(names) if name in wanted]
                    if rows:
                        table = file.read_row_group(number, columns=list(columns), use_threads=False)
                        for row in rows:  # one at a time: a taken column of pictures would be copied whole
                            yield table.slice(row, 1).to_pylist()[0]
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise EarshotError(f"{shard}: cannot be read ({reason}); run the stage extract again") from None
