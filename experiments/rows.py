"""Every row of the papers' tables, and their sweeps, on the rendered world: several worlds, one setting for all rows.

    python -m experiments.rows --seeds 3        # world and training seeds 0, 1, 2; hours on two cores
    python -m experiments.rows --rows cluster,textons --seeds 1
    python -m experiments.rows --rows encoder --controls encoder
    python -m experiments.rows --benchmarks voc,sun,finetune,detection
    python -m experiments.rows --seeds 1 --set sample.clips=200 --output elsewhere

A seed is another world and another training. Its world is rendered and described once; every row then runs the very
stages of the pipeline, with recipes/sample-large.yaml and what makes the row, in a folder of its own with params.yaml
and metrics/, which `earshot tables` collects. What is there is not run again, and with other settings it is refused.
`true-kinds` alone is not a setting of the pipeline, which never trains on annotations: here the table of labels is
written from them.

Rows of learned sounds run correspond first. Its audio tower then describes the sounds (`encoder`, `cpc`), or its image
tower, the network of all rows, is evaluated itself (`contrastive`, `cross-modal`). The first two have a control whose
audio tower is `-untrained`. `--controls encoder,contrastive,cross-modal` adds wrong-sound controls as further rows,
such as `encoder-wrong-sound`; each takes longer than its row.

Writes rows.csv into the folder, with every finished row that the folder holds, prints it, and reports the result for
every ordering of the papers. A row that fails stops no other; all that failed are named at the end.
"""

import argparse
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.yaml_files import read_yaml
from earshot.evaluation.significance import margin
from earshot.labels.table import write_table
from earshot.results.runs import read_metrics
from earshot.scenes.annotations import read_annotations
from earshot.world.sources import KINDS
from experiments.worlds import (
    WIDTH,
    add_options,
    check_params,
    evaluate,
    finish,
    link,
    mean_std_interval,
    measured,
    render,
    rows_in,
    run_all,
    stage,
    write_params,
)

RECIPE = "sample-large"
LAYER = "pool5"  # no other is computed
CLUSTERS = 15  # where a row does not say otherwise; the world has ten kinds
SCORES = {"voc": "map", "sun": "accuracy"}
UNREAD = ("sample.esc50_recordings=1", *(f"evaluate.{benchmark}.layers=[{LAYER}]" for benchmark in SCORES))

