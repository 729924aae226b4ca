"""Figures and tables for a paper: at column width as PDF, SVG and PNG, each with a caption and what made it.

Error bars are 95 % intervals over the test items of one run. `earshot compare` draws those over seeds.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from earshot.core.csv_files import read_csv
from earshot.report.curves import class_table
from earshot.report.drawing import COLUMN, MUTED, label
from earshot.report.figures import MARKS, OTHER_MARK, class_bars, score_dots
from earshot.report.overview import score_rows
from earshot.report.site import Chart, Site
from earshot.report.sources import Source
from earshot.results.charts import plain
from earshot.results.score_tables import Display, Grid
from earshot.results.verdicts import PREDICTIONS
from earshot.results.written_tables import FORMATS

FILE = "figures.html"
MOST_NAMED = 20  # classes of a confusion matrix that have room for their names
USED = ("seed", "clusters", "descriptor", "label.model", "corpus.clips", "corpus.manifest")
INTERVALS = "Error bars: 95 % intervals over the test items of one training."


def paper_figures(site: Site, source: Source) -> list[Chart]:
    """The figures of a run."""
    charts: list[Chart | None] = [_scores(site, source)] if source.grids else []
    for name, grid in source.grids.items():
        display = source.displays[name]
        charts += [_layers(site, source, name, display, grid), _classes(site, source, name)]
        charts.append(_confusion(site, source, name, display))
    return [chart for chart in charts if chart]


def paper_tables(site: Site, source: Source) -> list[tuple[str, dict[str, str]]]:
    """The tables of a run's scores: title, and the file of each format."""
    tables = []
    for name, grid in source.grids.items():
        judged, items = source.findings[name].scores, source.items(name)
        columns = ["", *grid.columns.values()]
        rows = [
            [row, *(_cell(scores.get(key), items.plus_minus(grid.metrics[key].get(row, ""))) for key in grid.columns)]
            for row, scores in grid.rows.items()
        ]
        rows += [[row, *(f"{score:.3f}" for _ in grid.columns)] for row, score in grid.alike.items()]
        rows.append(["verdict", *(judged[key].verdict_in_full for key in grid.columns)])
        title = source.displays[name].heading
        notes = f"{title}. ± is the standard error over the test items. {made_by(source, name)}"
        files = {kind: site.write_text(f"tables/{name}.{kind}", write(columns, rows, notes)) for kind, write in FORMATS}
        tables.append((title, files))
    return tables


def made_by(source: Source, benchmark: str = "") -> str:
    """What made a figure: command, commit, parameters and hashes."""
    parameters = used_parameters(source, benchmark)
    values = source.metrics(benchmark) if benchmark else source.metrics("extract")
    hashes = ", ".join(f"{key} {values[key]}" for key in ("clips_hash", "items_hash") if values.get(key))
    command = f"python -m stages.evaluate --benchmark {benchmark}" if benchmark else "dvc repro"
    return (
        f"Run: {source.title}. Command: {command}. Parameters: {parameters}. {hashes and f'Lists: {hashes}.'}".strip()
    )


def used_parameters(source: Source, benchmark: str = "", without: Collection[str] = ()) -> str:
    """The parameters that a figure names."""
    named = [key for key in source.params if key in USED or (benchmark and key.startswith(f"evaluate.{benchmark}."))]
    return ", ".join(f"{key}={source.params[key]}" for key in named if key not in without)


def _cell(score: float | None, plus_minus: str) -> str:
    return "–" if score is None else " ".join(filter(None, [f"{score:.3f}", plus_minus]))


def _scores(site: Site, source: Source) -> Chart:
    rows, bars = score_rows(source)
    caption = f"Scores of the trained network and its controls. {INTERVALS}"
    draw = lambda: score_dots(rows, bars, COLUMN)  # noqa: E731
    return _chart(site, source, "paper-scores", draw, caption, "", "One row of marks per benchmark")


