"""The correspondence networks on the rendered world, one size for all: their scores in several worlds.

    python -m experiments.correspondence --seeds 3        # world and training seeds 0, 1, 2; hours on two cores
    python -m experiments.correspondence --seeds 5 --controls ave,contrastive,l3,avol,avol-128,multisensory
    python -m experiments.correspondence --rows ave --seeds 1 --set correspond.epochs=5 --output elsewhere

A seed is another world and another training. Its world is rendered once; every row then runs the very stages of the
pipeline, with recipes/sample-correspond.yaml and what makes the row, in a folder of its own with params.yaml and
metrics/. What is there is not run again, and with other settings it is refused. All are tested on the same pairs, whose
sounds lie around the frame, as those that AVE and AVOL are trained on; L3 is trained on sounds that overlap it
anywhere, as its paper has it.

Writes correspondence.csv into the folder, a line a seed and network (trained, on wrong sounds, with random weights) of
every finished row that the folder holds, prints means, deviations and 95 % intervals over the seeds, and reports the
result for every claim. A row that fails stops no other; all that failed are named at the end. A row in
`--controls` trains its wrong-sound control too; one that has finished without it is refused: remove its folder first.
"""

import argparse
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

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
    render,
    rows_in,
    run_all,
    stage,
    write_params,
)