# What makes a row; the wrong-sound control is trained beside the first alone. Where no distance filter leaves out half
# of the moments, half the epochs are as many steps.
TRUE_KINDS = "true-kinds"
ONE = "pretrain.control=false"
HALF = "pretrain.epochs=10"
RESNET = ("pretrain.backbone=resnet18", "pretrain.width=1")
# The AVE-Net of the default run, on 2.5 times as many clips in half as many epochs. cpc sees four sounds of each clip.
UNCONTROLLED, CONTROL = "correspond.control=false", "correspond.control=true"
EPOCHS, THIRD = "correspond.epochs=24", "correspond.epochs=8"
UNTRAINED = "correspond.epochs=0"  # the control of learned sounds: what random weights make of them
MAPS = "encoder.features=maps"
DESCRIBED = ("descriptor=encoder", "encoder.folder=models/correspond", EPOCHS, UNCONTROLLED, ONE)
# The network of pretrain as image tower; the audio tower has its width.
BESIDE_SOUND = (
    *("correspond.network=dual_encoder", "correspond.backbone=alexnet", "correspond.width=0.5"),
    *("correspond.image_size=112", EPOCHS, UNCONTROLLED),
    *(f"evaluate.{benchmark}.encoder=models/correspond" for benchmark in SCORES),
)
ROWS = {
    "cluster": (),
    "binary": ("label.model=binary", HALF, ONE),
    "spectrum": ("descriptor=spectrum", "label.model=binary", HALF, ONE),
    "textons": ("label.model=textons", ONE),
    "mfcc": ("descriptor=mfcc", ONE),
    "kmeans": ("pretrain.initialization=kmeans", "pretrain.epochs=0", ONE),
    TRUE_KINDS: ("label.model=binary", f"label.components={len(KINDS)}", HALF, ONE),
    "clusters-2": ("clusters=2", ONE),
    "clusters-5": ("clusters=5", ONE),
    "clusters-10": ("clusters=10", ONE),
    "clusters-30": ("clusters=30", ONE),
    "clusters-60": ("clusters=60", ONE),
    "kmeans-calibrated": (
        *("pretrain.initialization=kmeans", "pretrain.equalize_gradients=true", "pretrain.epochs=0", ONE),
    ),
    "kmeans-cluster": ("pretrain.initialization=kmeans", ONE),
    "supervised-contrastive": ("pretrain.objective=supervised-contrastive", ONE),
    "resnet18": (*RESNET, ONE),
    "encoder": DESCRIBED,
    "encoder-untrained": (*DESCRIBED, UNTRAINED),
    "cpc": (*DESCRIBED, "correspond.objective=cpc", MAPS, THIRD),
    "cpc-untrained": (*DESCRIBED, MAPS, UNTRAINED),
    "contrastive": (*BESIDE_SOUND, "correspond.objective=contrastive"),
    "cross-modal": (*BESIDE_SOUND, "correspond.objective=clusters"),
}
# Their wrong-sound controls, which --controls adds: each trains the row's network again, and beside it the control.
WRONG_SOUND = "-wrong-sound"
CONTROLLED = {
    "encoder": (*ROWS["encoder"], CONTROL, "encoder.network=wrong_sound"),
    "contrastive": (*ROWS["contrastive"], CONTROL),
    "cross-modal": (*ROWS["cross-modal"], CONTROL),
}
ALL = ROWS | {name + WRONG_SOUND: changes for name, changes in CONTROLLED.items()}
# The stages of a row on the scenes of its world, where it does not begin with the world's sounds.
LABELED = ("label", "pretrain")
STAGES = dict.fromkeys(
    ("encoder", "encoder-untrained", "encoder-wrong-sound", "cpc", "cpc-untrained"),
    ("correspond", "describe", *LABELED),
) | dict.fromkeys(("contrastive", "cross-modal", "contrastive-wrong-sound", "cross-modal-wrong-sound"), ("correspond",))
# The rows that stand in the scores of the first one.
CONTROLS = {"wrong-sound": "wrong_sound_", "random": "random_"}

ORDERINGS = (
    ("sound above the wrong sound", "cluster", "wrong-sound"),
    ("sound above random weights", "cluster", "random"),
    ("sound above textons (Owens, Table 2a)", "cluster", "textons"),
    ("binary above cluster (Owens, Table 2a)", "binary", "cluster"),
    ("texture clusters above the spectrum (Owens, Table 2a)", "cluster", "spectrum"),
    ("texture bits above the spectrum (Owens, Table 2a)", "binary", "spectrum"),
    ("MFCC above texture (Mahadev, Table 2)", "mfcc", "cluster"),
    ("sound above k-means initialization (Owens, Table 2a)", "cluster", "kmeans"),
    ("k-means initialization above random weights", "kmeans", "random"),
    ("AlexNet above ResNet-18 (Mahadev, Figure 3)", "cluster", "resnet18"),
    ("5 clusters above 2 (Owens, Figure A1)", "clusters-5", "clusters-2"),
    ("15 clusters above 5 (Mahadev, Figure 3)", "cluster", "clusters-5"),
    ("30 clusters above 15 (Mahadev, Figure 3)", "clusters-30", "cluster"),
    ("30 clusters above 10 (Owens, Figure A1)", "clusters-30", "clusters-10"),
    ("60 clusters above 30", "clusters-60", "clusters-30"),
    ("learned sounds above texture (Mahadev, section 6)", "encoder", "cluster"),
    ("learned sounds above an untrained tower", "encoder", "encoder-untrained"),
    ("learned sounds above a tower of wrong sounds", "encoder", "encoder-wrong-sound"),
    ("learned sounds above texture, from sound alone", "cpc", "cluster"),
    ("learned sounds above an untrained tower, from sound alone", "cpc", "cpc-untrained"),
    ("cross-modal labels above texture", "cross-modal", "cluster"),
    ("cross-modal labels above the wrong sound", "cross-modal", "cross-modal-wrong-sound"),
    ("contrastive above texture", "contrastive", "cluster"),
    ("contrastive above the wrong sound", "contrastive", "contrastive-wrong-sound"),
    ("supervised contrastive above cross-entropy", "supervised-contrastive", "cluster"),
    ("k-means with rescaling above k-means alone", "kmeans-calibrated", "kmeans"),
    ("true kinds above sound", TRUE_KINDS, "cluster"),
)


