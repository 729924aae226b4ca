"""Label: what a network is to predict of a moment, a cluster of its sound.

Scaling and k-means are fitted on the training split, without silent moments; then every moment of every split gets
the nearest cluster. Beside each label stands the control: the label of a sound dealt from another group.

reads   data/sounds      descriptors, a row a moment
writes  data/labels      labels, the same rows
        models/labeler   scaling and centroids
        metrics/label.json

    python -m stages.label
    python -m stages.label --set clusters=15
    python -m stages.label --set label.control=wrong-sound
"""

from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.labels.control import NOBODY, deal_sounds
from earshot.labels.labeler import Labeler, fit_labeler, is_saved, load_labeler, save_labeler
from earshot.labels.table import (
    IDENTITY,
    LABELS,
    SILENT,
    TRAINING,
    TrainingSounds,
    assign_labels,
    codes,
    keep_near,
    read_moments,
    write_table,
)
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import shard_paths
from earshot.pipeline.stage import Run, Stage

Columns = dict[str, np.ndarray]

STAGE = Stage(
    name="label",
    params=("seed", "descriptor", "clusters", "label"),
    reads=("data/sounds",),
    writes=("data/labels", "models/labeler"),
    metrics=("label",),
)


def main(run: Run) -> str:
    sounds = shard_paths(run.path("data/sounds"), ".parquet")
    labeler = fitted_labeler(run, sounds)

    assigned = [run.scratch / "assigned" / path.name for path in sounds]
    work = partial(assign_shard, sounds=sounds, assigned=assigned, labeler=labeler)
    counts = run.map_shards(work, range(len(sounds)), title="labelling")

    moments = read_moments(assigned)
    splits, names = codes(moments, "split")
    training = np.array([name == TRAINING for name in names])[splits]
    columns = label_columns(run, moments, training)
    write_labels(assigned, columns, run.out("data/labels"))

    run.place("data/labels")
    run.place("models/labeler")
    trained_on = columns["label"][columns["kept"] & training]
    run.write_metrics(
        "label",
        {
            "moments": counts["moments"],
            "moments_trained_on": len(trained_on),
            **{key: value for key, value in labeler.facts.items() if key.startswith("share_")},
            "label_entropy": entropy(trained_on),
        },
    )
    left_out = int(training.sum()) - len(trained_on)
    closing = f"{counts['moments']:,} moments, {counts['silent']:,} of them silent and without a label; "
    return closing + f"{len(trained_on):,} of the training split are kept, {left_out:,} left out"


def fitted_labeler(run: Run, sounds: list[Path]) -> Labeler:
    """The labeler of this run: fitted now, or before the run was interrupted."""
    folder = run.out("models/labeler")
    if not is_saved(folder):
        rows = TrainingSounds(sounds)
        if rows.rows < run.params.clusters:
            found = f"{rows.moments} training moments, {rows.silent} of them silent"
            raise EarshotError(
                f"{run.path('data/sounds')}: {found}; too few for {run.params.clusters} clusters: "
                "give more clips or lower clusters"
            )
        faiss.omp_set_num_threads(settings().threads)
        label = run.params.label
        save_labeler(
            folder,
            fit_labeler(
                rows,
                rows.rows,
                descriptor=run.params.descriptor,
                clusters=run.params.clusters,
                scale=label.scale,
                iterations=label.iterations,
                restarts=label.restarts,
                memory_megabytes=label.memory_megabytes,
                seed=run.params.seed,
            ),
        )
    return load_labeler(folder)


def assign_shard(number: int, sounds: list[Path], assigned: list[Path], labeler: Labeler) -> dict[str, int]:
    table = assign_labels(sounds[number], labeler)
    write_table(assigned[number], table)
    return {"moments": len(table), "silent": int(np.sum(table["label"].to_numpy() == SILENT))}


def label_columns(run: Run, moments: pa.Table, training: np.ndarray) -> Columns:
    """What the table of labels says of every moment beside who it is."""
    label, distance = moments["label"].to_numpy(), moments["distance"].to_numpy()
    kept = keep_near(label, distance, training, run.params.label.distance_filter)
    groups, clips = codes(moments, "group")[0], codes(moments, "clip_id")[0]
    source = deal_sounds(*codes(moments, "split"), groups, clips, run.params.seed)
    nobody = source == NOBODY
    dealt = {
        "label": np.where(nobody, SILENT, label[source]).astype(np.int32),
        "kept": ~nobody & kept[source],
        "distance": np.where(nobody, np.nan, distance[source]).astype(np.float32),
    }
    own = {"label": label, "kept": kept, "distance": distance}
    if run.params.label.control == "wrong-sound":
        if nobody[training].all():
            raise EarshotError(
                f"{run.path('data/sounds')}: label.control is wrong-sound, but the training split has one group; "
                "give clips of several groups or set label.control to none"
            )
        own = dealt
    return own | {"wrong_sound_label": dealt["label"], "wrong_sound_kept": dealt["kept"]}


def write_labels(assigned: list[Path], columns: Columns, folder: Path) -> None:
    """Write the shards of the table of labels, each the rows of the shard of the same number."""
    start = 0
    for path in assigned:
        identity = pq.read_table(path, columns=[name for name, _ in IDENTITY])
        end = start + len(identity)
        values = [columns[name][start:end] for name in LABELS.names[len(IDENTITY) :]]
        write_table(folder / path.name, pa.table([*identity.columns, *values], schema=LABELS))
        start = end


def entropy(labels: np.ndarray) -> float:
    """Of the labels that are trained on, in bits: log2 of the clusters where all are equally frequent."""
    counts = np.unique(labels, return_counts=True)[1]
    shares = counts / max(len(labels), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


if __name__ == "__main__":
    STAGE.run(main)
