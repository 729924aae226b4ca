"""The metrics of a benchmark as a grid: scores by column; the trained network and its controls by row.

Each benchmark defines its display (`earshot.evaluation.benchmark.Display`). Commands take it from the registry, the
report from the file that the stage evaluate wrote.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json
from earshot.core.registry import find_all, names
from earshot.evaluation.benchmark import (
    BENCHMARK_FILE,
    PLAIN_PROBE,
    PROBES,
    SCENES,
    Display,
    is_rendered_data,
    rendered_name,
)
from earshot.results.trainings import group_of

OWN, CHANCE = "sound", "chance"  # rows
OTHER_PROBES = tuple(name for name in names(PROBES) if name != PLAIN_PROBE)  # endings of their scores' names


@dataclass(frozen=True)
class Grid:
    """Scores of one benchmark.

    Args:
        columns: their titles, by the metric of the trained network.
        rows: scores by key, by the row's name; the first row is the trained network.
        alike: the rows with one score for all columns.
        others: metrics that are not scores, such as the number of test items.
        metrics: the names of the metrics of a column's scores, by the column's key and the row's name.
    """

    columns: dict[str, str]
    rows: dict[str, dict[str, float]]
    alike: dict[str, float]
    others: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def own(self) -> str:
        """The name of the trained network's row."""
        return next(iter(self.rows))

    def beside(self, key: str | None) -> dict[str, float]:
        """The scores of all rows in one column."""
        scores = {name: row[key] for name, row in self.rows.items() if key and key in row}
        measured = self.metrics.get(key or "", self.alike)
        return scores | {row: score for row, score in self.alike.items() if row in measured}


def registered_displays() -> dict[str, Display]:
    """The displays of all registered benchmarks, by name."""
    return find_all("earshot.benchmarks", "BENCHMARK")


def written_displays(folder: Path) -> dict[str, Display]:
    """The displays of the benchmarks of a run, by name, from <folder>/<benchmark>/benchmark.json.

    Raises EarshotError for a file that cannot be read.
    """
    displays = {}
    for file in sorted(folder.glob(f"*/{BENCHMARK_FILE}")):
        try:
            displays[file.parent.name] = Display(**parse_json(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise EarshotError(f"{file}: cannot be read ({error}); run the stage evaluate again") from None
    return displays


def displays_of(displays: Mapping[str, Display], params: Mapping[str, Any]) -> dict[str, Display]:
    """The displays in the order of the benchmarks in `params` (by dotted name), then the others by name.

    The title of a benchmark on rendered data says so.
    """
    listed = dict.fromkeys(key.split(".")[1] for key in params if key.startswith("evaluate."))
    ordered = [name for name in [*listed, *sorted(displays.keys() - listed)] if name in displays]
    return {name: _named(displays[name], is_rendered(params, name)) for name in ordered}


def is_rendered(params: Mapping[str, Any], benchmark: str) -> bool:
    """Whether a benchmark measures on the sample, by all parameters of a run, by dotted name.

    A training (pretrain) counts as a benchmark on clips.
    """
    data = str(params.get(f"{group_of(benchmark)}.data_dir", SCENES))
    return is_rendered_data(data, str(params.get("corpus.clips")), str(params.get("corpus.manifest")))


def _named(display: Display, rendered: bool) -> Display:
    title, brief = (rendered_name(name, rendered) for name in (display.title, display.brief))
    return replace(display, title=title, brief=brief)


def grid(display: Display, values: Mapping[str, Any]) -> Grid:
    """The metrics of a benchmark as a grid; without columns if it has no scores."""
    values = {key: value for key, value in values.items() if value is not None}
    ending = f"(?:_({'|'.join(OTHER_PROBES)}))?"
    pattern = re.compile(f"({display.scores})(?:_(.+?))??{ending}")
    others = re.compile(f"({'|'.join(display.not_scores)}){ending}")
    candidates = ((key, pattern.fullmatch(key)) for key in values if not others.fullmatch(key))
    matches = {key: match for key, match in candidates if match}
    probes = {key: match[3] or "" for key, match in matches.items()}
    stems = {key: _joined("_", match[1], probes[key]) for key, match in matches.items()}
    columns = {
        key: _joined(", ", _title(display, key.removesuffix(f"_{probes[key]}"), match[2]), probes[key])
        for key, match in matches.items()
    }
    controls = {
        row: {key: values[prefix + key] for key in stems if prefix + key in values}
        for row, prefix in display.controls.items()
    }
    controls = {row: scores for row, scores in controls.items() if scores}
    own = next((name for control, name in display.own_beside.items() if control in controls), OWN)
    alike_metrics = {
        key: {_joined(", ", row, probes[key]): p + stem for row, p in display.alike.items() if p + stem in values}
        for key, stem in stems.items()
    }
    alike = {row: values[name] for of_column in alike_metrics.values() for row, name in of_column.items()}
    alike |= {CHANCE: values[CHANCE]} if CHANCE in values else {}
    metrics = {
        key: {own: key}
        | {row: display.controls[row] + key for row in controls if key in controls[row]}
        | alike_metrics[key]
        | ({CHANCE: CHANCE} if CHANCE in values else {})
        for key in stems
    }
    score_keys = {name for of_column in metrics.values() for name in of_column.values()} | {CHANCE}
    rows = {own: {key: values[key] for key in stems}} | controls
    return Grid(columns, rows, alike, {key: value for key, value in values.items() if key not in score_keys}, metrics)


def leading_column(display: Display, scores: Grid) -> str | None:
    """The column that represents a benchmark, fixed in advance and not by its score; else the first."""
    return display.leading if display.leading in scores.columns else next(iter(scores.columns), None)


def _joined(separator: str, *parts: str) -> str:
    return separator.join(filter(None, parts))


def _title(display: Display, key: str, rest: str | None) -> str:
    return display.columns.get(key) or display.columns.get(rest or key) or rest or key
