"""The table of labels: a row a moment, in the order of the table of sounds.

| column | |
|---|---|
| clip_id, moment, group, split | the moment |
| label | int64: the number of a cluster, or a binary code, bit i of which is component i; -1 for a silent moment |
| kept | whether training may use the moment: not if it is silent, or a training moment that the distance filter drops |
| distance | from the centroid, float32; NaN for a silent moment and for a binary code, which has no centroid |
| wrong_sound_label, wrong_sound_kept | for the control: label and kept of a moment of another group |

Beside its shards, labels.json holds the `kind` of the labels, `cluster` or `bits`; the number of `values`, clusters or
bits of a code; and what a network trained on them `predicts`, in words.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.core.parquet import open_parquet
from earshot.corpus.wrong_sound import NOBODY, derange_sounds
from earshot.labels.labeler import Labeler

LABELS_FILE = "labels.json"
TRAINING = "train"
SILENT = -1
ROW_GROUP = 100
BLOCK_ROWS = 2048  # 25 MB of the longest descriptor, 3100 numbers

IDENTITY = [("clip_id", pa.string()), ("moment", pa.int16()), ("group", pa.string()), ("split", pa.string())]
ASSIGNED = pa.schema([*IDENTITY, ("label", pa.int64()), ("distance", pa.float32())])
LABELS = pa.schema(
    [
        *IDENTITY,
        ("label", pa.int64()),
        ("kept", pa.bool_()),
        ("distance", pa.float32()),
        ("wrong_sound_label", pa.int64()),
        ("wrong_sound_kept", pa.bool_()),
    ]
)
Columns = dict[str, np.ndarray]


class TrainingSounds:
    """The descriptors of the training moments that are not silent; each iteration is a pass over the table.

    Blocks are float32 (up to 2048, d), the same in every pass. `moments` counts the training moments, `silent` the
    silent ones among them, and `rows` the others.

    Raises EarshotError if a shard is no table of sounds or holds values that are not finite.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards
        self.moments = self.silent = 0
        for path in shards:
            check_columns(path)
            table = pq.read_table(path, columns=["split", "silent"])
            silent = table["silent"].filter(pc.equal(table["split"], TRAINING))
            self.moments += len(silent)
            self.silent += pc.sum(silent).as_py() or 0
        self.rows = self.moments - self.silent

    def check_enough(self, required: int, parameter: str) -> None:
        """Raise EarshotError if there are fewer rows than the clusters or components that the parameter sets."""
        if self.rows < required:
            counts = f"{self.moments} training moments, {self.silent} of them silent"
            too_few = f"too few for {required} {parameter.removeprefix('label.')}: give more clips or lower {parameter}"
            raise EarshotError(f"{self.shards[0].parent}: {counts}; {too_few}")

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.shards:
            for batch in _batches(path, ["split", "silent", "descriptor"]):
                used = pc.and_not(pc.equal(batch["split"], TRAINING), batch["silent"]).to_numpy(False)
                if used.any():
                    yield _descriptors(batch, path)[used]


def assign_labels(path: Path, labeler: Labeler) -> pa.Table:
    """The label and distance of every moment in a shard of sounds: a table of schema ASSIGNED."""
    batches = []
    for batch in _batches(path, ["clip_id", "moment", "group", "split", "silent", "descriptor"]):
        audible = ~batch["silent"].to_numpy(False)
        labels = np.full(len(audible), SILENT, dtype=np.int64)
        distances = np.full(len(audible), np.nan, dtype=np.float32)
        if audible.any():
            labels[audible], distances[audible] = labeler.assign(_descriptors(batch, path)[audible])
        columns = [batch[name] for name, _ in IDENTITY] + [pa.array(labels), pa.array(distances)]
        batches.append(pa.table(columns, names=ASSIGNED.names).cast(ASSIGNED))
    return pa.concat_tables(batches or [ASSIGNED.empty_table()])


def assign_shard(number: int, described: Path, folder: Path, labeler: Labeler) -> dict[str, int]:
    """Write one shard with schema ASSIGNED; return the counts."""
    name = f"{shard_name(number)}.parquet"
    table = assign_labels(described / name, labeler)
    write_table(folder / name, table)
    return {"moments": len(table), "silent": int(np.sum(table["label"].to_numpy() == SILENT))}


