"""Whether sound taught anything: the verdict on each score of a run, from tests over the items of its benchmark.

The stage evaluate writes the scores of single items, or those in resamples of the items, beside its predictions.
`earshot.evaluation.significance.decide` turns the tests into a verdict.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from earshot.evaluation.benchmark import DRAWS_FILE, Display, read_item_scores
from earshot.evaluation.significance import (
    LEARNED,
    LEVEL,
    NOT_ABOVE,
    TOO_FEW,
    UNTESTED,
    WORSE,
    Margin,
    Verdict,
    bootstrap_margin,
    decide,
    margin,
    standard_error,
)
from earshot.results.network_names import encoder_in_words, is_computed
from earshot.results.score_tables import OWN, Grid, leading_column

PREDICTIONS = "data/predictions"
ITEMS = "items"  # the metric with the number of test items
GAP = (LEVEL / 2, 1 - LEVEL / 2)  # the quantiles of a 95 % interval
# How a score stands to a control, the worst first.
WORSE_THAN, NO_BETTER, UNSURE, ABOVE_IT = "worse than", "no better than", "not significantly above", "above"
IN_A_TABLE = {WORSE_THAN: "worse", NO_BETTER: "no better", UNSURE: "not significantly above", ABOVE_IT: "above"}
LEGEND = (
    "Learned: above every control, the wrong sound among them. Above or worse: by Student's paired t-test over the n "
    "items (mAP and NMI: by the bootstrap over them), two-sided at .05, not corrected for the number of scores. Not "
    "significantly above: higher, but it may be chance. No better: equal or lower, but it may be chance. Each network "
    "was trained once; how another training would differ is not tested."
)
# What the items of a benchmark are.
KINDS_OF_ITEMS = {
    "correspondence": "pairs of image and sound",
    "dcase": "test recordings",
    "esc50": "test recordings",
    "nmi": "test clips",
    "retrieval": "queries",
    "units": "units of one network",
}
OTHER_ITEMS = "test images"
ROUNDING = 1e-9  # of a deviation that is 0
# What a benchmark says, the worst first.
NOTHING, PARTLY, UNKNOWN, TAUGHT, COMPUTED = "nothing", "partly", "unknown", "taught", "computed"
ANSWERS = (NOTHING, PARTLY, UNKNOWN, TAUGHT, COMPUTED)


@dataclass(frozen=True)
class Judged:
    """A score with what its tests say.

    Args:
        title: of its column.
        score: of the trained network.
        error: its standard error over the items; None without items.
        n: the number of items; 0 without items.
        margins: above each control, by the control's name.
        verdict: on the score; its words name the controls that decide.
        controls: the scores of the controls, by name.
        gaps: the 95 % interval of each margin, by the control's name.
    """

    title: str
    score: float
    error: float | None
    n: int
    margins: Mapping[str, Margin]
    verdict: Verdict
    controls: Mapping[str, float] = field(default_factory=dict)
    gaps: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The title as one item of a list."""
        return self.title.replace(",", "")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that holds the score with 95 % confidence, if the benchmark gives items."""
        return None if self.error is None else _interval(self.score, 1.96 * self.error, self.n)

    @property
    def verdict_in_full(self) -> str:
        """The verdict with how the score stands to every control, the worst first."""
        if self.verdict.rank in (WORSE, NOT_ABOVE):
            return "; ".join(f"{words} {', '.join(names)}" for words, names in _by_comparison(self.margins).items())
        return self.verdict.words

    def compared_with(self, control: str) -> str:
        """How the score stands to a control, in words for a table; empty if it is not tested."""
        if control not in self.margins or self.verdict.rank == TOO_FEW:
            return ""
        return IN_A_TABLE[next(iter(_by_comparison({control: self.margins[control]})))]


def _interval(score: float, half: float, n: int, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """The 95 % interval of a score between `low` and `high`.

    Where all items agree, `half` is 0 but for rounding. The interval is then Wilson's, of a share of 0 or 1 (1927).
    """
    if half < ROUNDING and n:
        half = 1.96**2 / (n + 1.96**2)
    return max(score - half, min(low, score)), min(score + half, max(high, score))


def _by_comparison(margins: Mapping[str, Margin]) -> dict[str, list[str]]:
    """The controls by how a score stands to them, the worst first."""
    result: dict[str, list[str]] = {words: [] for words in (WORSE_THAN, NO_BETTER, UNSURE, ABOVE_IT)}
    for name, each in margins.items():
        higher = UNSURE if each.difference > 0 else NO_BETTER
        result[WORSE_THAN if each.is_below else ABOVE_IT if each.is_above else higher].append(name)
    return {words: names for words, names in result.items() if names}


def _verdict(margins: Mapping[str, Margin], trained: bool, n: int) -> Verdict:
    """The verdict on a score of `n` items, in words that name the controls to which it stands worst."""
    verdict = decide(margins, trained)
    if verdict.rank == UNTESTED:
        return Verdict(UNTESTED, f"not tested: {'no control' if n else 'no scores of single items'}")
    if verdict.rank not in (WORSE, NOT_ABOVE):
        return verdict
    words, names = next(iter(_by_comparison(margins).items()))
    return Verdict(verdict.rank, f"{words} {', '.join(names)}")


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

    def plus_minus(self, metric: str) -> str:
        """The standard error of a score as `± 0.013`, or its 95 % interval if all items agree; empty without items."""
        error = self.error(metric)
        if error is None:
            return ""
        if error > ROUNDING:
            return f"± {error:.3f}"
        return "{:.2f} to {:.2f}".format(*_interval(self.values[metric], error, self.count(metric)))

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

    def gap(self, metric: str, other: str) -> tuple[float, float] | None:
        """The 95 % interval of the margin of one score above another, which excludes 0 if the test does."""
        tested = self.margin(metric, other)
        if tested is None:
            return None
        if metric in self.drawn:
            low, high = np.quantile(self.drawn[metric] - self.drawn.get(other, self.values[other]), GAP)
            return float(low), float(high)
        half = float(stdtrit(tested.n - 1, GAP[1])) * tested.standard_error
        if half > ROUNDING:
            return tested.difference - half, tested.difference + half
        return _interval(tested.difference, half, tested.n, -self.values[other], 1 - self.values[other])


def judged(display: Display, grid: Grid, items: Items) -> dict[str, Judged]:
    """Every score of the trained network with its verdict, by the key of its column."""
    result = {}
    sign = 1 if display.higher_is_better else -1
    for key, title in grid.columns.items():
        names = {row: name for row, name in grid.metrics[key].items() if row != grid.own}
        margins = {row: items.margin(key, name) for row, name in names.items() if row not in display.references}
        tested = {row: each if sign > 0 else each.negated for row, each in margins.items() if each}
        intervals = {row: items.gap(key, names[row]) for row in tested}
        gaps = {row: (min(sign * a, sign * b), max(sign * a, sign * b)) for row, (a, b) in _known(intervals).items()}
        controls = {row: score for row, score in grid.beside(key).items() if row != grid.own}
        score, error, n = grid.rows[grid.own][key], items.error(key), items.count(key)
        verdict = _verdict(tested, grid.own == OWN, n)
        result[key] = Judged(title, score, error, n, tested, verdict, controls, gaps)
    return result


@dataclass(frozen=True)
class Finding:
    """What a benchmark says on whether sound taught anything.

    Args:
        name: of the benchmark.
        title: of the benchmark with its metric.
        leading: the score that represents it, fixed in advance.
        scores: of all its columns, by key.
        network: what it measures, and the stage that made it, in words.
        computed: whether nothing was trained for what it measures.
    """

    name: str
    title: str
    leading: Judged
    scores: Mapping[str, Judged]
    network: str = ""
    computed: bool = False

    @property
    def answer(self) -> str:
        """What the benchmark says, one of `ANSWERS`.

        Sound taught something if the leading score is learned, partly if another one is. To be above wrong sound alone
        is not enough: training on wrong sound can make a network worse than random weights.
        """
        rank = self.leading.verdict.rank
        if self.computed:
            return COMPUTED
        if rank == LEARNED:
            return TAUGHT
        if self.learned:
            return PARTLY
        return UNKNOWN if rank > NOT_ABOVE else NOTHING

    @property
    def rank(self) -> tuple[int, int, int]:
        """The sort key, the worst first: by the answer, by the leading score, then by the others."""
        others = min(each.verdict.rank for each in self.scores.values())
        return ANSWERS.index(self.answer), self.leading.verdict.rank, others

    @property
    def count(self) -> str:
        """The number of items of the leading score with what they are; empty without items."""
        return f"n = {self.leading.n:,} {self.items}" if self.leading.n else ""

    @property
    def items(self) -> str:
        """What its items are."""
        return KINDS_OF_ITEMS.get(self.name, OTHER_ITEMS)

    @property
    def others(self) -> list[tuple[list[str], str]]:
        """The names of the other columns with how they stand to the controls, the worst first; alike ones together."""
        alike: dict[str, list[str]] = {}
        for each in sorted(self.scores.values(), key=lambda each: each.verdict.rank):
            if each is not self.leading:
                alike.setdefault(each.verdict_in_full, []).append(each.name)
        return [(names, words) for words, names in alike.items()]

    @property
    def learned(self) -> list[str]:
        """The names of the scores that are learned."""
        return [each.name for each in self.scores.values() if each.verdict.rank == LEARNED]


def finding(name: str, display: Display, grid: Grid, items: Items, params: Mapping[str, Any]) -> Finding:
    """The finding of a benchmark that has scores, in a run with these parameters, by dotted name."""
    scores = judged(display, grid, items)
    leading = scores[str(leading_column(display, grid))]
    network = encoder_in_words(params, f"evaluate.{name}")
    return Finding(name, display.heading, leading, scores, network, is_computed(params, name))


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Findings, the worst first, those of what is computed last; equal ones keep their order."""
    return sorted(findings, key=lambda each: each.rank)


def answers(findings: Iterable[Finding]) -> list[str]:
    """What sound taught, in a sentence for each answer, the worst first."""
    titles: dict[str, list[str]] = {answer: [] for answer in ANSWERS}
    for each in ranked(findings):
        titles[each.answer].append(f"{each.title} ({', '.join(each.learned)})" if each.answer == PARTLY else each.title)
    total = sum(len(of) for answer, of in titles.items() if answer != COMPUTED)
    words = {
        NOTHING: "Not shown that sound taught anything: no score is above every control",
        PARTLY: "Shown for some scores only",
        UNKNOWN: "Not tested",
        TAUGHT: "Sound taught the network something",
    }
    sentences = [f"{words[key]}, {len(titles[key])} of {total} benchmarks" for key in words if titles[key]]
    sentences += ["Computed, not learned"] * bool(titles[COMPUTED])
    lists = [of for of in titles.values() if of]
    return [f"{sentence}: {'; '.join(of)}." for sentence, of in zip(sentences, lists, strict=True)]


def _known(intervals: Mapping[str, tuple[float, float] | None]) -> dict[str, tuple[float, float]]:
    return {name: each for name, each in intervals.items() if each}
