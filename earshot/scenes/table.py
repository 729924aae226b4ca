"""The table of scenes: what extract makes of clips, a row a clip, one Parquet file a shard.

| column | |
|---|---|
| clip_id, group, split | who the clip is, which video it comes from, which side of the split that puts it on |
| duration | seconds for which there is both picture and sound; time 0 is where both have begun |
| frames, times | JPEG pictures and the time of each in seconds, in order |
| sound, sound_rate, sound_channels | FLAC of the whole clip from time 0 on, at its own rate, mono or stereo |
| sequence, sequence_rate | JPEG pictures of the whole clip from time 0 on, so many a second; none where the rate is 0 |
| flags | what may be wrong with the clip: silent, still, clipped, duplicate (`extract.quality`) |
| peak, clipped, change | what the flags were told by (`earshot.media.quality`) |
| sound_print, picture_print | fingerprints by which duplicates are found; empty where there is nothing to be known by |

Nothing else opens its files. `SceneTable` reads the whole table, `read_scenes` one shard: the columns asked for, a row
group in memory at a time. What is wrong with a shard they say in one line.
"""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths, write_atomically
from earshot.core.parquet import open_parquet
from earshot.core.text import first_line
from earshot.corpus.split import split_of
from earshot.media.quality import Measured
from earshot.scenes.arrow import binary_column, list_column, number_column, text_column

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
        ("sound_print", pa.binary()),
        ("picture_print", pa.binary()),
    ]
)
STAGE = "extract"  # which writes the table
ROW_GROUP = 100  # clips; read singly, larger groups are slow to draw from at random
ROW_GROUP_BYTES = 64 << 20  # a group of long clips is closed earlier: it is held in memory whole


@dataclass(frozen=True)
class Scene:
    """One clip after extraction; its fields and those of `measured` are the columns, `split` follows from `group`."""

    clip_id: str
    group: str
    duration: float
    frames: list[bytes]
    times: list[float]
    sound: bytes
    sound_rate: int
    sound_channels: int
    sequence: list[bytes] = field(default_factory=list)
    sequence_rate: float = 0.0
    measured: Measured = field(default_factory=Measured)
    flags: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of pictures and sound."""
        return len(self.sound) + sum(len(frame) for frame in [*self.frames, *self.sequence])


def write_scenes(path: Path, scenes: Iterable[Scene]) -> int:
    """Write a shard, whole or not at all, holding one row group in memory; return the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with write_atomically(path) as growing, _writer(growing) as writer:
        for group in _row_groups(scenes):
            writer.write_table(_table(group), row_group_size=len(group))
            rows += len(group)
    return rows


