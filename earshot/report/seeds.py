"""Figures for a paper over seeds: the mean of runs that differ in their seeds alone, and the spread between them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from earshot.report.curves import ClassTable, class_table
from earshot.report.drawing import COLUMN
from earshot.report.figures import class_bars, score_dots
from earshot.report.overview import score_title
from earshot.report.paper import layer_keys, layer_lines, used_parameters
from earshot.report.site import Chart, Site
from earshot.report.sources import Source
from earshot.results.paper_tables import Score, over_seeds
from earshot.results.score_tables import leading_column
from earshot.results.trainings import SEEDS


def seed_groups(sources: Sequence[Source]) -> list[list[Source]]:
    """The runs that differ in their seeds alone, where there are at least two; of runs of one seed the first counts."""
    groups: dict[str, dict[Any, Source]] = {}
    for source in sources:
        rest = {key: value for key, value in source.params.items() if key not in SEEDS}
        by_seed = groups.setdefault(json.dumps(rest, sort_keys=True, default=str), {})
        by_seed.setdefault(source.run.seeds, source)
    return [[*by_seed.values()] for by_seed in groups.values() if len(by_seed) > 1]


def seed_figures(site: Site, sources: Sequence[Source]) -> list[Chart]:
    """The figures of each group of runs that differ in their seeds alone."""
    charts: list[Chart] = []
    for number, group in enumerate(seed_groups(sources), 1):
        charts += _Figures(site, group, f"seeds-{number}").charts()
    return charts


class _Figures:
    """The figures of one group of runs."""

    def __init__(self, site: Site, group: Sequence[Source], prefix: str) -> None:
        self.site, self.group, self.first, self.prefix = site, group, group[0], prefix
        self.words = f"Mean of {len(group)} seeds; error bars: ± one standard deviation over them."

    def charts(self) -> list[Chart]:
        names = [name for name in self.first.grids if all(name in source.grids for source in self.group)]
        charts: list[Chart | None] = [self._scores(names)] if names else []
        for name in names:
            charts += [self._layers(name), self._classes(name)]
        return [chart for chart in charts if chart]

    def _score(self, name: str, row: str, key: str | None) -> Score | None:
        metric = self.first.grids[name].metrics.get(str(key), {}).get(row)
        return over_seeds([source.run for source in self.group], f"{name}.{metric}")

    def _scores(self, names: Sequence[str]) -> Chart:
        rows: dict[str, dict[str, float]] = {}
        bars: dict[str, dict[str, float]] = {}
        for name in names:
            grid = self.first.grids[name]
            key = leading_column(self.first.displays[name], grid)
            scores = {row: self._score(name, row, key) for row in grid.beside(key)}
            displayed = {row: score for row, score in scores.items() if score and 0 <= score.mean <= 100}
            title = score_title(self.first, name)
            rows[title] = {row: score.mean / 100 for row, score in displayed.items()}
            bars[title] = {row: (score.std or 0) / 100 for row, score in displayed.items()}
        caption = f"Scores of the trained networks and their controls. {self.words}"
        return self._chart("scores", lambda: score_dots(rows, bars, COLUMN), caption, "One row of marks per benchmark")

    def _layers(self, name: str) -> Chart | None:
        grid, display = self.first.grids[name], self.first.displays[name]
        keys = layer_keys(grid)
        if len(keys) < 2:
            return None
        scores_of = {row: [self._score(name, row, key) for key in keys] for row in grid.rows}
        lines = {
            row: [(score.mean / 100, (score.std or 0) / 100) for score in scores if score]
            for row, scores in scores_of.items()
            if all(scores)
        }
        levels = {row: self._score(name, row, keys[0]) for row in grid.alike}
        means = {row: score.mean / 100 for row, score in levels.items() if score}
        titles = [grid.columns[key] for key in keys]
        draw = lambda: layer_lines(titles, lines, means, display.metric or "score")  # noqa: E731
        return self._chart(f"layers-{name}", draw, f"{display.heading}, by layer. {self.words}", "A line per network")

    def _classes(self, name: str) -> Chart | None:
        tables = [class_table(source, name) for source in self.group]
        first = tables[0]
        if first is None or any(table is None or table.scores.keys() != first.scores.keys() for table in tables):
            return None
        scores = _of_classes([table for table in tables if table], first.names)
        means = dict(zip(first.scores, scores.mean(axis=0).tolist(), strict=True))
        bars = dict(zip(first.scores, scores.std(axis=0, ddof=1).tolist(), strict=True))
        draw = lambda: class_bars(first.names, means, first.metric, width=COLUMN, bars=bars)  # noqa: E731
        return self._chart(f"classes-{name}", draw, f"{first.title}. {self.words}", "A bar per class")

    def _chart(self, name: str, draw: Any, caption: str, alt: str) -> Chart:
        runs = "; ".join(source.title for source in self.group)
        seeds = ", ".join(f"seed={seed} sample.seed={world}" for seed, world in (each.run.seeds for each in self.group))
        parameters = used_parameters(self.first, without=SEEDS)
        made_by = f"Runs: {runs}. Seeds: {seeds}. Command: earshot compare. Parameters: {parameters}."
        return self.site.paper_chart(f"{self.prefix}-{name}", draw, caption, alt, made_by)


def _of_classes(tables: Sequence[ClassTable], names: Sequence[str]) -> np.ndarray:
    """The scores of these classes, (runs, networks, classes); NaN for a class that a run lacks."""
    by_class = [{row[0]: row[1:] for row in table.rows} for table in tables]
    missing = (float("nan"),) * len(tables[0].scores)
    return np.array([[rows.get(name, missing) for name in names] for rows in by_class], float).transpose(0, 2, 1)
