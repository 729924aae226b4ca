"""Charts of the tables in metrics/: the epochs of both trainings, and the scores of each class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earshot.report.drawing import BLUE, MUTED, VERMILION
from earshot.report.figures import RUN_COLORS, Curve, class_bars, curves
from earshot.report.site import Chart, Numbers, Site
from earshot.report.sources import Source
from earshot.results.score_tables import CHANCE, leading_column

MOST_CLASSES = 40  # bars in one chart
# By stage: the table of its epochs, and the title of its charts.
HISTORIES = {
    "pretrain": ("history", "Predicting the label"),
    "correspond": ("correspond_history", "Predicting whether image and audio match"),
}
# By chart: the columns, their labels, and their colors and line styles in the chart of one run.
DRAWN = {
    "accuracy": {
        "val_accuracy": ("validation", BLUE, "-"),
        "train_accuracy": ("training", MUTED, "--"),
        "wrong_sound_val_accuracy": ("validation, wrong sound", VERMILION, "-."),
    },
    "loss": {"val_loss": ("validation", BLUE, "-"), "train_loss": ("training", MUTED, "--")},
}


def history_charts(site: Site, sources: Sequence[Source]) -> list[Chart]:
    """Accuracy and loss by epoch of both trainings, all runs in one chart."""
    charts = []
    for stage, (file, title) in HISTORIES.items():
        chances = [source.metrics(stage).get(CHANCE) for source in sources]
        levels = {CHANCE: min(known)} if (known := [chance for chance in chances if chance is not None]) else {}
        for what in DRAWN:
            drawn = _history_curves(sources, file, what)
            if drawn:
                charts.append(
                    _history_chart(site, file, f"{title}: {what}", drawn, levels if what == "accuracy" else {})
                )
    return charts


def _history_curves(sources: Sequence[Source], file: str, what: str) -> list[Curve]:
    """The curves of all runs. For one run, each curve has its own color; for several, each run."""
    many, result = len(sources) > 1, []
    for number, source in enumerate(sources):
        table = source.table(file)
        for key, (word, color, style) in DRAWN[what].items():
            points = [(float(row["epoch"]), float(row[key])) for row in table if row.get(key)]
            if points:
                x, y = zip(*points, strict=True)
                name = f"{source.name}, {word}" if many else word
                result.append(Curve(name, x, y, RUN_COLORS[number % len(RUN_COLORS)] if many else color, style))
    return result


def _history_chart(site: Site, file: str, title: str, drawn: list[Curve], levels: Mapping[str, float]) -> Chart:
    what = title.rpartition(" ")[2]
    by_epoch = [dict(zip(curve.x, curve.y, strict=True)) for curve in drawn]
    rows = [(int(epoch), *(of.get(epoch) for of in by_epoch)) for epoch in sorted({x for of in by_epoch for x in of})]
    heads = ("epoch", *(curve.name for curve in drawn))
    last = "; ".join(f"{curve.name} {curve.y[-1]:.3f}" for curve in drawn)
    numbers = Numbers(f"{title} by epoch", heads, rows, f"metrics/{file}.csv")
    draw = lambda: curves(drawn, "epoch", what, levels=levels)  # noqa: E731
    return site.chart(f"{file}-{what}", draw, title, f"Lines by epoch. Last values: {last}", numbers)


@dataclass(frozen=True)
class ClassTable:
    """The scores of each class in a benchmark's leading column, for a chart.

    Args:
        title: with the number of classes if only some are displayed.
        metric: the scores in words.
        names: of the displayed classes, the best first.
        scores: those of the displayed classes, of the trained network first, then of its controls.
        rows: of all classes: the name, then a score per network.
    """

    title: str
    metric: str
    names: Sequence[str]
    scores: Mapping[str, Sequence[float]]
    rows: Sequence[tuple[Any, ...]]


def class_table(source: Source, name: str) -> ClassTable | None:
    """The scores of each class of a benchmark; None if it has none."""
    grid, display, table = source.grids[name], source.displays[name], source.table(f"{name}_classes")
    key, metric = leading_column(display, grid), display.class_score
    own = "_".join([metric, *str(key).split("_")[1:]])
    if not metric or not table or own not in table[0]:
        return None
    columns = {grid.own: own} | {row: f"{prefix}{own}" for row, prefix in display.controls.items()}
    columns |= {row: f"{prefix}{metric}" for row, prefix in display.alike.items()} | {CHANCE: CHANCE}
    columns = {row: column for row, column in columns.items() if column in table[0]}
    rows: list[tuple[Any, ...]] = [
        (row["class"], *(_number(row[column]) for column in columns.values())) for row in table
    ]
    rows.sort(key=lambda row: (math.isnan(row[1]), -row[1], row[0]))
    displayed = rows if len(rows) <= MOST_CLASSES else rows[: MOST_CLASSES // 2] + rows[-MOST_CLASSES // 2 :]
    rest = f" ({MOST_CLASSES // 2} best and worst of {len(rows)})" if len(displayed) < len(rows) else ""
    names, *scores = zip(*displayed, strict=True)
    layer = f", {grid.columns[key]}" if key and len(grid.columns) > 1 else ""
    what = "average precision" if metric == "ap" else "IoU" if metric == "iou" else "accuracy"
    title = f"{display.title} by class{layer}{rest}"
    return ClassTable(title, what, names, dict(zip(columns, scores, strict=True)), rows)


def class_charts(site: Site, source: Source) -> list[Chart]:
    """The scores of each class for the benchmarks that have them, in the benchmark's leading column."""
    tables = {name: class_table(source, name) for name in source.grids}
    counts = {name: source.findings[name].count for name in tables}
    return [_class_chart(site, name, table, counts[name]) for name, table in tables.items() if table]


def _class_chart(site: Site, name: str, table: ClassTable, items: str) -> Chart:
    best, worst = table.rows[0], table.rows[-1]
    return site.chart(
        f"classes-{name}",
        lambda: class_bars(table.names, table.scores, table.metric),
        f"{table.title}{f' ({items} in all; not tested)' if items else ''}",
        f"Bars: best {best[0]} {best[1]:.3f}, worst {worst[0]} {worst[1]:.3f}",
        Numbers(table.title, ("class", *table.scores), table.rows, f"metrics/{name}_classes.csv"),
    )


def _number(text: str) -> float:
    """A score of a table; NaN for a class that the benchmark could not score."""
    return float(text) if text else math.nan
