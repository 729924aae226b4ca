"""The frames of a split out of the table of scenes, a batch at a time: all of them, or some of them evenly."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths
from earshot.evaluation.benchmark import NotApplicable

BATCH = 64  # frames


@dataclass(frozen=True)
class Frame:
    """A frame of a clip.

    Args:
        number: among the frames of the pool.
        clip_id, group, moment: where it is from.
        jpeg: empty where pictures were not asked for.
    """

    number: int
    clip_id: str
    group: str
    moment: int
    jpeg: bytes


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a shard: the rows of the split's clips in it, and how many frames each has."""

    shard: Path
    number: int
    rows: np.ndarray
    frames: np.ndarray


class FramePool:
    """At most `limit` frames of a split: all, or else every so many-th, so that all clips have their part.

    Raises:
        EarshotError: a shard cannot be read.
        NotApplicable: the split has no frames.
    """

    def __init__(self, scenes: Path, limit: int, split: str = "test") -> None:
        self.scenes, self.split = scenes, split
        self._row_groups = [group for shard in shard_paths(scenes, ".parquet") for group in self._groups(shard)]
        self._total = sum(int(group.frames.sum()) for group in self._row_groups)
        self._limit = min(limit, self._total)
        if not self._total:
            raise NotApplicable(f"{scenes}: holds no frame of the split {split}; give more clips")

    def __len__(self) -> int:
        return self._limit

    def batches(self, wanted: Container[int] | None = None, *, pictures: bool = True) -> Iterator[list[Frame]]:
        """The frames of the pool, or those whose numbers are `wanted`, in order; a row group in memory at a time."""
        batch: list[Frame] = []
        for frame in self._frames(wanted, pictures):
            batch.append(frame)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _frames(self, wanted: Container[int] | None, pictures: bool) -> Iterator[Frame]:
        start = 0
        for group in self._row_groups:
            end = start + int(group.frames.sum())
            # The frame of the pool with the number n is frame n * total // limit of the split.
            numbers = range(-(-start * self._limit // self._total), -(-end * self._limit // self._total))
            chosen = [number for number in numbers if wanted is None or number in wanted]
            if chosen:
                places = np.array([number * self._total // self._limit - start for number in chosen])
                yield from self._read(group, chosen, places, pictures)
            start = end

    def _read(self, group: _RowGroup, numbers: list[int], places: np.ndarray, pictures: bool) -> Iterator[Frame]:
        ends = np.cumsum(group.frames)
        clips = np.searchsorted(ends, places, side="right")  # of each place, the number of its clip
        moments = places - (ends - group.frames)[clips]
        with _opened(group.shard) as file:
            columns = ["clip_id", "group", *(["frames"] if pictures else [])]
            table = file.read_row_group(group.number, columns=columns, use_threads=False)
        names, groups = table["clip_id"].to_pylist(), table["group"].to_pylist()
        jpegs = table["frames"] if pictures else None
        rows = group.rows[clips].tolist()
        for number, row, moment in zip(numbers, rows, moments.tolist(), strict=True):
            jpeg = jpegs[row].values[moment].as_py() if pictures else b""
            yield Frame(number, names[row], groups[row], moment, jpeg)

    def _groups(self, shard: Path) -> Iterator[_RowGroup]:
        with _opened(shard) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=["split", "times"], use_threads=False)
                rows = np.flatnonzero(np.array(table["split"].to_pylist()) == self.split)
                frames = pc.list_value_length(table["times"]).to_numpy()[rows]
                yield _RowGroup(shard, number, rows[frames > 0], frames[frames > 0])


@contextmanager
def _opened(shard: Path) -> Iterator[pq.ParquetFile]:
    """A shard of scenes to read from; its faults become EarshotErrors."""
    try:
        with pq.ParquetFile(shard) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise EarshotError(f"{shard}: cannot be read ({reason}); run the stage extract again") from None
