"""The start page of several runs: their scores in columns with differences, what differs in parameters and lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from earshot.report.curves import history_charts
from earshot.report.overview import findings, in_yaml, question, scores_chart
from earshot.report.site import Numbers, Site
from earshot.report.sources import Source
from earshot.results.score_tables import Display, Grid, in_order

OTHER_LISTS = "The runs have different {what} for {name}, so their scores may differ by what is missing: {lists}."
LISTS = {"clips_hash": "lists of clips", "items_hash": "lists of items"}


@dataclass(frozen=True)
class Row:
    """A score in all runs, and how far each is from the first."""

    title: str
    scores: Sequence[float | None]
    own: bool

    @property
    def differences(self) -> list[float | None]:
        first = self.scores[0]
        return [None if first is None or score is None else score - first for score in self.scores[1:]]


@dataclass(frozen=True)
class Table:
    """A benchmark's scores, a column a run; what was trained first, then its controls."""

    title: str
    rows: Sequence[Row]
    source: str


def compared(site: Site, sources: Sequence[Source]) -> dict[str, Any]:
    """All that the template of the comparison shows."""
    displays = {name: each for source in sources for name, each in source.displays.items()}
    displays = in_order(displays, [key for source in sources for key in source.params])
    return {
        "runs": [source.name for source in sources],
        "questions": [question(source.params, source.labels) for source in sources],
        "findings": [findings(source) for source in sources],
        "absent": [f"{source.name}: {source.absent}" for source in sources if source.absent],
        "warnings": other_lists(sources),
        "changed": changed_parameters(sources),
        "tables": [
            _table(name, display, [source.grids.get(name) for source in sources])
            for name, display in displays.items()
            if any(name in source.grids for source in sources)
        ],
        "charts": [scores_chart(site, source, f"scores-{n}") for n, source in enumerate(sources, 1)],
        "history": history_charts(site, sources),
    }


def other_lists(sources: Sequence[Source]) -> list[str]:
    """In words, where the runs trained on other clips or were asked other items."""
    told = []
    for key in sorted({key for source in sources for key in source.run.lists}):
        have = {source.name: source.run.lists[key] for source in sources if key in source.run.lists}
        if len(set(have.values())) > 1:
            name, _, kind = key.partition(".")
            told.append(
                OTHER_LISTS.format(what=LISTS[kind], name=name, lists=", ".join(f"{n} {h}" for n, h in have.items()))
            )
    return told


def changed_parameters(sources: Sequence[Source]) -> Numbers:
    """The parameters that are not the same in all runs."""
    keys = dict.fromkeys(key for source in sources for key in source.params)
    rows = [
        (key, *values)
        for key in keys
        if len(set(values := [in_yaml(source.params[key]) if key in source.params else "–" for source in sources])) > 1
    ]
    return Numbers("Changed parameters", ("parameter", *(source.name for source in sources)), rows, "params.yaml")


def _table(name: str, display: Display, found: Sequence[Grid | None]) -> Table:
    """The scores of one benchmark: every column of what was trained, then every control."""
    keys: dict[tuple[str, str], str] = {}
    for each in filter(None, found):
        many = len(each.columns) > 1
        for row, scores in each.rows.items():
            keys |= {
                (row, key): f"{row}, {each.columns[key]}" if many else row for key in each.columns if key in scores
            }
        keys |= {(row, ""): row for row in each.alike}
    own = {each.own for each in found if each}
    rows = [Row(title, [_score(each, *key) for each in found], key[0] in own) for key, title in keys.items()]
    return Table(display.heading, rows, f"metrics/{name}.json")


def _score(found: Grid | None, row: str, key: str) -> float | None:
    if found is None:
        return None
    return found.rows.get(row, {}).get(key) if key else found.alike.get(row)
