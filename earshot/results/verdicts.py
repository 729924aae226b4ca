"""Whether sound taught anything: the verdict on each score of a run, from tests over the items of its benchmark.

The stage evaluate writes the scores of single items, or those in resamples of the items, beside its predictions.
`earshot.evaluation.significance.decide` turns the tests into a verdict.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from earshot.evaluation.benchmark import DRAWS_FILE, Display, read_item_scores
from earshot.evaluation.significance import Margin, Verdict, bootstrap_margin, decide, margin, standard_error
from earshot.results.score_tables import OWN, Grid, leading_column

PREDICTIONS = "data/predictions"
ITEMS = "items"  # the metric with the number of test items
LEGEND = (
    "learned: above every control, the wrong sound among them, by a paired test over the n test items at the level of "
    ".05. Not above: no such difference. Worse: below by the same test. The seeds of a training are not in the test."
)


@dataclass(frozen=True)
class Judged:
    """A score with what its tests say.

    Args:
        title: of its column.
        score: of the trained network.
        error: its standard error over the items; None without items.
        n: the number of items; 0 without items.
        margins: above each control, by the control's name.
        verdict: on the score.
    """

    title: str
    score: float
    error: float | None
    n: int
    margins: Mapping[str, Margin]
    verdict: Verdict

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that holds the score, at least 0, with 95 % confidence, if the benchmark gives items."""
        if self.error is None:
            return None
        return max(self.score - 1.96 * self.error, 0.0), self.score + 1.96 * self.error


@dataclass(frozen=True)
class Items:
    """The scores of a benchmark on single items and in resamples of them, by metric."""

    single: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]
    n: int
    values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path, name: str, values: Mapping[str, float]) -> "Items":
        """Those of a benchmark of the run in `root`, whose metrics are `values`.

        Raises EarshotError for a damaged file.
        """
        folder = root / PREDICTIONS / name
        return cls(read_item_scores(folder), read_item_scores(folder, DRAWS_FILE), int(values.get(ITEMS, 0)), values)

    def error(self, metric: str) -> float | None:
        """The standard error of a score; None without its items."""
        if metric in self.single:
            return standard_error(self.single[metric])
        return float(self.drawn[metric].std(ddof=1)) if metric in self.drawn else None

    def count(self, metric: str) -> int:
        """The number of items of a score; 0 without items."""
        return len(self.single[metric]) if metric in self.single else self.n if metric in self.drawn else 0

    def margin(self, metric: str, other: str, others: "Items | None" = None) -> Margin | None:
        """The margin of one score above another, which may be of another run on the same items; None without items.

        A score without items of its own, such as chance, counts as the same on all.
        """
        others = others or self
        value = others.values.get(other)
        if value is None or self.count(metric) < 2:
            return None
        if metric in self.single:
            own = self.single[metric]
            return margin(own, others.single.get(other, np.full(len(own), value)))
        drawn = others.drawn.get(other, value)
        return bootstrap_margin((self.values[metric], value), (self.drawn[metric], drawn), self.n)


def judged(display: Display, grid: Grid, items: Items) -> dict[str, Judged]:
    """Every score of the trained network with its verdict, by the key of its column."""
    result = {}
    for key, title in grid.columns.items():
        controls = {row: name for row, name in grid.metrics[key].items() if row != grid.own}
        margins = {row: items.margin(key, name) for row, name in controls.items() if row not in display.references}
        tested = {row: each if display.higher_is_better else each.negated for row, each in margins.items() if each}
        verdict = decide(tested, trained=grid.own == OWN)
        result[key] = Judged(title, grid.rows[grid.own][key], items.error(key), items.count(key), tested, verdict)
    return result


@dataclass(frozen=True)
class Finding:
    """What a benchmark says on whether sound taught anything.

    Args:
        name: of the benchmark.
        title: of the benchmark with its metric.
        leading: the score that represents it, fixed in advance.
        scores: of all its columns, by key.
        controls: the scores of the controls beside the leading score, by row.
    """

    name: str
    title: str
    leading: Judged
    scores: Mapping[str, Judged]
    controls: Mapping[str, float]

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key, the worst first: by the leading score, then by the others."""
        return self.leading.verdict.rank, min(each.verdict.rank for each in self.scores.values())

    @property
    def others(self) -> list[tuple[Verdict, list[str]]]:
        """The verdicts on the other columns with the titles of these columns, the worst first."""
        by_verdict: dict[Verdict, list[str]] = {}
        for each in self.scores.values():
            if each is not self.leading:
                by_verdict.setdefault(each.verdict, []).append(each.title)
        return sorted(by_verdict.items(), key=lambda item: item[0].rank)

    @property
    def others_in_words(self) -> str:
        """The verdicts on the other columns as one sentence; empty if there are none."""
        parts = (
            f"{'likewise' if verdict == self.leading.verdict else verdict.words}: {'; '.join(titles)}"
            for verdict, titles in self.others
        )
        return ". ".join(part[:1].upper() + part[1:] for part in parts)


def finding(name: str, display: Display, grid: Grid, items: Items) -> Finding:
    """The finding of a benchmark that has scores."""
    scores = judged(display, grid, items)
    key = str(leading_column(display, grid))
    controls = {row: score for row, score in grid.beside(key).items() if row != grid.own}
    return Finding(name, display.heading, scores[key], scores, controls)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Findings, the worst first; equal ones keep their order."""
    return sorted(findings, key=lambda each: each.rank)
