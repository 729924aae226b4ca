"""Label: what a network is to predict of a moment: a cluster of its sound, a binary code of it, or a cluster of what is
seen.

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

from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.labels.binary import unpack
from earshot.labels.control import NOBODY, deal_sounds
from earshot.labels.labeler import Labeler, fit_labeler, is_saved, load_labeler, save_labeler
from earshot.labels.seen import check_shards, draw_frames, draw_pixels, read_pixels, write_histograms, write_pixels
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
from earshot.labels.textons import TEXTONS_FILE, Textons, fit_textons, load_textons, save_textons
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import shard_paths
from earshot.pipeline.stage import Run, Stage

Columns = dict[str, np.ndarray]

STAGE = Stage(
    name="label",
    params=("seed", "descriptor", "clusters", "label"),
    reads=("data/sounds", "data/scenes"),
    writes=("data/labels", "models/labeler"),
    metrics=("label",),
)


def main(run: Run) -> str:
    sounds = shard_paths(run.path("data/sounds"), ".parquet")
    described = texton_histograms(run, sounds) if run.params.label.model == "textons" else sounds
    labeler = fitted_labeler(run, described)

    assigned = [run.scratch / "assigned" / path.name for path in described]
    work = partial(assign_shard, described=described, assigned=assigned, labeler=labeler)
    counts = run.map_shards(work, range(len(described)), title="labelling")

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
            "label_entropy": bit_entropy(trained_on, run) if binary(run) else entropy(trained_on),
        },
    )
    left_out = int(training.sum()) - len(trained_on)
    closing = f"{counts['moments']:,} moments, {counts['silent']:,} of them silent and without a label; "
    closing += f"{len(trained_on):,} of the training split are kept, {left_out:,} left out; "
    return closing + labels_in_words(run.params)


def texton_histograms(run: Run, sounds: list[Path]) -> list[Path]:
    """The shards of the table of texton histograms of the heard moments, after the dictionary is fitted."""
    scenes = shard_paths(run.path("data/scenes"), ".parquet")
    check_shards(scenes, sounds)
    textons = fitted_textons(run, scenes, sounds)
    histograms = [run.scratch / "histograms" / path.name for path in sounds]
    work = partial(histogram_shard, scenes=scenes, sounds=sounds, histograms=histograms, textons=textons)
    run.map_shards(work, range(len(sounds)), title="finding textons")
    return histograms


def fitted_textons(run: Run, scenes: list[Path], sounds: list[Path]) -> Textons:
    """The dictionary of this run: fitted now, or before the run was interrupted."""
    folder = run.out("models/labeler")
    if not (folder / TEXTONS_FILE).exists():
        check_rows(run, sounds)
        pixels = [run.scratch / "pixels" / f"{path.stem}.safetensors" for path in sounds]
        frames = draw_frames(sounds, run.params.seed)
        work = partial(pixels_shard, scenes=scenes, sounds=sounds, pixels=pixels, frames=frames, seed=run.params.seed)
        run.map_shards(work, range(len(sounds)), title="drawing pixels")
        faiss.omp_set_num_threads(settings().threads)
        label = run.params.label
        how = {"iterations": label.iterations, "restarts": label.restarts, "seed": run.params.seed}
        save_textons(folder, fit_textons(map(read_pixels, pixels), label.textons, **how))
    return load_textons(folder)


def pixels_shard(
    number: int, scenes: list[Path], sounds: list[Path], pixels: list[Path], frames: list[np.ndarray], seed: int
) -> dict[str, int]:
    drawn = draw_pixels(scenes[number], sounds[number], frames[number], [seed, number])
    write_pixels(pixels[number], drawn)
    return {"pixels": len(drawn)}


def histogram_shard(
    number: int, scenes: list[Path], sounds: list[Path], histograms: list[Path], textons: Textons
) -> dict[str, int]:
    write_histograms(histograms[number], scenes[number], sounds[number], textons)
    return {}


def fitted_labeler(run: Run, described: list[Path]) -> Labeler:
    """The labeler of this run: fitted now, or before the run was interrupted."""
    folder = run.out("models/labeler")
    if not is_saved(folder):
        rows = check_rows(run, described)
        faiss.omp_set_num_threads(settings().threads)
        label = run.params.label
        options = {
            "clusters": run.params.clusters,
            "iterations": label.iterations,
            "restarts": label.restarts,
            "seed": run.params.seed,
        }
        if binary(run):
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


def check_rows(run: Run, described: list[Path]) -> TrainingSounds:
    """What there is to fit on. Raises EarshotError where that is less than the clusters or components asked for."""
    rows = TrainingSounds(described)
    name = "label.components" if binary(run) else "clusters"
    wanted = run.params.label.components if binary(run) else run.params.clusters
    if rows.rows < wanted:
        found = f"{rows.moments} training moments, {rows.silent} of them silent"
        what = name.removeprefix("label.")
        raise EarshotError(
            f"{run.path('data/sounds')}: {found}; too few for {wanted} {what}: give more clips or lower {name}"
        )
    return rows


def binary(run: Run) -> bool:
    return run.params.label.model == "binary"


def assign_shard(number: int, described: list[Path], assigned: list[Path], labeler: Labeler) -> dict[str, int]:
    table = assign_labels(described[number], labeler)
    write_table(assigned[number], table)
    return {"moments": len(table), "silent": int(np.sum(table["label"].to_numpy() == SILENT))}


def label_columns(run: Run, moments: pa.Table, training: np.ndarray) -> Columns:
    """What the table of labels says of every moment beside who it is."""
    label, distance = moments["label"].to_numpy(), moments["distance"].to_numpy()
    kept = keep_near(label, distance, training, run.params.label.distance_filter and not binary(run))
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


def entropy(labels: np.ndarray) -> float:
    """Of the labels that are trained on, in bits: log2 of the clusters where all are equally frequent."""
    counts = np.unique(labels, return_counts=True)[1]
    shares = counts / max(len(labels), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def bit_entropy(codes: np.ndarray, run: Run) -> float:
    """Mean entropy of the bits of codes that are trained on, in bits: 1 where each is as often 1 as 0."""
    return float(np.mean([entropy(bits) for bits in unpack(codes, run.params.label.components).T]))


def labels_in_words(params: Any) -> str:
    """What the labels of a label model are."""
    if params.label.model == "binary":
        return f"a code of {params.label.components} bits each, principal components of {params.descriptor}"
    of = f"{params.label.textons} textons" if params.label.model == "textons" else params.descriptor
    return f"one of {params.clusters} clusters of {of} each"


if __name__ == "__main__":
    STAGE.run(main)
