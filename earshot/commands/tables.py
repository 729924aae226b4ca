"""The papers' tables with our runs beside them, from folders, DVC experiments and branches, as CSV, Markdown and plots.

    python -m earshot.commands.tables
    python -m earshot.commands.tables --experiments --branches main fifteen --output tables
    python -m earshot.commands.tables --folder .earshot/rows --output tables

Runs that differ in nothing but seeds are one row: their number, mean and standard deviation. Rows of one table share a
setting, which is every parameter that is neither seed nor idea; for another setting the table is made again. Every
score stands above that of random weights and of the wrong sound in the same runs. What matches no published row stands
below them, named by its parameters; runs.csv lists every run, and what was left out and why.
"""

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from earshot.commands.recipe import flatten, recipe_values
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.pipeline.params import read_yaml
from earshot.results.charts import draw_classes, draw_sweep
from earshot.results.published import Published, Row, published_tables
from earshot.results.run_settings import TRAININGS, Params, agree, told
from earshot.results.runs import Collection, Run, collect

REPOSITORY = Path(__file__).resolve().parents[2]
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
    runs: list[Run] = field(default_factory=list)

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
        trees = [run.params.get(f"evaluate.{name}.tree", SCENES) for name in measured]  # pretrain has none
        if SCENES in trees and run.params.get("corpus.clips") == "data/clips":
            trees.append(run.params.get("corpus.manifest"))
        return any(str(tree).startswith(RENDERED) for tree in trees)


@dataclass(frozen=True)
class Line:
    """One line of a section: whose score, which kind of it, and the scores by column."""

    method: str
    kind: str
    scores: dict[str, Score | float | None]


def over_seeds(runs: Iterable[Run], key: str | None) -> Score | None:
    """The mean of a score over the seeds of `runs`, in per cent, and its spread; None where no run has it."""
    by_seed: dict[Any, float] = {}
    for run in runs:
        if key in run.scores:
            by_seed.setdefault(run.seeds, 100 * run.scores[key])
    values = [*by_seed.values()]
    if not values:
        return None
    return Score(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def sections(table: Published, runs: Sequence[Run]) -> list[Section]:
    """The table once for each setting of the runs that have any of its scores, the one of most runs first."""
    groups = grouped(table, [run for run in runs if table.admits(run.params) and _has_scores(table, run)])
    settings: list[dict[str, Any]] = []
    for group in sorted(groups, key=lambda group: -len(group.setting)):  # who uses most parameters tells most
        if not any(agree(group.setting, other) for other in settings):
            settings.append(dict(group.setting))
    members = [[group for group in groups if agree(group.setting, each)] for each in settings]
    order = sorted(range(len(settings)), key=lambda i: -sum(len(group.runs) for group in members[i]))
    return [Section(table, number, settings[i], members[i]) for number, i in enumerate(order, 1)]


def grouped(table: Published, runs: Iterable[Run]) -> list[Group]:
    """Runs by row, idea and setting: published rows in their order, then what matches none."""
    groups: dict[str, Group] = {}
    for run in runs:
        row = table.row_of(run.params)
        published = recipe_params((row and row.recipe) or table.recipe)
        own_idea = table.training.idea(run.params, table.sweep)
        own_setting = table.training.setting(run.params, table.benchmarks, table.sweep)
        for key, value in (published | table.training.steps(published)).items():
            if key in own_setting and own_setting[key] == value:
                own_setting[key] = AS_PUBLISHED
        name = _name(table, row, own_idea, published)
        key = json.dumps([name, own_idea, own_setting], sort_keys=True)
        groups.setdefault(key, Group(row, name, own_idea, own_setting)).runs.append(run)
    rows = [*table.rows, None]
    return sorted(groups.values(), key=lambda group: (rows.index(group.row), group.idea.get("clusters", 0), group.name))


def _name(table: Published, row: Row | None, own: Params, published: Params) -> str:
    """The published row's name, or none; and in words where the idea is not the published one."""
    if row is None and table.training.is_random(own):
        return "random weights"
    if row and row.weights:
        return row.name
    differs = {key: value for key, value in own.items() if published.get(key) != value}
    return ", ".join(filter(None, [row.name if row else "", told(differs)])) or "the same"


@cache
def recipe_params(name: str) -> dict[str, Any]:
    """All parameters of a paper's row, by dotted name."""
    defaults = dict(flatten(read_yaml(REPOSITORY / "params.yaml")))
    return defaults | recipe_values([REPOSITORY / "recipes" / f"{name}.yaml"])


def _has_scores(table: Published, run: Run) -> bool:
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
    if section.table.training.is_random(group.idea):
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


def as_markdown(found: Sequence[Section], plots: Mapping[int, str]) -> str:
    """All sections of one table; `plots` names a picture by a section's number."""
    table = found[0].table
    text = [f"# {table.title}", "", f"{table.source}. {table.note}".strip(), ""]
    for section in found:
        text += [f"## Setting {section.number} of {len(found)}", "", _setting_in_words(section), ""]
        text += [f"**{DO_NOT_COMPARE}**", ""] if section.rendered else []
        text += [line for told in section.other_lists for line in (f"**{told}**", "")]
        text += [*_markdown_table(section), ""]
        text += [f"![{table.title}]({plots[section.number]})", ""] if section.number in plots else []
    text.append("ours: mean ± standard deviation over seeds, of the runs that runs.csv lists.")
    return "\n".join(text) + "\n"


def _setting_in_words(section: Section) -> str:
    if not section.differences:
        return f"The paper's own (recipes/{section.table.recipe}.yaml)."
    return f"Not as in recipes/{section.table.recipe}.yaml: {told(section.differences)}."


def _markdown_table(section: Section) -> Iterable[str]:
    columns = section.columns
    yield f"| method | | seeds | {' | '.join(columns)} |"
    yield f"|---|---|---|{'---|' * len(columns)}"
    before = None
    for line in lines(section):
        seeds = {score.seeds for score in line.scores.values() if isinstance(score, Score)}
        counts = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)}-{max(seeds)}" if seeds else ""
        scores = " | ".join(_cell(line.scores[title]) for title in columns)
        yield f"| {line.method if line.method != before else ''} | {line.kind} | {counts} | {scores} |"
        before = line.method


