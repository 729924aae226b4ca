"""Parquet files: open one for reading, or raise an error of one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.messages import first_line


@contextmanager
def open_parquet(path: Path, columns: Sequence[str], stage: str) -> Iterator[pq.ParquetFile]:
    """Open a file to read these columns from it.

    Args:
        stage: the stage that writes the file, for error messages.

    Raises:
        EarshotError: the file is missing, damaged or not Parquet (also if reading it shows this), or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                problem = f"has no column {missing[0]}, found {', '.join(names)}"
                raise EarshotError(f"{path}: {problem}; run the stage {stage} again")
            yield file
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise EarshotError(f"{path}: cannot be read ({first_line(error)}); run the stage {stage} again") from None