RECIPE = "sample-correspond"
ENCODER = "models/correspond"
LAYER = "pool5"
# What makes a row.
MATCH = "correspond.objective=match"
# The rate and the batch of the default run, which has another world; as many clips and epochs as `ave`.
CONTRASTIVE = ("correspond.objective=contrastive", "correspond.learning_rate=0.003", "correspond.batch_size=64")
ROWS = {
    "ave": ("correspond.network=ave", MATCH),
    "contrastive": ("correspond.network=ave", *CONTRASTIVE),
    "augmented": (
        *("correspond.network=ave", *CONTRASTIVE, "correspond.noise_level=0.1", "correspond.time_shift_s=0.2"),
        *("correspond.mix_share=0.2", "correspond.frequency_mask=0.3", "correspond.time_mask=0.3"),
    ),
    # Half of the mismatched sounds are of the same clip at another time; synchrony is measured for this row alone.
    "shifted": (
        *("correspond.network=ave", *CONTRASTIVE, "correspond.negatives=both"),
        "evaluate.correspondence.synchrony=true",
    ),
    "l3": ("correspond.network=l3", MATCH, "correspond.positives=overlapping"),
    "avol": ("correspond.network=avol", MATCH),
    "avol-contrastive": ("correspond.network=avol", *CONTRASTIVE),
    # At 64 px AVOL's map has 4 x 4 positions; at 128 px it has 8 x 8. The best of them alone learns from a pair, which
    # takes three times as long: after 25 epochs the map still misses.
    "avol-128": ("correspond.network=avol", MATCH, "correspond.image_size=128", "correspond.epochs=75"),
    "multisensory": (
        "correspond.network=multisensory",
        MATCH,
        "correspond.width=0.125",
        "correspond.image_size=48",
        "correspond.frames=8",
        "correspond.audio_samples=33600",
        "correspond.batch_size=64",
        "correspond.epochs=70",
        "correspond.learning_rate=0.0003",
    ),
}
CONTROLLED = ("ave", "contrastive")  # rows with a wrong-sound control, which takes as long as the network itself
SEQUENCES = ("extract.sequence_rate=5", "extract.sequence_size=64")  # for multisensory, in the scenes of all
# Rows of which not all scores are measured; multisensory embeds no modality alone.
PARTIAL = {"avol-128": ("correspondence", "retrieval", "localization"), "multisensory": ("correspondence",)}
TOWERS = ("ave", "contrastive", "augmented", "shifted", "l3", "avol", "avol-contrastive")
DIRECTIONS = ("image_audio", "audio_image", "image_image", "audio_audio")
# The scores that are kept, by benchmark, and beside which value of the same benchmark each stands.
RETRIEVAL = tuple(f"ndcg30_{direction}" for direction in DIRECTIONS)
SCORES = {
    "correspondence": {"accuracy": "chance", "own_sound": "chance", "roc_auc": "chance", "synchrony": "chance"},
    "retrieval": dict.fromkeys(RETRIEVAL, "random_order_ndcg30"),
    "esc50": {"accuracy": "chance"},
    "localization": {"peak": "center_peak", "ciou_half": "center_ciou_half", "auc_half": "center_auc_half"},
    "nmi": {"nmi_image": "chance", "nmi_audio": "chance"},
    "voc": {f"map_{LAYER}": "color_histogram_map"},
    "sun": {f"accuracy_{LAYER}": "color_histogram_accuracy"},
}
NETWORKS = {"": "trained", "wrong_sound_": "wrong sound", "random_": "random"}
BESIDE = "beside"
# Two rows that are compared by all their scores but localization.
ABOVE = (
    ("contrastive above AVE", "contrastive", "ave"),
    ("augmented sounds above contrastive", "augmented", "contrastive"),
    ("shifted negatives above contrastive", "shifted", "contrastive"),
    ("avol-contrastive above AVOL", "avol-contrastive", "avol"),
)
# What must hold: a score of a network above that of another, or above what stands beside it.
CLAIMS = (
    *(
        (f"{row}: pairs predicted above chance", ("correspondence", "accuracy"), (row, ""), (row, BESIDE))
        for row in ROWS
    ),
    *(
        (
            f"{row}: pairs predicted above the wrong sound",
            ("correspondence", "accuracy"),
            (row, ""),
            (row, "wrong_sound_"),
        )
        for row in ROWS
    ),
    *(
        (f"AVE above L3, {key.removeprefix('ndcg30_')}", ("retrieval", key), ("ave", ""), ("l3", ""))
        for key in RETRIEVAL[:2]
    ),
    *(
        (f"{title}, {key.removeprefix('ndcg30_')}", (benchmark, key), (upper, ""), (lower, ""))
        for title, upper, lower in ABOVE
        for benchmark in ("correspondence", "retrieval", "nmi", "voc", "sun")
        for key in SCORES[benchmark]
    ),
    *(
        (f"{row}: {key.removeprefix('ndcg30_')} above its floor", ("retrieval", key), (row, ""), (row, BESIDE))
        for row in (*TOWERS, "avol-128")
        for key in RETRIEVAL
    ),
    *(
        (
            f"{row}: {key.removeprefix('ndcg30_')} above the wrong sound",
            ("retrieval", key),
            (row, ""),
            (row, "wrong_sound_"),
        )
        for row in (*TOWERS, "avol-128")
        for key in RETRIEVAL
    ),
    *((f"{row}: sounds classified above random", ("esc50", "accuracy"), (row, ""), (row, "random_")) for row in TOWERS),
    *(
        (f"{row}: {score} above {name}", ("localization", score), (row, ""), (row, control))
        for row in ("avol", "avol-contrastive", "avol-128")
        for score in ("peak", "ciou_half")
        for name, control in (("the center's", BESIDE), ("random", "random_"))
    ),
    *(
        (f"avol-contrastive above AVOL, {score}", ("localization", score), ("avol-contrastive", ""), ("avol", ""))
        for score in ("peak", "ciou_half")
    ),
    ("shifted: synchrony above chance", ("correspondence", "synchrony"), ("shifted", ""), ("shifted", BESIDE)),
    ("shifted: synchrony above random", ("correspondence", "synchrony"), ("shifted", ""), ("shifted", "random_")),
    *(
        (f"{row}: {benchmark} above {NETWORKS[control]}", (benchmark, key), (row, ""), (row, control))
        for row in TOWERS
        for benchmark, key in (("voc", f"map_{LAYER}"), ("sun", f"accuracy_{LAYER}"))
        for control in ("random_", "wrong_sound_")
    ),
    *(
        (f"{row}: wrong sound above random, {benchmark}", (benchmark, key), (row, "wrong_sound_"), (row, "random_"))
        for row in TOWERS
        for benchmark, key in (("voc", f"map_{LAYER}"), ("sun", f"accuracy_{LAYER}"))
    ),
)


def settings_of(row: str | None, changes: Iterable[str], controls: Collection[str] = CONTROLLED) -> list[str]:
    """The settings of a row, or of the world of all rows; a row in `controls` trains its control."""
    encoders = [f"evaluate.{benchmark}.encoder={ENCODER}" for benchmark in SCORES]
    layers = [f"evaluate.{benchmark}.layers=[{LAYER}]" for benchmark in ("voc", "sun")]
    own = (*ROWS[row], f"correspond.control={str(row in controls).lower()}") if row else ()
    return [*encoders, *layers, *SEQUENCES, *changes, *own]