def settings_of(name: str | None, changes: Sequence[str]) -> list[str]:
    """The settings of a row, or of the world of all rows."""
    return [f"clusters={CLUSTERS}", *UNREAD, *changes, *(ALL[name] if name else ())]


def make_world(root: Path, descriptors: Iterable[str], workers: int) -> None:
    """Render, extract and describe a world with params.yaml; its tables of sounds are kept by descriptor."""
    render(root, workers)
    for descriptor in descriptors:
        kept = root / "described" / descriptor
        if not kept.exists():
            unfinished = root / "described" / f"{descriptor}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            stage(f"describe --set descriptor={descriptor}", root, workers)
            unfinished.mkdir(parents=True)
            (root / "models" / "descriptor").rename(unfinished / "descriptor")
            (root / "data" / "sounds").rename(unfinished / "sounds")
            unfinished.rename(kept)


def run_row(root: Path, benchmarks: Sequence[str]) -> None:
    """The stages of one row with params.yaml that are not done yet, on the tables of the world beside it."""
    name, world, stages = root.name, root.parent / "world", STAGES.get(root.name, LABELED)
    for table in ("scenes", "sample", "annotations"):
        link(root / "data" / table, world / "data" / table)
    if stages == LABELED:
        described = world / "described" / read_yaml(root / "params.yaml")["descriptor"]
        link(root / "data" / "sounds", described / "sounds")
        link(root / "models" / "descriptor", described / "descriptor")
    if not (root / "metrics" / f"{stages[-1]}.json").exists():
        for each in stages:
            if not (root / "metrics" / f"{each}.json").exists():
                stage(each, root)
            if each == "label" and name == TRUE_KINDS:
                write_true_labels(root)
    evaluate(benchmarks, root)


def write_true_labels(root: Path) -> None:
    """Write the annotations of the clips into the table of labels: bit i is kind i, as in a binary code."""
    (root / "metrics" / "label.json").unlink()
    (root / "labels.txt").write_text("true kinds\n")  # the tables must not take this row for its parameters
    for path in sorted((root / "data" / "labels").glob("*.parquet")):
        annotations = read_annotations(root / "data" / "annotations" / path.name)
        table = pq.read_table(path)
        code = {clip: sum(1 << KINDS.index(kind) for kind in set(kinds)) for clip, kinds in annotations.items()}
        labels = np.array([code[clip] for clip in table["clip_id"].to_pylist()])
        columns = {"label": pa.array(labels, pa.int64()), "kept": pa.array(np.ones(len(labels), bool))}
        for column, values in columns.items():
            table = table.set_column(table.schema.get_field_index(column), column, values)
        write_table(path, table)