def _layers(site: Site, source: Source, name: str, display: Display, grid: Grid) -> Chart | None:
    """The scores of each layer, for a benchmark whose columns are layers."""
    layers = layer_keys(grid)
    if len(layers) < 2:
        return None
    items = source.items(name)
    lines = {
        row: [(scores[key], 1.96 * (items.error(grid.metrics[key][row]) or 0.0)) for key in layers]
        for row, scores in grid.rows.items()
        if all(key in scores for key in layers)
    }
    titles = [grid.columns[key] for key in layers]
    caption = f"{display.heading}, by layer. {INTERVALS}"
    draw = lambda: layer_lines(titles, lines, grid.alike, display.metric or "score")  # noqa: E731
    return _chart(site, source, f"paper-layers-{name}", draw, caption, name, "A line per network")


def layer_keys(grid: Grid) -> list[str]:
    """The columns of a grid that are layers of a network."""
    return [key for key, title in grid.columns.items() if title in ("max5", "pool5", "conv5", "fc6", "fc7")]


def layer_lines(
    layers: Sequence[str], lines: dict[str, list[tuple[float, float]]], levels: dict[str, float], title: str
) -> Figure:
    """Scores by layer with error bars, a line per network, and horizontal levels such as chance.

    Args:
        layers: their names.
        lines: by network, the score of each layer and half the length of its error bar.
        levels: by name.
        title: of the y axis.
    """
    figure = Figure(figsize=(COLUMN, 0.72 * COLUMN), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        color, marker, size = MARKS.get(name, OTHER_MARK)
        places = np.arange(len(layers)) + 0.04 * (number - (len(lines) - 1) / 2)
        means, bars = np.array(points).T
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 0.6 * size, "linewidth": 1.3}
        axes.errorbar(places, means, bars, capsize=2, label=name, **look)
    for name, level in levels.items():
        axes.axhline(level, color=MARKS.get(name, (MUTED,))[0], linewidth=0.9, linestyle=(0, (1, 2)), label=name)
    axes.set_xticks(range(len(layers)), list(layers))
    axes.set_ylim(bottom=0)
    axes.set_ylabel(title)
    plain(axes)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


def _classes(site: Site, source: Source, name: str) -> Chart | None:
    table = class_table(source, name)
    if table is None:
        return None
    draw = lambda: class_bars(table.names, table.scores, table.metric, width=COLUMN)  # noqa: E731
    return _chart(site, source, f"paper-classes-{name}", draw, f"{table.title}.", name, "A bar per class")


def _confusion(site: Site, source: Source, name: str, display: Display) -> Chart | None:
    """Which classes are taken for which, for a benchmark that predicts one class."""
    file = source.root / PREDICTIONS / name / "confusion.csv"
    if not file.exists():
        return None
    with file.open(newline="", encoding="utf-8") as lines:
        pairs = [(row["actual"], row["predicted"]) for row in read_csv(lines)]
    if not pairs:
        return None
    names = sorted({each for pair in pairs for each in pair})
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, tuple(np.searchsorted(names, part) for part in zip(*pairs, strict=True)), 1)
    caption = f"{display.title}: share of the {len(pairs):,} test items of each class (rows) by predicted class."
    draw = lambda: confusion_matrix(names, counts)  # noqa: E731
    return _chart(site, source, f"paper-confusion-{name}", draw, caption, name, "A square per pair of classes")


def confusion_matrix(names: Sequence[str], counts: np.ndarray) -> Figure:
    """The share of each actual class (rows) that is predicted as each class, with a color bar.

    `counts` has the items of each actual and predicted class, (classes, classes).
    """
    figure = Figure(figsize=(COLUMN, 0.86 * COLUMN), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ticks = range(len(names)) if len(names) <= MOST_NAMED else []
    texts = [label(names[tick]) for tick in ticks]
    axes.set_xticks(ticks, texts, rotation=90)
    axes.set_yticks(ticks, texts)
    axes.set(xlabel="predicted", ylabel="actual")
    figure.colorbar(image, shrink=0.8).set_label("share of the actual class")
    return figure


def _chart(
    site: Site, source: Source, name: str, draw: Callable[[], Figure], caption: str, benchmark: str, alt: str
) -> Chart:
    return site.paper_chart(name, draw, caption, alt, made_by(source, benchmark))