def run_row(root: Path) -> None:
    """The stages of one row with params.yaml that are not done yet, on the scenes of the world beside it."""
    for table in ("scenes", "sample", "annotations"):
        link(root / "data" / table, root.parent / "world" / "data" / table)
    if not (root / "metrics" / "correspond.json").exists():
        stage("correspond", root)
    evaluate(PARTIAL.get(root.name, SCORES), root)


def collect(folder: Path) -> list[dict[str, Any]]:
    """A line a seed, row and network of the folder, and one for what stands beside its scores."""
    lines = []
    for seed, row, root in measured(folder, ROWS):
        values = {benchmark: read_metrics(root, benchmark) for benchmark in SCORES}
        if not all(values[benchmark] for benchmark in PARTIAL.get(row, SCORES)):
            continue
        for prefix, network in NETWORKS.items():
            if f"{prefix}accuracy" in values["correspondence"]:
                scores = {f"{b} {key}": values[b].get(prefix + key) for b, keys in SCORES.items() for key in keys}
                lines.append({"seed": seed, "row": row, "network": network} | scores)
        beside = {f"{b} {key}": values[b].get(other) for b, keys in SCORES.items() for key, other in keys.items()}
        lines.append({"seed": seed, "row": row, "network": BESIDE} | beside)
    return lines


def report(lines: list[dict[str, Any]]) -> None:
    """Mean, deviation and interval of every score over the seeds, and every claim, paired by seed."""
    by_network: dict[tuple[str, str], dict[int, dict]] = {}
    for each in lines:
        by_network.setdefault((each["row"], each["network"]), {})[each["seed"]] = each
    names = [*by_network]
    print(f"{'':<32}" + "".join(f"{row + ', ' + network:>{WIDTH}}" for row, network in names))
    for key in (f"{benchmark} {key}" for benchmark, keys in SCORES.items() for key in keys):
        values = [[each[key] for each in by_network[name].values() if each[key] is not None] for name in names]
        texts = [mean_std_interval(each) if each else "-" for each in values]
        print(f"{key:<32}" + "".join(f"{text:>{WIDTH}}" for text in texts))
    print()
    networks = NETWORKS | {BESIDE: BESIDE}
    for title, (benchmark, key), (upper, of_upper), (lower, of_lower) in CLAIMS:
        sides = (by_network.get((upper, networks[of_upper]), {}), by_network.get((lower, networks[of_lower]), {}))
        one, other = ({seed: each[f"{benchmark} {key}"] for seed, each in side.items()} for side in sides)
        seeds = [seed for seed in sorted(one.keys() & other.keys()) if None not in (one[seed], other[seed])]
        if seeds:
            print(f"{title}: {verdict([one[seed] for seed in seeds], [other[seed] for seed in seeds])}")


def verdict(one: Sequence[float], other: Sequence[float]) -> str:
    """The number of seeds that confirm a claim, and the margin over the seeds with a paired test."""
    higher = sum(mine > theirs for mine, theirs in zip(one, other, strict=True))
    text = f"in {higher} of {len(one)} seeds"
    return f"{text}, by {margin(np.array(one), np.array(other))}" if len(one) > 1 else text


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, list(ROWS), "correspondence")
    parser.add_argument("--controls", default=",".join(CONTROLLED), help="rows with a wrong-sound control")
    options = parser.parse_args()
    rows, controls = rows_in(options.rows, ROWS, "--rows"), rows_in(options.controls, ROWS, "--controls")
    folder, seeds = options.output.resolve(), range(options.first_seed, options.first_seed + options.seeds)
    for seed, row, root in measured(folder, ROWS):  # with its control or without
        check_params(root, RECIPE, seed, settings_of(row, options.set), but=["correspond.control"])
    roots = {(seed, row): folder / f"seed-{seed}" / (row or "world") for seed in seeds for row in [None, *rows]}
    for (seed, row), root in roots.items():
        write_params(root, RECIPE, seed, settings_of(row, options.set, controls))
    for seed in seeds:
        render(roots[seed, None], options.workers)
    jobs = {f"seed {seed}, {row}": partial(run_row, root) for (seed, row), root in roots.items() if row}
    failures = run_all(jobs, options.workers)
    finish(folder / "correspondence.csv", collect(folder), report, failures)


if __name__ == "__main__":
    main()