def collect(folder: Path) -> list[dict]:
    """A line a seed and row of the folder that has scores, the controls of the first row among them."""
    lines = []
    for seed, name, root in measured(folder, ALL):
        values = {benchmark: read_metrics(root, benchmark) for benchmark in SCORES}
        if not all(values.values()):
            continue
        own = "wrong_sound_" if name.endswith(WRONG_SOUND) and "pretrain" not in STAGES[name] else ""
        prefixes = {name: own} | (CONTROLS if name == "cluster" else {})
        lines += [line(seed, row, prefix, values, read_metrics(root, "pretrain")) for row, prefix in prefixes.items()]
        if name == "cluster":
            colors = {b: values[b][f"color_histogram_{metric}"] for b, metric in SCORES.items()}
            lines.append({"seed": seed, "row": "color histogram"} | colors)
    return lines


def line(seed: int, row: str, prefix: str, values: dict, pretrain: dict) -> dict:
    """The scores of a row, or of one of its controls."""
    scores = {b: values[b].get(f"{prefix}{metric}_{LAYER}") for b, metric in SCORES.items()}
    keys = {"": ("test_accuracy", "test_majority", "chance"), "wrong_sound_": ("wrong_sound_test_accuracy",)}.get(
        prefix, ()
    )
    return {"seed": seed, "row": row} | scores | {key.removeprefix("wrong_sound_"): pretrain.get(key) for key in keys}


def report(lines: list[dict]) -> None:
    """Mean, deviation and interval of every row over its seeds, and every ordering, paired by seed."""
    scores: dict[str, dict[int, dict]] = {}
    for each in lines:
        scores.setdefault(each["row"], {})[each["seed"]] = each
    print(f"{'row':<26}{'seeds':>6}" + "".join(f"{benchmark + ' ' + LAYER:>{WIDTH}}" for benchmark in SCORES))
    for row, by_seed in scores.items():
        texts = [mean_std_interval([each[b] for each in by_seed.values()]) for b in SCORES]
        print(f"{row:<26}{len(by_seed):>6}" + "".join(f"{text:>{WIDTH}}" for text in texts))
    print()
    for title, upper, lower in ORDERINGS:
        seeds = sorted(set(scores.get(upper, {})) & set(scores.get(lower, {})))
        for benchmark in SCORES if seeds else ():
            one, other = ([scores[row][seed][benchmark] for seed in seeds] for row in (upper, lower))
            higher = sum(mine > theirs for mine, theirs in zip(one, other, strict=True))
            by = f", by {margin(np.array(one), np.array(other))}" if len(seeds) > 1 else ""
            print(f"{title}, {benchmark}: in {higher} of {len(seeds)} seeds{by}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, list(ROWS), "rows")
    parser.add_argument("--benchmarks", default=",".join(SCORES), help="separated by commas")
    controlled = ", ".join(CONTROLLED)
    parser.add_argument("--controls", default="", help=f"of {controlled}: those with a wrong-sound control")
    options = parser.parse_args()
    controls = [name + WRONG_SOUND for name in rows_in(options.controls, CONTROLLED, "--controls")]
    names, folder = [*rows_in(options.rows, ROWS, "--rows"), *controls], options.output.resolve()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed, name, root in measured(folder, ALL):
        check_params(root, RECIPE, seed, settings_of(name, options.set))
    roots = {(seed, name): folder / f"seed-{seed}" / (name or "world") for name in [None, *names] for seed in seeds}
    for (seed, name), root in roots.items():
        write_params(root, RECIPE, seed, settings_of(name, options.set))
    rows = [name for name in names if name not in STAGES]
    descriptors = {change.removeprefix("descriptor=") for n in rows for change in ROWS[n] if "descriptor=" in change}
    for seed in seeds:
        make_world(roots[seed, None], sorted(descriptors | {"texture"}), options.workers)
    benchmarks = options.benchmarks.split(",")
    jobs = {f"seed {seed}, {name}": partial(run_row, root, benchmarks) for (seed, name), root in roots.items() if name}
    failures = run_all(jobs, options.workers)
    finish(folder / "rows.csv", collect(folder), report, failures)


if __name__ == "__main__":
    main()
