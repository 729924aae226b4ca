"""The papers' tables with runs in them: groups of runs that differ in seeds alone, and the lines that a table shows.

Every score stands above that of random weights and of the wrong sound in the same runs.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from earshot.results.published import Published, Row
from earshot.results.runs import StageContext
from earshot.results.trainings import Params

CONTROLS = {
    "random weights": "random_",
    "wrong sound": "wrong_sound_",
    "supervised direct": "direct_",
    "supervised pretraining": "supervised_",
}
# What stands beside all rows alike.
ALIKE = {"colour histogram": "colour_{}", "random ranking": "floor_{}", "chance": "chance"}
AS_PUBLISHED = "as published"
RENDERED, SCENES = "data/sample/", "data/scenes"
OTHER_LISTS = "Runs that should have the same {} for {} have different ones ({}): what is missing may tell."
# By the key of a list's hash: of what it is, and how many of a run's seeds decide it (test items may be drawn).
LISTS = {"clips_hash": ("clips to train on", 1), "items_hash": ("items to ask", 2)}
DO_NOT_COMPARE = "Measured on the rendered world: these scores compare with each other, not with the published ones."


@dataclass(frozen=True)
class Score:
    """A score over seeds, in per cent; the spread is the sample standard deviation, None for one seed."""

    mean: float
    spread: float | None
    seeds: int


@dataclass(frozen=True)
class Group:
    """Runs that differ in seeds alone: the published row that they are of, if any, their idea and their setting."""

    row: Row | None
    name: str
    idea: Params
    setting: Params
    runs: list[StageContext] = field(default_factory=list)

    def score(self, key: str | None) -> Score | None:
        """Mean and spread of the score `key`; of runs that repeat a seed, the first counts."""
        return over_seeds(self.runs, key)


@dataclass(frozen=True)
class Section:
    """One table in one setting; the groups are in the order in which they are shown."""

    table: Published
    number: int
    setting: Params
    groups: list[Group]

    @property
    def columns(self) -> dict[str, str]:
        """The table's columns, or where the runs saw a tree with other classes, those classes."""
        place, _, rest = next(iter(self.table.columns.values())).partition(".")
        metric = rest.rpartition(".")[2]
        keys = {key for group in self.groups for run in group.runs for key in run.scores}
        found = sorted(key for key in keys if key.startswith(f"{place}.") and key.endswith(f".{metric}"))
        if not self.table.classes or {*found} <= {*self.table.columns.values()}:
            return self.table.columns
        return {key.removeprefix(f"{place}.").removesuffix(f".{metric}"): key for key in found}

    @property
    def differences(self) -> dict[str, Any]:
        """Where the setting is not the paper's."""
        return {key: value for key, value in self.setting.items() if value != AS_PUBLISHED}

    @property
    def other_lists(self) -> list[str]:
        """In words, where runs come from different lists of clips or items that should be the same."""
        told = []
        for place, (name, (what, seeds)) in product(sorted(self.table.benchmarks), LISTS.items()):
            found: dict[tuple[Any, ...], set[str]] = {}
            for run in (run for group in self.groups for run in group.runs if f"{place}.{name}" in run.lists):
                found.setdefault(run.seeds[-seeds:], set()).add(run.lists[f"{place}.{name}"])
            differing = [lists for lists in found.values() if len(lists) > 1]
            if differing:
                told.append(OTHER_LISTS.format(what, place, ", ".join(sorted(set.union(*differing)))))
        return told

    @property
    def rendered(self) -> bool:
        """Whether the scores come from trees of the rendered world, or a pretext accuracy from its corpus."""
        run = self.groups[0].runs[0]
        measured = {key.partition(".")[0] for key in run.scores} & self.table.benchmarks
        datasets = [run.params.get(f"evaluate.{name}.data_dir", SCENES) for name in measured]  # pretrain has none
        if SCENES in datasets and run.params.get("corpus.clips") == "data/clips":
            datasets.append(run.params.get("corpus.manifest"))
        return any(str(tree).startswith(RENDERED) for tree in datasets)


@dataclass(frozen=True)
class Line:
    """One line of a section: whose score, which kind of it, and the scores by column."""

    method: str
    kind: str
    scores: Mapping[str, Score | float | None]


def over_seeds(runs: Iterable[StageContext], key: str | None) -> Score | None:
    """The mean of a score over the seeds of `runs`, in per cent, and its spread; None where no run has it."""
    by_seed: dict[Any, float] = {}
    for run in runs:
        if key in run.scores:
            by_seed.setdefault(run.seeds, 100 * run.scores[key])
    values = [*by_seed.values()]
    if not values:
        return None
    return Score(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def has_scores(table: Published, run: StageContext) -> bool:
    """Whether a run has any of the table's scores, of any layer or class."""
    places = {(key.partition(".")[0], key.rpartition(".")[2]) for key in table.columns.values()}
    return any((key.partition(".")[0], key.rpartition(".")[2]) in places for key in run.scores)


def lines(section: Section) -> list[Line]:
    """All lines: each published row with the runs of it and their controls, other runs, colours and chance.

    After the first section, published rows stand only where there are runs of them.
    """
    columns = section.columns
    made = []
    for row in section.table.rows:
        shown = section.number == 1 or any(group.row is row for group in section.groups)
        if shown and columns == section.table.columns:
            made.append(Line(row.name, "published", dict(zip(columns, row.scores, strict=True))))
        for group in section.groups:
            made += _measured(section, group) if group.row is row else []
    for group in section.groups:
        made += [] if group.row else _measured(section, group)
    runs = [run for group in section.groups for run in group.runs]
    for name, metric in ALIKE.items():
        keys = {title: _key_without_layer(key, metric) for title, key in columns.items()}
        scores = {title: over_seeds(runs, key) for title, key in keys.items() if key not in columns.values()}
        made += [Line(name, "control", {title: scores.get(title) for title in columns})] if any(scores.values()) else []
    return made


def _measured(section: Section, group: Group) -> list[Line]:
    """The line of a group's runs, and those of its controls; the runs of random weights are their own."""
    columns = section.columns
    made = [Line(group.name, "ours", {title: group.score(key) for title, key in columns.items()})]
    if section.table.training.is_random(group.runs[0].params):
        return made
    for name, prefix in CONTROLS.items():
        scores = {title: group.score(control_key(key, prefix)) for title, key in columns.items()}
        made += [Line(group.name, name, scores)] if any(scores.values()) else []
    return made


def control_key(key: str, prefix: str) -> str:
    """`voc.map_pool5` and `random_` as `voc.random_map_pool5`."""
    place, _, metric = key.rpartition(".")
    return f"{place}.{prefix}{metric}"


def _key_without_layer(key: str, metric: str) -> str:
    """`voc.map_pool5` and `colour_{}` as `voc.colour_map`."""
    place, _, own = key.rpartition(".")
    return f"{place}.{metric.format(own.partition('_')[0])}"
