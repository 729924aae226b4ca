"""The frames of a split of the scenes in batches: all of them, or an evenly spaced subset."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from earshot.evaluation.benchmark import NotApplicable
from earshot.scenes.table import RowGroup, SceneTable, frames_in

BATCH = 64  # frames


@dataclass(frozen=True)
class Frame:
    """A frame of a clip.

    Args:
        number: its number in the pool.
        clip_id, group, moment: its source.
        jpeg: empty if images were not requested.
    """

    number: int
    clip_id: str
    group: str
    moment: int
    jpeg: bytes


@dataclass(frozen=True)
class _SplitGroup:
    """A row group of scenes: the rows of the split's clips in it, and the number of frames of each."""

    group: RowGroup
    rows: np.ndarray
    frames: np.ndarray


class FramePool:
    """At most `limit` frames of a split: all, or an evenly spaced subset that represents all clips.

    Raises:
        EarshotError: a shard cannot be read.
        NotApplicable: the split has no frames.
    """

    def __init__(self, scenes: Path, limit: int, split: str = "test") -> None:
        self.scenes, self.split = scenes, split
        self._groups = []
        for group, rows, table in SceneTable(scenes).split(split, ["times"]):
            frames = pc.list_value_length(table["times"]).to_numpy()
            self._groups.append(_SplitGroup(group, rows[frames > 0], frames[frames > 0]))
        self._total = sum(int(group.frames.sum()) for group in self._groups)
        self._limit = min(limit, self._total)
        if not self._total:
            raise NotApplicable(f"{scenes}: holds no frame of the split {split}; add clips")

    def __len__(self) -> int:
        return self._limit

    def batches(self, requested: Container[int] | None = None, *, images: bool = True) -> Iterator[list[Frame]]:
        """The frames of the pool in order, or those with `requested` numbers; one row group in memory at a time."""
        batch: list[Frame] = []
        for frame in self._frames(requested, images):
            batch.append(frame)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _frames(self, requested: Container[int] | None, images: bool) -> Iterator[Frame]:
        start = 0
        for group in self._groups:
            end = start + int(group.frames.sum())
            # Frame n of the pool is frame n * total // limit of the split.
            numbers = range(-(-start * self._limit // self._total), -(-end * self._limit // self._total))
            selected = [number for number in numbers if requested is None or number in requested]
            if selected:
                places = np.array([number * self._total // self._limit - start for number in selected])
                yield from self._read(group, selected, places, images)
            start = end

    def _read(self, split_group: _SplitGroup, numbers: list[int], places: np.ndarray, images: bool) -> Iterator[Frame]:
        ends = np.cumsum(split_group.frames)
        clips = np.searchsorted(ends, places, side="right")  # the number of the clip at each place
        moments = places - (ends - split_group.frames)[clips]
        table = split_group.group.read(["clip_id", "group", *(["frames"] if images else [])])
        names, groups = table["clip_id"].to_pylist(), table["group"].to_pylist()
        rows = split_group.rows[clips]
        jpegs = frames_in(table, rows, moments) if images else repeat(b"")
        for number, row, moment, jpeg in zip(numbers, rows.tolist(), moments.tolist(), jpegs, strict=False):
            yield Frame(number, names[row], groups[row], moment, jpeg)
