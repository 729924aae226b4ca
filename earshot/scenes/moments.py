"""Matching the moments of scenes with tables that have a row a moment: those of sounds and of labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from earshot.core.errors import EarshotError
from earshot.scenes.table import RowGroup, read_row_groups


@dataclass(frozen=True)
class GroupMoments:
    """The moments of a row group of scenes.

    Args:
        group: the row group.
        table: the requested columns of its clips.
        rows, places: of each moment, the row of its clip and its number within the clip, int64 (moments,).
        start: the number of moments before it in the shard.
    """

    group: RowGroup
    table: pa.Table
    rows: np.ndarray
    places: np.ndarray
    start: int


def match_moments(
    scenes: Path, other: Path, moments: pa.Table, columns: Sequence[str] = (), *, advice: str
) -> Iterator[GroupMoments]:
    """The moments of a shard of scenes, a row group at a time, checked against the rows of another table's shard.

    Args:
        scenes: the shard.
        other: the shard of the other table, for error messages.
        moments: its columns clip_id and moment.
        columns: of scenes to read, besides clip_id and times.
        advice: what to do if the moments of the two differ, for error messages.

    Raises:
        EarshotError: the moments differ, or the shard of scenes cannot be read.
    """
    start = 0
    for group, clips in read_row_groups(scenes, ["clip_id", "times", *columns]):
        counts = pc.list_value_length(clips["times"]).to_numpy()
        rows = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        if not _same(moments.slice(start, len(rows)), clips["clip_id"].take(pa.array(rows)), places):
            message = f"rows {start} to {start + len(rows) - 1} are not the moments of {scenes}"
            raise EarshotError(f"{other}: {message}; {advice}")
        yield GroupMoments(group, clips, rows, places, start)
        start += len(rows)
    if start != len(moments):
        raise EarshotError(f"{other}: {len(moments)} rows for the {start} frames of {scenes}; {advice}")


def _same(part: pa.Table, clips: pa.ChunkedArray, places: np.ndarray) -> bool:
    return (
        len(part) == len(clips)
        and pc.all(pc.equal(part["clip_id"], clips), min_count=0).as_py()
        and np.array_equal(part["moment"].to_numpy(), places)
    )