def keep_near(labels: np.ndarray, distances: np.ndarray, training: np.ndarray, distance_filter: bool) -> np.ndarray:
    """Which moments training may use, bool (moments,): those with a label.

    With `distance_filter`, of the training split only those at most the median distance from their centroid, one median
    over all clusters (Owens et al. 2016, section 3.2).
    """
    kept = labels != SILENT
    if distance_filter and (kept & training).any():
        kept &= ~training | (distances <= np.median(distances[kept & training]))
    return kept


def read_moments(paths: Sequence[Path]) -> pa.Table:
    """All rows of assigned shards as one table, 24 bytes a moment, with clip_id, group and split as dictionaries."""
    names = ["clip_id", "group", "split"]
    tables = [pq.read_table(path, columns=[*names, "label", "distance"], read_dictionary=names) for path in paths]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def training_moments(moments: pa.Table) -> np.ndarray:
    """Which rows are of the training split, bool (moments,)."""
    splits, names = codes(moments, "split")
    return np.array([name == TRAINING for name in names])[splits]


def codes(moments: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """A dictionary column as indices, int32 (moments,), and values."""
    column = moments[name].combine_chunks()
    return column.indices.to_numpy(), column.dictionary.to_pylist()


def label_columns(moments: pa.Table, *, distance_filter: bool, wrong_sound: bool, seed: int) -> Columns:
    """The columns of the table of labels other than IDENTITY.

    Args:
        moments: as `read_moments` returns them.
        distance_filter: whether training leaves out moments far from their centroid.
        wrong_sound: whether the control's labels replace each moment's own.
        seed: of the permutation of the control's labels.

    Raises:
        EarshotError: the training split has only one group.
    """
    label, distance, training = moments["label"].to_numpy(), moments["distance"].to_numpy(), training_moments(moments)
    kept = keep_near(label, distance, training, distance_filter)
    groups, clips = codes(moments, "group")[0], codes(moments, "clip_id")[0]
    source = derange_sounds(*codes(moments, "split"), groups, clips, seed)
    nobody = source == NOBODY
    deranged = {
        "label": np.where(nobody, SILENT, label[source]),
        "kept": ~nobody & kept[source],
        "distance": np.where(nobody, np.nan, distance[source]).astype(np.float32),
    }
    own = {"label": label, "kept": kept, "distance": distance}
    if wrong_sound:
        if nobody[training].all():
            raise EarshotError(
                "label.control is wrong-sound, but the training split has one group; "
                "give clips of several groups or set label.control to none"
            )
        own = deranged
    return own | {"wrong_sound_label": deranged["label"], "wrong_sound_kept": deranged["kept"]}


def write_labels(assigned: Sequence[Path], columns: Columns, folder: Path, labeler: Labeler) -> None:
    """Write the table of labels, in shards that match those of `assigned`, and labels.json."""
    start = 0
    for path in assigned:
        identity = pq.read_table(path, columns=[name for name, _ in IDENTITY])
        end = start + len(identity)
        values = [columns[name][start:end] for name in LABELS.names[len(IDENTITY) :]]
        write_table(folder / path.name, pa.table([*identity.columns, *values], schema=LABELS))
        start = end
    with write_atomically(folder / LABELS_FILE) as temporary_path:
        metadata = {"kind": labeler.kind, "values": labeler.values, "predicts": labeler.predicts}
        temporary_path.write_text(json.dumps(metadata) + "\n")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a shard atomically."""
    with write_atomically(path) as temporary_path:
        pq.write_table(table, temporary_path, row_group_size=ROW_GROUP, compression="none")


def check_columns(path: Path) -> None:
    """Raise EarshotError if a shard is no table of sounds."""
    with open_parquet(path, ["clip_id", "moment", "group", "split", "silent", "descriptor"], "describe") as file:
        kind = file.schema_arrow.field("descriptor").type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_float32(kind.value_type):
        raise EarshotError(
            f"{path}: descriptor is {kind}, expected float32 of fixed size; run the stage describe again"
        )


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with open_parquet(path, columns, "describe") as file:
        yield from file.iter_batches(BLOCK_ROWS, columns=columns, use_threads=False)


def _descriptors(batch: pa.RecordBatch, path: Path) -> np.ndarray:
    """The descriptor column as float32 (rows, d), without a copy."""
    column = batch["descriptor"]
    values = column.flatten().to_numpy().reshape(len(batch), column.type.list_size)
    if not np.isfinite(values).all():
        raise EarshotError(f"{path}: a descriptor holds values that are not finite; run the stage describe again")
    return values