def _cell(score: Score | float | None) -> str:
    if score is None:
        return "-"
    if isinstance(score, Score):
        return f"{score.mean:.1f}" + (f" ± {score.spread:.1f}" if score.spread is not None else "")
    return str(score)


def as_csv(found: Sequence[Section]) -> str:
    """A row a score: table, setting, method, kind, column, mean, spread, seeds."""
    rows = []
    for section in found:
        where = {"table": section.table.name, "setting": section.number}
        for line in lines(section):
            for column, score in line.scores.items():
                if score is None:
                    continue
                value = score if isinstance(score, Score) else Score(score, None, 0)
                spread = "" if value.spread is None else f"{value.spread:.6g}"
                shown = {"mean": f"{value.mean:.6g}", "spread": spread, "seeds": value.seeds or ""}
                rows.append({**where, "method": line.method, "kind": line.kind, "column": column, **shown})
    return _csv(rows)


def runs_csv(collection: Collection, tables: Mapping[str, Sequence[Section]]) -> str:
    """A row a run: where it was found, its seeds, its idea, and the rows that it is in or why it is left out."""
    rows = []
    for run in collection.runs:
        places = [
            f"{name}: {group.name}"
            for name, found in tables.items()
            for group in {id(group): group for section in found for group in section.groups}.values()
            if run in group.runs
        ]
        seeds = dict(zip(("seed", "world"), run.seeds, strict=True))
        rows.append({"run": run.source, **seeds, "idea": told(ideas(run)), "rows": "; ".join(places)})
    for reason in collection.left_out:
        source, _, words = reason.partition(": ")
        rows.append({"run": source, "seed": "", "world": "", "idea": "", "rows": f"left out: {words}"})
    return _csv(rows)


def ideas(run: Run) -> dict[str, Any]:
    """The ideas of the trainings whose networks the run measured."""
    measured = {key.partition(".")[0] for key in run.scores}
    encoders = {run.params.get(f"evaluate.{name}.encoder", f"models/{name}") for name in measured}
    trainings = [training for name, training in TRAININGS.items() if f"models/{name}" in encoders]
    return {key: value for training in trainings for key, value in training.idea(run.params).items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw(section: Section, file: Path) -> bool:
    """A picture of the section, where its table has one: a sweep's curves, or a class's bars; whether it was drawn."""
    if section.table.sweep:
        draw_sweep(section, file)
    elif section.table.classes:
        draw_classes(section, file)
    return file.exists()


def write_tables(collection: Collection, output: Path) -> list[str]:
    """Write every table that any run stands in, and runs.csv; a line of words for each."""
    tables = {table.name: sections(table, collection.runs) for table in published_tables()}
    tables = {name: found for name, found in tables.items() if found}
    told_lines = []
    for name, found in tables.items():
        pictures = {section.number: output / f"{name}-{section.number}.png" for section in found}
        drawn = [section.number for section in found if draw(section, pictures[section.number])]
        plots = {number: pictures[number].name for number in drawn}
        _write(output / f"{name}.md", as_markdown(found, plots))
        _write(output / f"{name}.csv", as_csv(found))
        filled = {group.row.name for section in found for group in section.groups if group.row}
        table = found[0].table
        told_lines.append(f"{output / name}.md: {table.source}, {len(filled)} of {len(table.rows)} rows filled")
        told_lines += dict.fromkeys(f"{output / name}.md: {told}" for section in found for told in section.other_lists)
    _write(output / "runs.csv", runs_csv(collection, tables))
    return told_lines


def _write(file: Path, text: str) -> None:
    with write_atomically(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.commands.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--experiments", action="store_true", help="all DVC experiments of the repository too")
    add("--branches", nargs="+", default=[], metavar="NAME", help="branches, tags or commits too")
    add("--folder", type=Path, action="append", default=[], metavar="DIR", help="the runs in it too; repeatable")
    add("--root", type=Path, default=Path("."), metavar="DIR", help="where params.yaml and metrics/ are")
    add("--output", type=Path, default=Path("tables"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        collection = collect(options.root, options.folder, options.experiments, options.branches)
        if not collection.runs:
            raise EarshotError(f"no run to show; left out: {'; '.join(collection.left_out)}")
        shown = write_tables(collection, options.output)
    except EarshotError as error:
        sys.exit(f"tables: {error}")
    print(*shown, *(f"left out: {reason}" for reason in collection.left_out), sep="\n")
    print(f"{options.output / 'runs.csv'}: {len(collection.runs)} runs")


if __name__ == "__main__":
    main()
