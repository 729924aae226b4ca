"""Label: what a network is to predict of a moment, a cluster or a code of its sound, or a cluster of what is seen.

A label model is fitted on the training split, without silent moments; then every moment of every split gets its label.
`clusters` are the k-means clusters of the scaled descriptors. `binary` has a bit a principal component. `textons`, the
visual control, clusters texton histograms of the frames and hears nothing but which moments are silent. Beside each
label stands the wrong-sound control: the label of a moment dealt from another group.

reads   data/sounds      descriptors, a row a moment
        data/scenes      frames, for textons
writes  data/labels      labels, the same rows
        models/labeler   scaling and centroids, or components and thresholds; for textons their dictionary too
        metrics/label.json

    python -m stages.label
    python -m stages.label --set clusters=15
    python -m stages.label --set label.model=binary --set label.threshold=median
    python -m stages.label --set label.control=wrong-sound
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, shard_paths, write_atomically
from earshot.corpus.wrong_sound import NOBODY, deal_sounds
from earshot.labels.binary import unpack
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
from earshot.labels.texton_histograms import check_shards, draw_frames, read_pixels, write_histograms, write_pixels
from earshot.labels.textons import TEXTONS_FILE, Textons, fit_textons, load_textons, save_textons
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Run, Stage

Columns = dict[str, np.ndarray]

STAGE = Stage(
    name="label",
    params=("seed", "descriptor", "clusters", "label"),
    reads=("data/sounds", "data/scenes"),
    clips="data/scenes",
    writes=("data/labels", "models/labeler"),
    metrics=("label",),
    spreads=True,
)


def main(run: Run) -> str:
    faiss.omp_set_num_threads(settings().threads)
    sounds = shard_paths(run.path("data/sounds"), ".parquet")
    check_rows(run, TrainingSounds(sounds))
    described = texton_histograms(run, sounds) if run.params.label.model == "textons" else sounds
    labeler = fitted_labeler(run, described)

    work = partial(assign_shard, described=described[0].parent, folder=run.scratch / "assigned", labeler=labeler)
    counts = run.map_shards(work, range(len(described)), title="labelling")

    assigned = shard_paths(run.scratch / "assigned", ".parquet")
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
            "label_entropy": label_entropy(trained_on, labeler),
        },
    )
    left_out = int(training.sum()) - len(trained_on)
    closing = f"{counts['moments']:,} moments, {counts['silent']:,} of them silent and without a label; "
    closing += f"{len(trained_on):,} of the training split are kept, {left_out:,} left out; "
    return closing + in_words(labeler)


def check_rows(run: Run, rows: TrainingSounds) -> None:
    """Raise EarshotError where there are fewer training moments with a sound than clusters or components."""
    label = run.params.label
    name, wanted = ("label.components", label.components) if is_binary(run) else ("clusters", run.params.clusters)
    if rows.rows < wanted:
        found = f"{rows.moments} training moments, {rows.silent} of them silent"
        what = name.removeprefix("label.")
        raise EarshotError(
            f"{run.path('data/sounds')}: {found}; too few for {wanted} {what}: give more clips or lower {name}"
        )


def is_binary(run: Run) -> bool:
    return run.params.label.model == "binary"


def table_name(number: int) -> str:
    """The file of a shard of any of the tables here."""
    return f"{shard_name(number)}.parquet"


@dataclass(frozen=True)
class Pictures:
    """What the workers that look at frames are given: the folders of both tables, and of what they make of them."""

    scenes: Path
    sounds: Path
    scratch: Path

    def drawn(self, number: int) -> Path:
        """The list of a shard's frames that the dictionary is fitted on."""
        return self.scratch / "drawn" / f"{shard_name(number)}.json"

    def pixels(self, number: int) -> Path:
        """What the filters say of those."""
        return self.scratch / "pixels" / f"{shard_name(number)}.safetensors"


def texton_histograms(run: Run, sounds: list[Path]) -> list[Path]:
    """The shards of the table of texton histograms, a row a moment of `sounds`."""
    check_shards(shard_paths(run.path("data/scenes"), ".parquet"), sounds)
    pictures = Pictures(run.path("data/scenes"), run.path("data/sounds"), run.scratch)
    work = partial(histogram_shard, pictures=pictures, textons=fitted_textons(run, pictures, sounds))
    run.map_shards(work, range(len(sounds)), title="finding textons")
    return shard_paths(pictures.scratch / "histograms", ".parquet")


