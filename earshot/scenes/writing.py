"""Writing the table of scenes atomically, a shard at a time, with one row group of clips in memory."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.files import write_atomically
from earshot.corpus.split import split_of
from earshot.media.quality import Measured
from earshot.scenes.arrow import binary_column, list_column, number_column, text_column
from earshot.scenes.table import SCHEMA, read_scenes

ROW_GROUP = 25  # clips; of larger groups a training would shuffle too few together, see training/batches.py
ROW_GROUP_BYTES = 64 << 20  # a group of long clips is smaller, because it is in memory as a whole


@dataclass(frozen=True)
class Scene:
    """One extracted clip; its fields and those of `measured` are the columns; an empty `split` follows from `group`."""

    clip_id: str
    group: str
    duration: float
    frames: list[bytes]
    times: list[float]
    sound: bytes
    audio_rate: int
    audio_channels: int
    sequence: list[bytes] = field(default_factory=list)
    sequence_rate: float = 0.0
    measured: Measured = field(default_factory=Measured)
    flags: list[str] = field(default_factory=list)
    split: str = ""

    @property
    def size(self) -> int:
        """Bytes of images and sound."""
        return len(self.sound) + sum(len(frame) for frame in [*self.frames, *self.sequence])


def write_scenes(path: Path, scenes: Iterable[Scene]) -> int:
    """Write a shard atomically, with one row group in memory; return the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with write_atomically(path) as temporary_path, _writer(temporary_path) as writer:
        for group in _row_groups(scenes):
            writer.write_table(_table(group), row_group_size=len(group))
            rows += len(group)
    return rows


def write_changed_scenes(shard: Path, target: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a changed copy of a shard atomically, with one row group in memory."""
    with write_atomically(target) as temporary_path, _writer(temporary_path) as writer:
        for table in read_scenes(shard):
            changed = change(table)
            if len(changed):
                writer.write_table(changed, row_group_size=len(changed))


def with_flag(table: pa.Table, clip_ids: Collection[str], flag: str) -> pa.Table:
    """The table with one more flag for these clips."""
    pairs = zip(table["clip_id"].to_pylist(), table["flags"].to_pylist(), strict=True)
    flags = [[*flags, flag] if clip_id in clip_ids else flags for clip_id, flags in pairs]
    return table.set_column(SCHEMA.get_field_index("flags"), SCHEMA.field("flags"), _lists(flags, text_column))


def without(table: pa.Table, clip_ids: Collection[str]) -> pa.Table:
    """The table without these clips."""
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
        "split": text_column([scene.split or split_of(scene.group) for scene in group]),
        "duration": number_column([scene.duration for scene in group], pa.float64()),
        "frames": _lists([scene.frames for scene in group], binary_column),
        "times": _lists([scene.times for scene in group], partial(number_column, kind=pa.float64())),
        "sound": binary_column([scene.sound for scene in group]),
        "sound_rate": number_column([scene.audio_rate for scene in group], pa.int32()),
        "sound_channels": number_column([scene.audio_channels for scene in group], pa.int8()),
        "sequence": _lists([scene.sequence for scene in group], binary_column),
        "sequence_rate": number_column([scene.sequence_rate for scene in group], pa.float64()),
        "flags": _lists([scene.flags for scene in group], text_column),
        **{
            name: number_column([getattr(scene.measured, name) for scene in group], pa.float32())
            for name in ("peak", "clipped", "change")
        },
        **{
            name: binary_column([bytes.fromhex(getattr(scene.measured, name)) for scene in group])
            for name in ("audio_print", "image_print")
        },
    }
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _lists(rows: list[list], column: Callable[[list], pa.Array]) -> pa.Array:
    return list_column([len(row) for row in rows], column([value for row in rows for value in row]))
