"""Parquet files that are opened to be read: what is wrong with one is told in one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.text import first_line


@contextmanager
def open_parquet(path: Path, columns: Sequence[str], stage: str) -> Iterator[pq.ParquetFile]:
    """A file to read these columns from.

    Args:
        stage: that writes the file, for the messages.

    Raises:
        EarshotError: the file is missing, damaged or no Parquet, also where that shows while it is read, or it lacks a
            column.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                found = f"has no column {missing[0]}, found {', '.join(names)}"
                raise EarshotError(f"{path}: {found}; run the stage {stage} again")
            yield file
    except (OSError, pa.ArrowException) as error:
        raise EarshotError(f"{path}: cannot be read ({first_line(error)}); run the stage {stage} again") from None