def fitted_textons(run: Run, pictures: Pictures, sounds: list[Path]) -> Textons:
    """The dictionary of this run: fitted now, or before the run was interrupted."""
    folder = run.out("models/labeler")
    if not (folder / TEXTONS_FILE).exists():
        for number, rows in enumerate(draw_frames(sounds, run.params.seed)):
            with write_atomically(pictures.drawn(number)) as growing:
                growing.write_text(json.dumps(rows.tolist()))
        work = partial(pixels_shard, pictures=pictures, seed=run.params.seed)
        run.map_shards(work, range(len(sounds)), title="drawing pixels")
        pixels = (read_pixels(pictures.pixels(number)) for number in range(len(sounds)))
        save_textons(folder, fit_textons(pixels, run.params.label.textons, **kmeans_options(run)))
    return load_textons(folder)


def kmeans_options(run: Run) -> dict[str, int]:
    label = run.params.label
    return {"iterations": label.iterations, "restarts": label.restarts, "seed": run.params.seed}


def pixels_shard(number: int, pictures: Pictures, seed: int) -> dict[str, int]:
    name = table_name(number)
    rows = np.array(json.loads(pictures.drawn(number).read_text()), np.int64)
    write_pixels(pictures.pixels(number), pictures.scenes / name, pictures.sounds / name, rows, [seed, number])
    return {}


def histogram_shard(number: int, pictures: Pictures, textons: Textons) -> dict[str, int]:
    name = table_name(number)
    write_histograms(pictures.scratch / "histograms" / name, pictures.scenes / name, pictures.sounds / name, textons)
    return {}


def fitted_labeler(run: Run, described: list[Path]) -> Labeler:
    """The labeler of this run: fitted now, or before the run was interrupted."""
    folder = run.out("models/labeler")
    if not is_saved(folder):
        label, rows = run.params.label, TrainingSounds(described)
        options = {"clusters": run.params.clusters, **kmeans_options(run)}
        if is_binary(run):
            options = {"components": label.components, "threshold": label.threshold}
        labeler = fit_labeler(
            rows,
            rows.rows,
            kind=label.model,
            descriptor="textons" if label.model == "textons" else run.params.descriptor,
            scale=label.scale,
            memory_megabytes=label.memory_megabytes,
            **options,
        )
        save_labeler(folder, labeler)
    return load_labeler(folder)


def assign_shard(number: int, described: Path, folder: Path, labeler: Labeler) -> dict[str, int]:
    table = assign_labels(described / table_name(number), labeler)
    write_table(folder / table_name(number), table)
    return {"moments": len(table), "silent": int(np.sum(table["label"].to_numpy() == SILENT))}


def label_columns(run: Run, moments: pa.Table, training: np.ndarray) -> Columns:
    """What the table of labels says of every moment beside who it is."""
    label, distance = moments["label"].to_numpy(), moments["distance"].to_numpy()
    kept = keep_near(label, distance, training, run.params.label.distance_filter and not is_binary(run))
    groups, clips = codes(moments, "group")[0], codes(moments, "clip_id")[0]
    source = deal_sounds(*codes(moments, "split"), groups, clips, run.params.seed)
    nobody = source == NOBODY
    dealt = {
        "label": np.where(nobody, SILENT, label[source]),
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


def label_entropy(labels: np.ndarray, labeler: Labeler) -> float:
    """Of the labels that are trained on, in bits: log2 of the clusters where all are equally frequent.

    Of binary codes it is the mean over the bits: 1 where each of them is as often 1 as 0.
    """
    if labeler.facts["kind"] == "binary":
        return float(np.mean([entropy(bits) for bits in unpack(labels, labeler.facts["components"]).T]))
    return entropy(labels)


def entropy(values: np.ndarray) -> float:
    """In bits, of how often each value is there."""
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / max(len(values), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def in_words(labeler: Labeler) -> str:
    """What a label is."""
    facts = labeler.facts
    if facts["kind"] == "binary":
        return f"a label is a code of {facts['components']} bits of {facts['descriptor']}"
    return f"a label is one of {facts['clusters']} clusters of {facts['descriptor']}"


if __name__ == "__main__":
    STAGE.run(main)
