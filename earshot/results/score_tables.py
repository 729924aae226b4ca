"""The metrics of a benchmark as a grid: its scores by column, what was trained and its controls by row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A row of a grid: what it is called, and what stands before the metric's name in the files.
OWN = "sound"
CONTROLS = {
    "wrong sound": "wrong_sound_",
    "random weights": "random_",
    "supervised direct": "direct_",
    "supervised pretraining": "supervised_",
    "spectrum": "spectrum_",
    "another sound": "other_sound_",
    "centre": "centre_",
    "whole picture": "whole_",
}
# What is the same for all columns, such as all layers of a network.
ALIKE = {"colour histogram": "colour_", "random ranking": "floor_"}
CHANCE = "chance"


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is told.

    Args:
        title: its name.
        metric: what its scores are called, a pattern.
        leading: the column that stands for it, chosen beforehand.
        words: the metric, where the columns do not say it.
        brief: that column in a chart, where title and column are too long for it.
    """

    title: str
    metric: str
    leading: str
    words: str = ""
    brief: str = ""


BENCHMARKS = {
    "voc": Benchmark("VOC2007", "map", "map_pool5", "mAP"),
    "sun": Benchmark("SUN397", "accuracy", "accuracy_pool5", "accuracy"),
    "finetune": Benchmark("VOC2007, fine-tuned", "map", "map_all"),
    "detection": Benchmark("VOC2007, detection", "map", "map"),
    "imagenet": Benchmark("ImageNet", "accuracy", "accuracy"),
    "correspondence": Benchmark("Correspondence", "accuracy", "accuracy"),
    "esc50": Benchmark("ESC-50", "accuracy", "accuracy", "accuracy"),
    "dcase": Benchmark("DCASE", "accuracy", "accuracy", "accuracy"),
    "retrieval": Benchmark("Retrieval", r"ndcg\d+", "", "nDCG"),
    "nmi": Benchmark("Clusters against annotations", "nmi", "nmi_picture", "NMI", "NMI of pictures"),
    "units": Benchmark(
        "Units that prefer a class", r"(?:classes|units)\d", "units4_picture", brief="Units, 4 of 5 pictures"
    ),
    "localisation": Benchmark("Where a sound comes from", r"ciou_\w+|auc_\w+|peak", "peak", brief="Localisation, peak"),
}
WORDS = {
    "map": "mAP",
    "picture_sound": "picture to sound",
    "sound_picture": "sound to picture",
    "picture_picture": "picture to picture",
    "sound_sound": "sound to sound",
    "ciou_median": "cIoU, median",
    "auc_median": "AUC, median",
    "ciou_half": "cIoU, half",
    "auc_half": "AUC, half",
    "classes4_picture": "classes, 4 of 5, pictures",
    "units4_picture": "units, 4 of 5, pictures",
    "classes3_picture": "classes, 3 of 5, pictures",
    "units3_picture": "units, 3 of 5, pictures",
    "classes4_sound": "classes, 4 of 5, sounds",
    "units4_sound": "units, 4 of 5, sounds",
    "classes3_sound": "classes, 3 of 5, sounds",
    "units3_sound": "units, 3 of 5, sounds",
}
NOT_SCORES = ("accuracy_spread",)


@dataclass(frozen=True)
class Grid:
    """Scores of one benchmark.

    Args:
        columns: their titles, by the key of what was trained.
        rows: scores by key, by the row's name; what was trained is the first row.
        alike: of what has one score for all columns.
        others: the metrics that are no scores, such as how many pictures were asked.
    """

    columns: dict[str, str]
    rows: dict[str, dict[str, float]]
    alike: dict[str, float]
    others: dict[str, Any] = field(default_factory=dict)

    def beside(self, key: str) -> dict[str, float]:
        """The scores of all rows in one column."""
        found = {name: row[key] for name, row in self.rows.items() if key in row}
        return found | self.alike


def grid(name: str, values: Mapping[str, Any]) -> Grid:
    """The metrics of benchmark `name` as a grid; without columns where it has no scores."""
    values = {key: value for key, value in values.items() if value is not None}
    metric = re.compile(f"({BENCHMARKS[name].metric})(?:_(.+))?")
    matches = {key: metric.fullmatch(key) for key in values if key not in NOT_SCORES}
    stems = {key: match[1] for key, match in matches.items() if match}
    columns = {key: _title(key, matches[key][2]) for key in stems}
    own = "descriptor" if "spectrum_accuracy" in values else OWN
    rows = {row: {key: values[f"{p}{key}"] for key in stems if f"{p}{key}" in values} for row, p in CONTROLS.items()}
    rows = {own: {key: values[key] for key in stems}} | {row: scores for row, scores in rows.items() if scores}
    alike = {row: values[p + stem] for row, p in ALIKE.items() for stem in stems.values() if p + stem in values}
    alike |= {CHANCE: values[CHANCE]} if CHANCE in values else {}
    told = {CHANCE, *(f"{p}{key}" for p in ("", *CONTROLS.values()) for key in stems)}
    told |= {p + stem for p in ALIKE.values() for stem in stems.values()}
    return Grid(columns, rows, alike, {key: value for key, value in values.items() if key not in told})


def leading_column(name: str, found: Grid) -> str | None:
    """The column that stands for a benchmark, chosen beforehand and not by its score; else the first."""
    chosen = BENCHMARKS[name].leading
    return chosen if chosen in found.columns else next(iter(found.columns), None)


def _title(key: str, rest: str | None) -> str:
    return WORDS.get(key) or WORDS.get(rest or key) or rest or key