@dataclass(frozen=True)
class RowGroup:
    """A row group of a shard, at most 100 clips, to be read whenever it is wanted."""

    shard: Path
    number: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns of its clips. Raises EarshotError where the shard cannot be read."""
        with open_parquet(self.shard, columns, STAGE) as file:
            return file.read_row_group(self.number, columns=list(columns), use_threads=False)


class SceneTable:
    """The whole table, to be read.

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
        """The row groups that have clips of a split, with the rows of these clips and these columns of them.

        Rows are int64 (clips,). Raises EarshotError where a shard cannot be read.
        """
        for shard in self.shards:
            for group, table in read_row_groups(shard, ["split", *columns]):
                rows = np.flatnonzero(np.array(table["split"].to_pylist()) == name)
                if len(rows):
                    yield group, rows, table.take(pa.array(rows))

    def clips(self, names: Container[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """These columns of the clips of these names, in the order of the table; other clips' columns are not copied.

        Raises EarshotError where a shard cannot be read.
        """
        for shard in self.shards:
            for group, table in read_row_groups(shard, ["clip_id"]):
                rows = [row for row, name in enumerate(table["clip_id"].to_pylist()) if name in names]
                if rows:
                    found = group.read(columns)
                    for row in rows:  # one at a time: a taken column of pictures would be copied whole
                        yield found.slice(row, 1).to_pylist()[0]


def read_row_groups(shard: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[tuple[RowGroup, pa.Table]]:
    """The row groups of a shard, each with these columns of its clips. Raises EarshotError where it cannot be read."""
    with open_parquet(shard, columns, STAGE) as file:
        for number in range(file.num_row_groups):
            yield RowGroup(shard, number), file.read_row_group(number, columns=list(columns), use_threads=False)


def read_scenes(shard: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.Table]:
    """The same tables alone."""
    return (table for _, table in read_row_groups(shard, columns))


def frames_in(table: pa.Table, rows: np.ndarray, moments: np.ndarray) -> Iterator[bytes]:
    """JPEG frames of a row group's column `frames`: the row of each one's clip and its place among that clip's."""
    column = table["frames"]
    lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies all
    places = lists.offsets.to_numpy()[rows] + moments
    return (lists.values[place].as_py() for place in places.tolist())


@contextmanager
def decoding_frames(scenes: Path) -> Iterator[None]:
    """Where frames of the table are decoded: a decoder's error becomes an EarshotError that names the table."""
    try:
        yield
    except RuntimeError as error:  # torchvision's
        told = f"{scenes}: a frame is no JPEG ({first_line(error)})"
        raise EarshotError(f"{told}; run the stage extract again") from None


def write_changed_scenes(shard: Path, target: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a shard, changed, as another, whole or not at all, one row group in memory at a time."""
    with write_atomically(target) as growing, _writer(growing) as writer:
        for table in read_scenes(shard):
            changed = change(table)
            if len(changed):
                writer.write_table(changed, row_group_size=len(changed))


def with_flag(table: pa.Table, clip_ids: Collection[str], flag: str) -> pa.Table:
    """The table with a flag for some of its clips, beside those that they have."""
    pairs = zip(table["clip_id"].to_pylist(), table["flags"].to_pylist(), strict=True)
    flags = [[*flags, flag] if clip_id in clip_ids else flags for clip_id, flags in pairs]
    return table.set_column(SCHEMA.get_field_index("flags"), SCHEMA.field("flags"), _lists(flags, text_column))


def without(table: pa.Table, clip_ids: Collection[str]) -> pa.Table:
    """The table without some of its clips."""
    return table.filter(pa.array([clip_id not in clip_ids for clip_id in table["clip_id"].to_pylist()], pa.bool_()))


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=False, write_statistics=["split"])


def _row_groups(scenes: Iterable[Scene]) -> Iterator[list[Scene]]:
    group, size = [], 0
    for scene in scenes:
        group.append(scene)
        size += scene.size
        if len(group) == ROW_GROUP or size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _table(group: list[Scene]) -> pa.Table:
    columns = {
        "clip_id": text_column([scene.clip_id for scene in group]),
        "group": text_column([scene.group for scene in group]),
        "split": text_column([split_of(scene.group) for scene in group]),
        "duration": number_column([scene.duration for scene in group], pa.float64()),
        "frames": _lists([scene.frames for scene in group], binary_column),
        "times": _lists([scene.times for scene in group], partial(number_column, kind=pa.float64())),
        "sound": binary_column([scene.sound for scene in group]),
        "sound_rate": number_column([scene.sound_rate for scene in group], pa.int32()),
        "sound_channels": number_column([scene.sound_channels for scene in group], pa.int8()),
        "sequence": _lists([scene.sequence for scene in group], binary_column),
        "sequence_rate": number_column([scene.sequence_rate for scene in group], pa.float64()),
        "flags": _lists([scene.flags for scene in group], text_column),
        **{
            name: number_column([getattr(scene.measured, name) for scene in group], pa.float32())
            for name in ("peak", "clipped", "change")
        },
        **{
            name: binary_column([bytes.fromhex(getattr(scene.measured, name)) for scene in group])
            for name in ("sound_print", "picture_print")
        },
    }
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _lists(rows: list[list], column: Callable[[list], pa.Array]) -> pa.Array:
    return list_column([len(row) for row in rows], column([value for row in rows for value in row]))
