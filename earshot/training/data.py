"""Labeled frames from the tables of scenes and labels, a few row groups at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths
from earshot.core.parquet import open_parquet
from earshot.scenes.moments import match_moments
from earshot.scenes.table import RowGroup, SceneTable, frames_in
from earshot.training.batches import Batches

# Moments that are shuffled together: about 90 MB of JPEG at 256 px, from ten or more random row groups of the whole
# corpus. Two pools are in memory at a time.
POOL_MOMENTS = 4096

LabeledFrame = tuple[bytes, int]


@dataclass(frozen=True)
class LabeledRowGroup:
    """The labeled moments of one row group of scenes.

    Args:
        group: the row group with the frames.
        clips, moments: of each frame, the row in the group and the index among that row's frames, (frames,).
        labels: int64, (frames,).
    """

    group: RowGroup
    clips: np.ndarray
    moments: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def same(self, other: "LabeledRowGroup") -> bool:
        """Whether both have the same labels of the same clips."""
        return np.array_equal(self.labels, other.labels) and np.array_equal(self.clips, other.clips)

    def read(self) -> list[LabeledFrame]:
        """The frames with their labels, in order."""
        return list(zip(self.frames(), self.labels.tolist(), strict=True))

    def frames(self) -> list[bytes]:
        """The JPEG frames of the labeled moments, in order."""
        return list(frames_in(self.group.read(["frames"]), self.clips, self.moments))


def labeled_frames(scenes: Path, labels: Path, *, split: str, label: str, values: int) -> list[LabeledRowGroup]:
    """The row groups of a split's frames, with the labels that training may use.

    Args:
        scenes, labels: folders of the two tables.
        split: `train` or `val`.
        label: `label`, or `wrong_sound_label` for the control; used together with the column `kept` or
            `wrong_sound_kept`.
        values: number of possible labels, from 0.

    Raises:
        EarshotError: the two tables do not hold the same moments, or a label is not below `values`.
    """
    groups: list[LabeledRowGroup] = []
    scene_shards, label_shards = SceneTable(scenes).shards, shard_paths(labels, ".parquet")
    if len(scene_shards) != len(label_shards):
        actual = f"{len(label_shards)} shards of labels, but {len(scene_shards)} of scenes in {scenes}"
        raise EarshotError(f"{labels}: {actual}; run the stages describe and label again")
    for scene_shard, label_shard in zip(scene_shards, label_shards, strict=True):
        table = _read_labels(label_shard, split, label, values)
        groups += _row_groups(scene_shard, label_shard, table)
    return groups


class Frames(Batches[LabeledRowGroup, LabeledFrame]):
    """Numbered batches of labeled JPEG frames."""

    pool = POOL_MOMENTS

    def labels(self) -> np.ndarray:
        """The labels of all moments, int64 (moments,)."""
        return np.concatenate([np.empty(0, np.int64), *(group.labels for group in self.groups)])


def _read_labels(shard: Path, split: str, label: str, values: int) -> pa.Table:
    """Columns clip_id, moment, label, and `used`: whether training or validation uses the moment."""
    kept = label.removesuffix("label") + "kept"
    columns = ["clip_id", "moment", "split", label, kept]
    with open_parquet(shard, columns, "label") as file:
        table = file.read(columns=columns)
    used = pc.and_(pc.equal(table["split"], split), table[kept])
    if not pa.types.is_integer(table[label].type):
        raise EarshotError(f"{shard}: {label} is {table[label].type}, expected int64; run the stage label again")
    used_labels = pc.filter(table[label], used)
    if len(used_labels) and not 0 <= pc.min(used_labels).as_py() <= pc.max(used_labels).as_py() < values:
        lowest, highest = pc.min(used_labels), pc.max(used_labels)
        allowed = f"expected 0 to {values - 1} (by labels.json)"
        raise EarshotError(f"{shard}: {label} is from {lowest} to {highest}, {allowed}; run the stage label again")
    return pa.table({"clip_id": table["clip_id"], "moment": table["moment"], "label": table[label], "used": used})


def _row_groups(scenes: Path, labels: Path, table: pa.Table) -> Iterator[LabeledRowGroup]:
    """The row groups of a shard of scenes, with their rows of the table of labels."""
    for match in match_moments(scenes, labels, table, advice="run the stages describe and label again"):
        part = table.slice(match.start, len(match.rows))
        used = part["used"].to_numpy()
        values = part["label"].to_numpy()[used].astype(np.int64)
        yield LabeledRowGroup(match.group, match.rows[used], match.places[used], values)
