"""The start page of several runs: scores in columns with differences, changed parameters, different lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earshot.evaluation.significance import Margin
from earshot.report.columns import ExamplesPage
from earshot.report.curves import history_charts
from earshot.report.figures import against
from earshot.report.overview import in_yaml, run_summary, scores_chart, verdicts
from earshot.report.seeds import seed_figures
from earshot.report.site import Chart, Numbers, Site
from earshot.report.sources import Source
from earshot.results.score_tables import Display, Grid

OTHER_LISTS = "The runs have different {what} for {name}: {lists}. Their scores may differ for this reason alone."
LISTS = {"clips_hash": "lists of clips", "items_hash": "lists of items"}


@dataclass(frozen=True)
class Difference:
    """By how much a run's score is above that of the first run.

    Args:
        value: the difference.
        margin: its paired test over the test items; None if the runs have other items, or none.
    """

    value: float
    margin: Margin | None = None

    @property
    def words(self) -> str:
        """The difference with its 95 % interval, and what the test says."""
        text = f"{self.value:+.3f}"
        if self.margin is None:
            return text.replace("-", "−")
        width = 1.96 * self.margin.standard_error
        verdict = "above" if self.margin.is_above else "below" if self.margin.is_below else "no difference"
        return f"{text} ({self.value - width:+.3f} to {self.value + width:+.3f}), {verdict}".replace("-", "−")


@dataclass(frozen=True)
class ComparisonRow:
    """A score in all runs, and the differences from the first run."""

    title: str
    scores: Sequence[float | None]
    margins: Sequence[Margin | None]
    own: bool

    @property
    def differences(self) -> list[Difference | None]:
        first, *others = self.scores
        return [
            None if first is None or score is None else Difference(score - first, margin)
            for score, margin in zip(others, self.margins, strict=True)
        ]


@dataclass(frozen=True)
class Table:
    """The scores of a benchmark, one column per run; the trained network first, then its controls."""

    title: str
    rows: Sequence[ComparisonRow]
    source: str


def compared(site: Site, sources: Sequence[Source], examples: Mapping[str, ExamplesPage]) -> dict[str, Any]:
    """The values for the template of the comparison."""
    displays = {name: each for source in sources for name, each in source.displays.items()}
    return {
        "runs": [source.name for source in sources],
        "summaries": [run_summary(source.params, source.labels) for source in sources],
        "verdicts": [verdicts(source, examples) for source in sources],
        "absent": [f"{source.name}: {source.absent}" for source in sources if source.absent],
        "warnings": other_lists(sources),
        "changed": changed_parameters(sources),
        "tables": [
            _table(name, display, sources)
            for name, display in displays.items()
            if any(name in source.grids for source in sources)
        ],
        "charts": [scores_chart(site, source, f"scores-{n}") for n, source in enumerate(sources, 1)],
        "history": history_charts(site, sources),
        "clusters": clusters_chart(site, sources),
        "seeds": seed_figures(site, sources),
    }


def other_lists(sources: Sequence[Source]) -> list[str]:
    """A sentence for each benchmark where the runs have different training clips or test items."""
    warnings = []
    for key in sorted({key for source in sources for key in source.run.lists}):
        have = {source.name: source.run.lists[key] for source in sources if key in source.run.lists}
        if len(set(have.values())) > 1:
            name, _, kind = key.partition(".")
            warnings.append(
                OTHER_LISTS.format(what=LISTS[kind], name=name, lists=", ".join(f"{n} {h}" for n, h in have.items()))
            )
    return warnings


def changed_parameters(sources: Sequence[Source]) -> Numbers:
    """The parameters that differ between runs."""
    keys = dict.fromkeys(key for source in sources for key in source.params)
    rows = [
        (key, *values)
        for key in keys
        if len(set(values := [in_yaml(source.params[key]) if key in source.params else "–" for source in sources])) > 1
    ]
    return Numbers("Changed parameters", ("parameter", *(source.name for source in sources)), rows, "params.yaml")


def _table(name: str, display: Display, sources: Sequence[Source]) -> Table:
    """The scores of one benchmark: every column of the trained network, then every control."""
    grids = [source.grids.get(name) for source in sources]
    keys: dict[tuple[str, str], str] = {}
    for each in filter(None, grids):
        many = len(each.columns) > 1
        for row, scores in each.rows.items():
            keys |= {
                (row, key): f"{row}, {each.columns[key]}" if many else row for key in each.columns if key in scores
            }
        keys |= {(row, ""): row for row in each.alike}
    own = {each.own for each in grids if each}
    rows = [
        ComparisonRow(title, [_score(each, *key) for each in grids], _margins(name, key, sources), key[0] in own)
        for key, title in keys.items()
    ]
    return Table(display.heading, rows, f"metrics/{name}.json")


def _margins(name: str, key: tuple[str, str], sources: Sequence[Source]) -> list[Margin | None]:
    """The margin of each further run above the first one, if both have the same test items."""
    first, *others = sources
    row, column = key
    result: list[Margin | None] = []
    for other in others:
        metrics = [
            source.grids[name].metrics.get(column, {}).get(row, "") if name in source.grids else ""
            for source in (other, first)
        ]
        same = other.run.lists.get(f"{name}.items_hash") == first.run.lists.get(f"{name}.items_hash")
        tested = same and all(metrics)
        result.append(other.items(name).margin(metrics[0], metrics[1], first.items(name)) if tested else None)
    return result


def _score(scores_grid: Grid | None, row: str, key: str) -> float | None:
    if scores_grid is None:
        return None
    return scores_grid.rows.get(row, {}).get(key) if key else scores_grid.alike.get(row)


def clusters_chart(site: Site, sources: Sequence[Source]) -> Chart | None:
    """The leading score of each benchmark against the number of clusters; None if all runs have as many."""
    runs = sorted(
        (source for source in sources if source.params.get("clusters")), key=lambda each: each.params["clusters"]
    )
    if len({source.params["clusters"] for source in runs}) < 2:
        return None
    lines: dict[str, tuple[list[float], list[float], list[float]]] = {}
    for source in runs:
        for name, finding in source.findings.items():
            if source.params.get(f"evaluate.{name}.encoder") != "models/pretrain":
                continue  # only these networks learn from clusters
            x, y, errors = lines.setdefault(f"{finding.title}, {finding.leading.title}", ([], [], []))
            x.append(source.params["clusters"])
            y.append(finding.leading.score)
            errors.append(finding.leading.error or 0.0)
    caption = "Scores against the number of clusters; bars: 95 % intervals over the test items"
    made_by = "; ".join(f"Run: {source.title}, clusters={source.params['clusters']}" for source in runs)
    return site.paper_chart("clusters", lambda: against(lines, "clusters"), caption, "A line per benchmark", made_by)
