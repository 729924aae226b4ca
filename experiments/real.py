"""What sound teaches on real clips, with its controls, over several splits of the source videos and trainings.

    python -m experiments.real ../data                    # seeds 0, 1, 2; over an hour on two cores, by estimate
    python -m experiments.real ../data --seeds 5 --rows contrastive,texture
    python -m experiments.real ../data --seeds 1 --set correspond.epochs=2 --output elsewhere

The folder of data holds `real/clips` (videos, and manifest.csv with file,group,annotations), `voc2007_256/VOCdevkit`
(photographs) and `esc10` (recordings, in ESC-50's layout). A seed is another split of the groups, other frames, and
another training. Its clips are extracted and described once; every row then runs the very stages of the pipeline with
recipes/real-<row>.yaml in a folder of its own. What is there is not run again, and with other settings it is refused.

Collections of clips differ in codec, size and loudness, by which a network can tell them apart. So pairs, retrieval and
clusters are scored twice: among all held-out clips, and `within` the largest collection alone (the part of a file's
name before the first underscore).

Writes real.csv into the folder, a line a seed, row and network of all that the folder holds, prints means, deviations
and 95 % intervals over the seeds, and each difference to the controls, paired by seed. A row that fails stops no other;
all that failed are named at the end.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from earshot.corpus.split import split_of
from earshot.evaluation.significance import margin
from earshot.results.runs import read_metrics
from experiments.worlds import (
    WIDTH,
    add_options,
    check_params,
    evaluate,
    finish,
    link,
    mean_std_interval,
    measured,
    rows_in,
    run_all,
    stage,
    write_params,
)

RECIPE = "real"
LAYER = "pool5"
WITHIN = "within "  # prefix of the scores among clips of the largest collection
CLIP_BENCHMARKS = ("correspondence", "retrieval", "nmi")
DIRECTIONS = ("image_audio", "audio_image", "image_image", "audio_audio")
# The rows: the stages that make one from the scenes and sounds of a seed, and its benchmarks. recipes/real-<row>.yaml
# has its settings.
CORRESPOND = (("correspond",), ("correspondence", "retrieval", "nmi", "voc", "esc50"))
PRETRAIN = (("label", "pretrain"), ("voc", "nmi"))
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "contrastive": CORRESPOND,
    "contrastive-alexnet": CORRESPOND,
    "cross-modal": CORRESPOND,
    "cross-modal-alexnet": CORRESPOND,
    "match": CORRESPOND,
    "texture": PRETRAIN,
    "kmeans": PRETRAIN,
}
# The scores that are kept, by benchmark, and the value of the same benchmark that stands beside each.
SCORES = {
    "correspondence": {"accuracy": "chance", "own_sound": "chance", "roc_auc": "chance"},
    "retrieval": {f"ndcg30_{direction}": "random_order_ndcg30" for direction in DIRECTIONS},
    "nmi": {"nmi_image": "chance", "nmi_audio": "chance"},
    "pretrain": {"test_accuracy": "test_majority"},
    "voc": {f"map_{LAYER}": "color_histogram_map"},
    "esc50": {"accuracy": "spectrum_accuracy"},
}
# What stands against k-means initialization, the control of every row.
AGAINST_KMEANS = (f"voc map_{LAYER}", "nmi nmi_image", f"{WITHIN}nmi nmi_image")
NETWORKS = {"": "trained", "wrong_sound_": "wrong sound", "random_": "random"}
BESIDE = "beside"


def collection_of(file: str) -> str:
    """The collection of a clip: the part of its file's name before the first underscore."""
    return Path(file).name.partition("_")[0]


