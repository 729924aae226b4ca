"""Every row of the papers' tables, and their sweeps, on the rendered world: several worlds, one setting for all rows.

    python -m experiments.rows --seeds 3        # world and training seeds 0, 1, 2; hours on two cores
    python -m experiments.rows --rows cluster,textons --seeds 1
    python -m experiments.rows --benchmarks voc,sun,finetune,detection
    python -m experiments.rows --seeds 1 --set sample.clips=200 --output elsewhere

A seed is another world and another training. Its world is rendered and described once; every row then runs the very
stages of the pipeline, with recipes/sample-large.yaml and what makes the row, in a folder of its own with params.yaml
and metrics/, which `earshot tables` collects. What is there is not run again. `true-kinds` alone is
not a setting of the pipeline, which never trains on annotations: here the table of labels is written from them.

Rows of learned sounds run correspond first. Its audio tower then describes the sounds (`encoder`, `cpc`), or its image
tower, the network of all rows, is evaluated itself (`contrastive`, `cross-modal`). The first two have a control whose
audio tower is `-untrained`.

Writes rows.csv into the folder, prints it, and reports the result for every ordering of the papers.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from experiments.worlds import REPOSITORY, WIDTH, evaluate, link, mean_std_interval, render, stage, write_params

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
UNCONTROLLED, EPOCHS, THIRD = "correspond.control=false", "correspond.epochs=24", "correspond.epochs=8"
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
    "kmeans-cluster": ("pretrain.initialization=kmeans", ONE),
    "resnet18": (*RESNET, ONE),
    "encoder": DESCRIBED,
    "encoder-untrained": (*DESCRIBED, UNTRAINED),
    "cpc": (*DESCRIBED, "correspond.objective=cpc", MAPS, THIRD),
    "cpc-untrained": (*DESCRIBED, MAPS, UNTRAINED),
    "contrastive": (*BESIDE_SOUND, "correspond.objective=contrastive"),
    "cross-modal": (*BESIDE_SOUND, "correspond.objective=clusters"),
}
# The stages of a row on the scenes of its world, where it does not begin with the world's sounds.
LABELED = ("label", "pretrain")
STAGES = dict.fromkeys(
    ("encoder", "encoder-untrained", "cpc", "cpc-untrained"), ("correspond", "describe", *LABELED)
) | dict.fromkeys(("contrastive", "cross-modal"), ("correspond",))
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
    ("learned sounds above texture, from sound alone", "cpc", "cluster"),
    ("learned sounds above an untrained tower, from sound alone", "cpc", "cpc-untrained"),
    ("cross-modal labels above texture", "cross-modal", "cluster"),
    ("true kinds above sound", TRUE_KINDS, "cluster"),
)


def settings_of(name: str | None, changes: Sequence[str]) -> list[str]:
    """The settings of a row, or of the world of all rows."""
    return [f"clusters={CLUSTERS}", *UNREAD, *changes, *(ROWS[name] if name else ())]


def make_world(root: Path, seed: int, changes: Sequence[str], descriptors: Iterable[str], workers: int) -> None:
    """Render, extract and describe a world; its tables of sounds are kept by descriptor."""
    write_params(root, RECIPE, seed, settings_of(None, changes))
    render(root, workers)
    for descriptor in descriptors:
        kept = root / "described" / descriptor
        if not (kept / "sounds").exists():
            stage(f"describe --set descriptor={descriptor}", root, workers)
            kept.mkdir(parents=True, exist_ok=True)
            (root / "models" / "descriptor").rename(kept / "descriptor")
            (root / "data" / "sounds").rename(kept / "sounds")


def run_row(name: str, world: Path, seed: int, changes: Sequence[str], benchmarks: Sequence[str]) -> str:
    """The stages of one row that are not done yet, on the tables of the world; how long they took."""
    root, started, stages = world.parent / name, time.monotonic(), STAGES.get(name, LABELED)
    write_params(root, RECIPE, seed, settings_of(name, changes))
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
    return f"seed {seed}, {name}: {(time.monotonic() - started) / 60:.1f} minutes"


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


def collect(folder: Path, seeds: Iterable[int], names: Sequence[str]) -> list[dict]:
    """A line a seed and row that has scores, the controls of the first row among them."""
    lines = []
    for seed in seeds:
        for name in names:
            root = folder / f"seed-{seed}" / name
            values = {benchmark: read_metrics(root, benchmark) for benchmark in SCORES}
            if not all(values.values()):
                continue
            prefixes = {name: ""} | (CONTROLS if name == "cluster" else {})
            lines += [
                line(seed, row, prefix, values, read_metrics(root, "pretrain")) for row, prefix in prefixes.items()
            ]
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
    print(f"{'row':<18}{'seeds':>6}" + "".join(f"{benchmark + ' ' + LAYER:>{WIDTH}}" for benchmark in SCORES))
    for row, by_seed in scores.items():
        texts = [mean_std_interval([each[b] for each in by_seed.values()]) for b in SCORES]
        print(f"{row:<18}{len(by_seed):>6}" + "".join(f"{text:>{WIDTH}}" for text in texts))
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
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", default=",".join(ROWS), help="separated by commas")
    parser.add_argument("--benchmarks", default=",".join(SCORES), help="separated by commas")
    parser.add_argument("--workers", type=int, default=2, help="rows that run in parallel")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=REPOSITORY / ".earshot" / "rows")
    options = parser.parse_args()
    names, folder = options.rows.split(","), options.output.resolve()
    if unknown := sorted(set(names) - set(ROWS)):
        sys.exit(f"rows: {unknown[0]} is not a row; the rows are {', '.join(ROWS)}")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    rows = [name for name in names if name not in STAGES]
    descriptors = {change.removeprefix("descriptor=") for n in rows for change in ROWS[n] if "descriptor=" in change}
    for seed in seeds:
        world = folder / f"seed-{seed}" / "world"
        make_world(world, seed, options.set, sorted(descriptors | {"texture"}), options.workers)
    with ThreadPoolExecutor(options.workers) as pool:
        jobs = [(name, folder / f"seed-{seed}" / "world", seed) for name in names for seed in seeds]
        waiting = [pool.submit(run_row, *each, options.set, options.benchmarks.split(",")) for each in jobs]
        for done in waiting:
            print(done.result(), flush=True)
    lines = collect(folder, seeds, names)
    with (folder / "rows.csv").open("w", newline="") as file:
        columns = list(dict.fromkeys(key for each in lines for key in each))
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    report(lines)


if __name__ == "__main__":
    main()
