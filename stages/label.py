"""Label: compute what the network must predict: a cluster or code of a moment's sound, or a cluster of its frame.

A label model (earshot/labels/models) is fitted on the training split, without silent moments; then every moment of
every split gets its label. Each row also has the wrong-sound control: the label of a moment of another group.

reads   data/sounds        descriptors, one row for each moment
        models/descriptor  the description of these descriptors
        data/scenes        frames, for textons
writes  data/labels        labels, the same rows (earshot/labels/table.py)
        models/labeler     scaling and centroids, or components and thresholds; for textons their dictionary;
                           and the description of the sounds
        metrics/label.json

    python -m stages.label
    python -m stages.label --set clusters=15
    python -m stages.label --set label.model=binary --set label.threshold=median
    python -m stages.label --set label.control=wrong-sound
"""

from functools import partial
from operator import attrgetter

import faiss
import numpy as np

from earshot.core.files import link_file, shard_paths
from earshot.labels.advice import advice
from earshot.labels.labeler import find_label_model, fitted_labeler
from earshot.labels.model import DESCRIPTION_FILE, read_described
from earshot.labels.table import (
    TrainingSounds,
    assign_shard,
    codes,
    label_columns,
    read_moments,
    training_moments,
    write_labels,
)
from earshot.params.label import LabelBaseParams, LabelParams
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Stage, StageContext

STAGE = Stage(
    name="label",
    params=LabelParams,
    reads=("data/sounds", "models/descriptor", "data/scenes"),
    clips="data/scenes",
    writes=("data/labels", "models/labeler"),
    metrics=("label",),
    uses_cluster=True,
)


def main(run: StageContext[LabelBaseParams]) -> str:
    faiss.omp_set_num_threads(settings().threads)
    p, model = run.params, find_label_model(run.params.label.model)
    values, options = attrgetter(model.size)(p), model.own(p.label)
    sounds = shard_paths(run.path("data/sounds"), ".parquet")
    TrainingSounds(sounds).check_enough(values, model.size)

    table, described = sounds, read_described(run.path("models/descriptor"))
    if model.table:
        table, described = model.table(run, sounds, options, p.seed)
    rows = TrainingSounds(table)
    labeler = fitted_labeler(
        run.out("models/labeler"),
        rows,
        rows.rows,
        model=p.label.model,
        values=values,
        options=options,
        described=described,
        memory_megabytes=p.label.memory_megabytes,
        seed=p.seed,
    )

    work = partial(assign_shard, described=table[0].parent, folder=run.scratch / "assigned", labeler=labeler)
    counts = run.map_shards(work, range(len(table)), title="labeling")

    assigned = shard_paths(run.scratch / "assigned", ".parquet")
    moments = read_moments(assigned)
    distance_filter, wrong_sound = getattr(options, "distance_filter", False), p.label.control == "wrong-sound"
    columns = label_columns(moments, distance_filter=distance_filter, wrong_sound=wrong_sound, seed=p.seed)
    write_labels(assigned, columns, run.out("data/labels"), labeler)
    link_file(run.path("models/descriptor") / DESCRIPTION_FILE, run.out("models/labeler") / DESCRIPTION_FILE)

    run.publish("data/labels")
    run.publish("models/labeler")
    training = training_moments(moments)
    kept = columns["kept"] & training
    trained_on = columns["label"][kept]
    shares = {key: value for key, value in labeler.metadata.items() if key.startswith("share_")}
    metrics = {"moments": counts["moments"], "moments_trained_on": len(trained_on), **shares}
    run.write_metrics("label", metrics | {"label_entropy": labeler.entropy(trained_on)})
    videos = len(np.unique(codes(moments, "group")[0][kept]))
    few = advice(videos, values, distance_filter=distance_filter) if model.kind == "cluster" else ""
    return (
        f"{counts['moments']:,} moments, {counts['silent']:,} of them silent and without a label; {len(trained_on):,} "
        f"of the training split are kept, {int(training.sum()) - len(trained_on):,} left out; {labeler.in_words}"
        + (f"; {few}" if few else "")
    )


if __name__ == "__main__":
    STAGE.run(main)