def make_corpus(folder: Path, real: Path, seed: int, select: Callable[[dict], bool] = lambda row: True) -> None:
    """Write a folder of links to clips, with a manifest whose groups split otherwise for each seed, and an ontology.

    `select` says which rows of the manifest to take. Annotations become the classes of a flat ontology.
    """
    with (real / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row | {"group": f"{seed}/{row['group']}"} for row in csv.DictReader(file)]
    rows = [row for row in rows if select(row)]
    for row in rows:
        link(folder / row["file"], (real / row["file"]).resolve())
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=["file", "group", "annotations"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    names = sorted({name.strip() for row in rows for name in row["annotations"].split(";") if name.strip()})
    classes: list[dict[str, Any]] = [{"id": name, "name": name, "child_ids": [], "restrictions": []} for name in names]
    (folder.parent / "ontology.json").write_text(json.dumps(classes))


def inputs_of(data: Path, corpus: Path) -> list[str]:
    """The settings that name the clips and the benchmarks' data."""
    return [
        f"corpus.clips={corpus}",
        f"corpus.follow_links=[{(data / 'real' / 'clips').resolve()}]",
        f"corpus.ontology={corpus.parent / 'ontology.json'}",
        f"evaluate.voc.data_dir={data / 'voc2007_256' / 'VOCdevkit'}",
        f"evaluate.voc.layers=[{LAYER}]",
        f"evaluate.esc50.data_dir={data / 'esc10'}",
    ]


def make_scenes(root: Path, data: Path, seed: int, workers: int, within: bool) -> None:
    """Extract the clips of a seed with params.yaml: all, with sounds; or the test split of the largest collection."""
    real, corpus = data / "real" / "clips", root / "corpus"
    if (root / "done").exists():
        return
    make_corpus(corpus, real, seed, within_largest(real) if within else lambda row: True)
    for name in ("extract",) if within else ("extract", "describe"):
        stage(name, root, workers)
    (root / "done").touch()


def largest_collection(real: Path) -> str:
    """The collection with most clips."""
    with (real / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return Counter(collection_of(row["file"]) for row in csv.DictReader(file)).most_common(1)[0][0]


def within_largest(real: Path) -> Callable[[dict], bool]:
    """What chooses the rows of the largest collection whose groups are in the test split."""
    largest = largest_collection(real)
    return lambda row: collection_of(row["file"]) == largest and split_of(row["group"]) == "test"


def write_row(root: Path, data: Path, seed: int, changes: Sequence[str], write: Callable[..., None]) -> None:
    """Write or check params.yaml of a row, by `write`: on all clips, and below on those of the largest collection."""
    for place, scenes in ((root, "all"), (root / "within", "within")):
        write(place, f"{RECIPE}-{root.name}", seed, [*inputs_of(data, root.parent / scenes / "corpus"), *changes])


def run_row(root: Path) -> None:
    """The stages of one row with params.yaml that are not done yet."""
    everything, within, inner = root.parent / "all", root.parent / "within", root / "within"
    stages, benchmarks = ROWS[root.name]
    for table in ("data/scenes", "data/annotations", "data/sounds", "models/descriptor"):
        link(root / table, everything / table)
    for each in stages:
        if not (root / "metrics" / f"{each}.json").exists():
            stage(each, root)
    evaluate(benchmarks, root)
    for table in ("data/scenes", "data/annotations"):
        link(inner / table, within / table)
    link(inner / "models" / stages[-1], root / "models" / stages[-1])
    evaluate([benchmark for benchmark in CLIP_BENCHMARKS if benchmark in benchmarks], inner)


def collect(folder: Path) -> list[dict[str, Any]]:
    """A line a seed, row and network of the folder that has scores, and one for what stands beside them."""
    lines = []
    for seed, name, root in measured(folder, ROWS):
        values = {benchmark: read_metrics(root, benchmark) for benchmark in SCORES}
        values |= {WITHIN + benchmark: read_metrics(root / "within", benchmark) for benchmark in CLIP_BENCHMARKS}
        keys = {benchmark: SCORES[benchmark.removeprefix(WITHIN)] for benchmark in values}
        for prefix, network in NETWORKS.items():
            scores = {f"{b} {key}": values[b].get(prefix + key) for b in values for key in keys[b]}
            if any(score is not None for score in scores.values()):
                lines.append({"seed": seed, "row": name, "network": network} | scores)
        beside = {f"{b} {key}": values[b].get(other) for b in values for key, other in keys[b].items()}
        if any(score is not None for score in beside.values()):
            lines.append({"seed": seed, "row": name, "network": BESIDE} | beside)
    return lines


def report(lines: list[dict[str, Any]]) -> None:
    """Mean, deviation and interval of every score over the seeds, and differences to the controls, paired by seed."""
    by_network: dict[tuple[str, str], dict[int, dict]] = {}
    for each in lines:
        by_network.setdefault((each["row"], each["network"]), {})[each["seed"]] = each
    for key in [key for key in lines[0] if key not in ("seed", "row", "network")]:
        print(f"\n{key}")
        for (row, network), by_seed in by_network.items():
            values = {seed: each[key] for seed, each in by_seed.items() if each.get(key) is not None}
            if not values:
                continue
            text = f"  {row + ', ' + network:<28}{mean_std_interval([*values.values()]):>{WIDTH}}  {len(values)} seeds"
            trained = {
                seed: each[key] for seed, each in by_network[row, "trained"].items() if each.get(key) is not None
            }
            seeds = sorted(values.keys() & trained.keys())
            if network != "trained" and len(seeds) > 1:
                text += f"; trained above by {paired(trained, values, seeds)}"
            print(text)
    for row in sorted({row for row, _ in by_network} - {"kmeans"}):
        for key in AGAINST_KMEANS:
            scores = (by_network.get((name, "trained"), {}) for name in (row, "kmeans"))
            upper, lower = ({seed: each[key] for seed, each in of.items() if each[key] is not None} for of in scores)
            seeds = sorted(upper.keys() & lower.keys())
            if len(seeds) > 1:
                print(f"\n{row} above k-means initialization, {key}: by {paired(upper, lower, seeds)}")


def paired(upper: dict[int, float], lower: dict[int, float], seeds: Sequence[int]) -> str:
    """The margin over the seeds with its paired test."""
    return str(margin(np.array([upper[seed] for seed in seeds]), np.array([lower[seed] for seed in seeds])))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with real/clips, voc2007_256 and esc10")
    add_options(parser, list(ROWS), "real")
    options = parser.parse_args()
    names, folder, data = rows_in(options.rows, ROWS, "--rows"), options.output.resolve(), options.data.resolve()
    needed = (data / "real" / "clips" / "manifest.csv", data / "voc2007_256" / "VOCdevkit", data / "esc10" / "meta")
    if missing := [str(path) for path in needed if not path.exists()]:
        sys.exit(f"real: {missing[0]} is not there; name a folder that has it")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed, _, root in measured(folder, ROWS):
        write_row(root, data, seed, options.set, check_params)
    for seed in seeds:
        for part in ("all", "within"):
            root = folder / f"seed-{seed}" / part
            write_params(root, RECIPE, seed, [*inputs_of(data, root / "corpus"), *options.set])
    rows = [(seed, folder / f"seed-{seed}" / name) for seed in seeds for name in names]
    for seed, root in rows:
        write_row(root, data, seed, options.set, write_params)
    for seed in seeds:
        for part in ("all", "within"):
            make_scenes(folder / f"seed-{seed}" / part, data, seed, options.workers, part == "within")
    failures = run_all({f"seed {seed}, {root.name}": partial(run_row, root) for seed, root in rows}, options.workers)
    finish(folder / "real.csv", collect(folder), report, failures)


if __name__ == "__main__":
    main()
