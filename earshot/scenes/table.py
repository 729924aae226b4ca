"""The table of scenes that the stage extract writes: a row a clip, one Parquet file a shard.

| column | |
|---|---|
| clip_id, group, split | name of the clip, its source video, and the split that follows from the group |
| duration | seconds with both video and sound; time 0 is when both have begun |
| frames, times | JPEG images and the time of each in seconds, in order |
| sound, sound_rate, sound_channels | FLAC of the whole clip from time 0 on, at its own sample rate, mono or stereo |
| sequence, sequence_rate | JPEG images of the whole clip from time 0 on, that many a second; none if the rate is 0 |
| flags | possible faults of the clip: silent, still, clipped, duplicate (`extract.quality`) |
| peak, clipped, change | the measurements behind the flags (`earshot.media.quality`) |
| audio_print, image_print | fingerprints for detecting duplicates; empty where a clip has none |

Only this module opens its files. `SceneTable` reads the whole table, `read_scenes` one shard: the requested columns,
one row group in memory at a time. An invalid shard raises an error of one line.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths
from earshot.core.messages import first_line
from earshot.core.parquet import open_parquet
from earshot.scenes.arrow import bytes_in

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("duration", pa.float64()),
        ("frames", pa.list_(pa.binary())),
        ("times", pa.list_(pa.float64())),
        ("sound", pa.binary()),
        ("sound_rate", pa.int32()),
        ("sound_channels", pa.int8()),
        ("sequence", pa.list_(pa.binary())),
        ("sequence_rate", pa.float64()),
        ("flags", pa.list_(pa.string())),
        ("peak", pa.float32()),
        ("clipped", pa.float32()),
        ("change", pa.float32()),
        ("audio_print", pa.binary()),
        ("image_print", pa.binary()),
    ]
)
STAGE = "extract"  # which writes the table


@dataclass(frozen=True)
class RowGroup:
    """A row group of a shard, at most 25 clips, which `read` reads."""

    shard: Path
    number: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns of its clips. Raises EarshotError if the shard cannot be read."""
        with open_parquet(self.shard, columns, STAGE) as file:
            return _read(file, self.number, columns, self.shard)


class SceneTable:
    """Reads the whole table.

    Args:
        folder: of the shards.

    Attributes:
        shards: the files, in order.

    Raises:
        EarshotError: the folder holds no shards, or one is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.shards = folder, shard_paths(folder, ".parquet")

    def split(self, name: str, columns: Sequence[str]) -> Iterator[tuple[RowGroup, np.ndarray, pa.Table]]:
        """The row groups with clips of a split, each with the rows of these clips and their columns.

        Rows are int64 (clips,). Raises EarshotError if a shard cannot be read.
        """
        for shard in self.shards:
            for group, table in read_row_groups(shard, ["split", *columns]):
                rows = np.flatnonzero(np.array(table["split"].to_pylist()) == name)
                if len(rows):
                    yield group, rows, table.take(pa.array(rows))

    def clips(self, names: Container[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """These columns of the clips with these ids, in the order of the table; nothing of other clips is copied.

        Raises EarshotError if a shard cannot be read.
        """
        for shard in self.shards:
            for group, table in read_row_groups(shard, ["clip_id"]):
                rows = [row for row, name in enumerate(table["clip_id"].to_pylist()) if name in names]
                if rows:
                    selected = group.read(columns)
                    for row in rows:  # one at a time: `take` would copy a whole column of images
                        yield selected.slice(row, 1).to_pylist()[0]


def read_row_groups(shard: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[tuple[RowGroup, pa.Table]]:
    """The row groups of a shard, each with these columns of its clips. Raises EarshotError if it cannot be read."""
    with open_parquet(shard, columns, STAGE) as file:
        for number in range(file.num_row_groups):
            yield RowGroup(shard, number), _read(file, number, columns, shard)


def _read(file: pq.ParquetFile, number: int, columns: Sequence[str], shard: Path) -> pa.Table:
    """A row group as `write_scenes` writes it. Raises EarshotError or pyarrow's errors where damage has changed it."""
    try:
        table = file.read_row_group(number, columns=list(columns), use_threads=False)
        table.validate(full=True)  # offsets within the data, text in UTF-8
    except (ValueError, OverflowError, MemoryError) as error:  # of sizes that damage has changed, before they are used
        raise EarshotError(f"{shard}: cannot be read ({first_line(error)}); run the stage extract again") from None
    for name in columns:
        column, kind = table[name], SCHEMA.field(name).type
        if column.type != kind:
            raise _damaged(shard, f"its column {name} holds {column.type}, expected {kind}")
        values = [column, pc.list_flatten(column)] if pa.types.is_list(kind) else [column]
        if any(part.null_count for part in values):
            raise _damaged(shard, f"its column {name} has empty values, expected {kind} in each row")
    if {"frames", "times"} <= set(columns):
        lengths = [pc.list_value_length(table[name]) for name in ("frames", "times")]
        if not pc.all(pc.equal(*lengths), min_count=0).as_py():
            raise _damaged(shard, "a clip has another number of frames than of times, expected one time a frame")
    return table


def _damaged(shard: Path, fault: str) -> EarshotError:
    return EarshotError(f"{shard}: cannot be read ({fault}); run the stage extract again")


def read_scenes(shard: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.Table]:
    """The row groups of a shard as tables with these columns."""
    return (table for _, table in read_row_groups(shard, columns))


def frames_in(table: pa.Table, rows: np.ndarray, moments: np.ndarray) -> Iterator[bytes]:
    """JPEG frames from a row group's column `frames`, by the row of the clip and the number of the frame within it."""
    column = table["frames"]
    lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # copies all
    places = lists.offsets.to_numpy()[rows] + moments
    return map(bytes, bytes_in(lists.values, places.tolist()))


@contextmanager
def decoding_frames(scenes: Path) -> Iterator[None]:
    """Turns the error of a JPEG decoder in this context into an EarshotError that names the table."""
    try:
        yield
    except ValueError as error:
        message = f"{scenes}: a frame is not JPEG ({first_line(error)})"
        raise EarshotError(f"{message}; run the stage extract again") from None
