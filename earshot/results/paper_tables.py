"""The papers' tables with runs in them: groups of runs that differ in seeds alone, and the lines of a table.

Below every score are those of random weights and of the wrong sound in the same runs.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from earshot.results.published import PublishedRow, PublishedTable
from earshot.results.runs import FinishedRun
from earshot.results.score_tables import is_rendered
from earshot.results.trainings import Params

CONTROLS = {
    "random weights": "random_",
    "wrong sound": "wrong_sound_",
    "supervised direct": "direct_",
    "supervised pretraining": "supervised_",
}
# Controls that all rows share, by the pattern of their keys.
ALIKE = {"color histogram": "color_histogram_{}", "random order": "random_order_{}", "chance": "chance"}
AS_PUBLISHED = "as published"
OTHER_LISTS = "These runs have different {} for {} ({}): their scores may differ for this reason alone."
# By the key of a list's hash: its name, and how many of a run's seeds it depends on (test items may be drawn).
LISTS = {"clips_hash": ("training clips", 1), "items_hash": ("test items", 2)}
DO_NOT_COMPARE = "Measured on the rendered world: compare these scores with each other, not with the published ones."


@dataclass(frozen=True)
class Score:
    """A score over seeds, in percent; `std` is the sample standard deviation, None for one seed."""

    mean: float
    std: float | None
    seeds: int


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in seeds alone, with their published row, if any, their method (idea) and their setting."""

    row: PublishedRow | None
    name: str
    idea: Params
    setting: Params
    runs: list[FinishedRun] = field(default_factory=list)

    def score(self, key: str | None) -> Score | None:
        """Mean and standard deviation of the score `key`; of runs with the same seed, the first counts."""
        return over_seeds(self.runs, key)


@dataclass(frozen=True)
class TableSection:
    """One table in one setting; the groups are in display order."""

    table: PublishedTable
    number: int
    setting: Params
    groups: list[RunGroup]

    @property
    def columns(self) -> dict[str, str]:
        """The table's columns, or the classes of the runs' data_dir if they are others."""
        place, _, rest = next(iter(self.table.columns.values())).partition(".")
        metric = rest.rpartition(".")[2]
        keys = {key for group in self.groups for run in group.runs for key in run.scores}
        class_keys = sorted(key for key in keys if key.startswith(f"{place}.") and key.endswith(f".{metric}"))
        if not self.table.classes or {*class_keys} <= {*self.table.columns.values()}:
            return self.table.columns
        return {key.removeprefix(f"{place}.").removesuffix(f".{metric}"): key for key in class_keys}

    @property
    def differences(self) -> dict[str, Any]:
        """The parts of the setting that differ from the paper's."""
        return {key: value for key, value in self.setting.items() if value != AS_PUBLISHED}

    @property
    def other_lists(self) -> list[str]:
        """A sentence for each benchmark where runs have different training clips or test items."""
        messages = []
        for place, (name, (what, seeds)) in product(sorted(self.table.benchmarks), LISTS.items()):
            lists_by_seed: dict[tuple[Any, ...], set[str]] = {}
            for run in (run for group in self.groups for run in group.runs if f"{place}.{name}" in run.lists):
                lists_by_seed.setdefault(run.seeds[-seeds:], set()).add(run.lists[f"{place}.{name}"])
            differing = [lists for lists in lists_by_seed.values() if len(lists) > 1]
            if differing:
                messages.append(OTHER_LISTS.format(what, place, ", ".join(sorted(set.union(*differing)))))
        return messages

    @property
    def rendered(self) -> bool:
        """Whether the scores come from datasets of the rendered world, or a pretext accuracy from its corpus."""
        run = self.groups[0].runs[0]
        measured = {key.partition(".")[0] for key in run.scores} & self.table.benchmarks
        return any(is_rendered(run.params, name) for name in measured)


@dataclass(frozen=True)
class Line:
    """One line of a section: the method, the kind of scores, and the scores by column."""

    method: str
    kind: str
    scores: Mapping[str, Score | float | None]


def over_seeds(runs: Iterable[FinishedRun], key: str | None) -> Score | None:
    """The mean and standard deviation of a score over the seeds of `runs`, in percent; None if no run has it."""
    by_seed: dict[Any, float] = {}
    for run in runs:
        if key in run.scores:
            by_seed.setdefault(run.seeds, 100 * run.scores[key])
    values = [*by_seed.values()]
    if not values:
        return None
    return Score(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def has_scores(table: PublishedTable, run: FinishedRun) -> bool:
    """Whether a run has any of the table's scores, of any layer or class."""
    places = {(key.partition(".")[0], key.rpartition(".")[2]) for key in table.columns.values()}
    return any((key.partition(".")[0], key.rpartition(".")[2]) in places for key in run.scores)


def lines(section: TableSection) -> list[Line]:
    """All lines: each published row with its runs and their controls, other runs, and shared controls.

    After the first section, a published row is listed only if it has runs.
    """
    columns = section.columns
    result = []
    for row in section.table.rows:
        displayed = section.number == 1 or any(group.row is row for group in section.groups)
        if displayed and columns == section.table.columns:
            result.append(Line(row.name, "published", dict(zip(columns, row.scores, strict=True))))
        for group in section.groups:
            result += _measured(section, group) if group.row is row else []
    for group in section.groups:
        result += [] if group.row else _measured(section, group)
    runs = [run for group in section.groups for run in group.runs]
    for name, metric in ALIKE.items():
        keys = {title: _shared_key(key, metric, runs) for title, key in columns.items()}
        scores = {title: over_seeds(runs, key) for title, key in keys.items() if key not in columns.values()}
        result += (
            [Line(name, "control", {title: scores.get(title) for title in columns})] if any(scores.values()) else []
        )
    return result


def _measured(section: TableSection, group: RunGroup) -> list[Line]:
    """The line of a group's runs, and those of its controls; runs of random weights have no controls."""
    columns = section.columns
    result = [Line(group.name, "ours", {title: group.score(key) for title, key in columns.items()})]
    if section.table.training.is_random(group.runs[0].params):
        return result
    for name, prefix in CONTROLS.items():
        scores = {title: group.score(control_key(key, prefix)) for title, key in columns.items()}
        result += [Line(group.name, name, scores)] if any(scores.values()) else []
    return result


def control_key(key: str, prefix: str) -> str:
    """`voc.map_pool5` and `random_` as `voc.random_map_pool5`."""
    place, _, metric = key.rpartition(".")
    return f"{place}.{prefix}{metric}"


def _shared_key(key: str, metric: str, runs: Iterable[FinishedRun]) -> str | None:
    """`voc.map_pool5` and `color_histogram_{}` as `voc.color_histogram_map`: the first part of the score's name that
    gives a score of the runs."""
    place, _, own = key.rpartition(".")
    words, known = own.split("_"), {key for run in runs for key in run.scores}
    keys = (f"{place}.{metric.format('_'.join(words[:count]))}" for count in range(1, len(words) + 1))
    return next((key for key in keys if key in known), None)
