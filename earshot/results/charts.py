"""The style of all charts, and the charts of tables: scores against a parameter, and the scores of each class.

Colors are those of Okabe and Ito, which suit color-blind readers; published scores are black and hollow.
"""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from earshot.evaluation.benchmark import rendered_name
from earshot.results.network_names import BACKBONES
from earshot.results.paper_tables import RunGroup, TableSection

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GRID = "#dddddd"
# By control: its name, and the color and line style that it has in every chart.
CONTROLS = {"random_": ("random weights", COLORS[2], "--"), "wrong_sound_": ("wrong sound", COLORS[1], "-.")}
CURVE_MARKS = ("o", "^", "v", "D")  # of the networks of a sweep
# By control: its offset from the middle of the bar, and its mark.
MARKS: dict[str, tuple[float, dict[str, Any]]] = {
    "random_": (-0.17, {"color": COLORS[2], "marker": "s", "markersize": 5, "markeredgecolor": "white"}),
    "wrong_sound_": (0.17, {"color": COLORS[1], "marker": "X", "markersize": 6, "markeredgecolor": "white"}),
}
PUBLISHED: dict[str, Any] = {
    "color": "black",
    "marker": "D",
    "markerfacecolor": "none",
    "linestyle": "none",
    "markersize": 6,
}


def draw(section: TableSection, file: Path) -> bool:
    """Draw the section's chart, if it has one: curves of a sweep or bars of classes; return whether it did."""
    if section.table.sweep:
        draw_sweep(section, file)
    elif section.table.classes:
        draw_classes(section, file)
    return file.exists()


def draw_sweep(section: TableSection, file: Path) -> None:
    """Curves of the scores against the swept parameter, a panel a column, with controls and published points.

    Draws nothing for fewer than two values.
    """
    curves = _curves(section)
    if len({x for points in curves.values() for x, _ in points}) < 2:
        return
    columns = section.table.columns
    figure = Figure(figsize=(1.6 + 4.6 * len(columns), 4.2), layout="constrained")
    for axes, (title, key) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True):
        for number, (name, points) in enumerate(curves.items()):
            _curve(axes, name, points, key, number)
        _published_points(axes, section, [*columns].index(title))
        _label_sweep(axes, section, rendered_name(f"{title}, mAP, %", section.rendered))
    legend(figure, columns=4 if figure.get_figwidth() > 7 else 2)
    _save(figure, file)


def _curves(section: TableSection) -> dict[str, list[tuple[Any, RunGroup]]]:
    """The groups of each curve by its name, in the order of the swept parameter."""
    across = section.table.sweep[0]
    curves: dict[str, list[tuple[Any, RunGroup]]] = defaultdict(list)
    for group in sorted(section.groups, key=lambda group: group.idea[across]):
        backbone = str(group.runs[0].params.get("pretrain.backbone"))
        curves[BACKBONES.get(backbone, backbone)].append((group.idea[across], group))
    return curves


def _curve(axes: Axes, name: str, points: list[tuple[Any, RunGroup]], key: str, number: int) -> None:
    """A curve with error bars, and those of its controls."""
    place, _, metric = key.rpartition(".")
    for prefix, (control, color, style) in {"": ("sound", COLORS[0], "-"), **CONTROLS}.items():
        values = ((x, group.score(f"{place}.{prefix}{metric}")) for x, group in points)
        scores = [(x, score) for x, score in values if score]
        if not scores:
            continue
        x, means = [x for x, _ in scores], [score.mean for _, score in scores]
        errors = [score.std or 0 for _, score in scores]
        look: dict[str, Any] = {"linewidth": 1.3 if prefix else 2, "marker": CURVE_MARKS[number % len(CURVE_MARKS)]}
        axes.errorbar(x, means, errors, color=color, linestyle=style, capsize=3, label=f"{name}, {control}", **look)


def _published_points(axes: Axes, section: TableSection, column: int) -> None:
    across = section.table.sweep[0]
    points = [
        ((row.run or {})[across], row.scores[column]) for row in section.table.rows if row.scores[column] is not None
    ]
    label = "published" + (" (real photographs)" if section.rendered else "")
    axes.plot([x for x, _ in points], np.array([y for _, y in points], float), label=label, **PUBLISHED)


def _label_sweep(axes: Axes, section: TableSection, title: str) -> None:
    across = section.table.sweep[0]
    ticks = sorted(
        {(row.run or {})[across] for row in section.table.rows} | {group.idea[across] for group in section.groups}
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set(xlabel=across, ylabel=title)
    plain(axes)


def draw_classes(section: TableSection, file: Path) -> None:
    """Bars for each class, one panel per method, with marks for controls and published scores.

    If runs have different numbers of clusters, only those with the most common number are drawn.
    """
    columns = section.columns
    clusters = [group.idea["clusters"] for group in section.groups if "clusters" in group.idea]
    common = statistics.multimode(clusters)[:1]
    groups = [group for group in section.groups if group.idea.get("clusters") in (None, *common)]
    figure = Figure(figsize=(2.2 + 0.42 * max(len(columns), 12), 0.9 + 1.25 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        _bars(axes, group, columns)
        if group.row and columns == section.table.columns:
            axes.plot(range(len(columns)), np.array(group.row.scores, float), label="published", **PUBLISHED)
        axes.set_title(_panel_title(group), fontsize=9, loc="left")
        axes.set_ylim(0, 100)
        plain(axes)
    panels[-1].set_xticks(range(len(columns)), list(columns))
    figure.supylabel("average precision, %", fontsize=9)
    legend(figure, columns=4 if figure.get_figwidth() > 7 else 2)
    _save(figure, file)


def _bars(axes: Axes, group: RunGroup, columns: dict[str, str]) -> None:
    scores = [group.score(key) for key in columns.values()]
    means = [score.mean if score else 0 for score in scores]
    errors = [(score and score.std) or 0 for score in scores]
    bars: dict[str, Any] = {"color": COLORS[0], "width": 0.66, "error_kw": {"elinewidth": 1.2, "capsize": 2}}
    axes.bar(range(len(columns)), means, yerr=errors, label="ours", **bars)
    for prefix, (name, *_) in CONTROLS.items():
        keys = [f"{key.rpartition('.')[0]}.{prefix}{key.rpartition('.')[2]}" for key in columns.values()]
        aside, look = MARKS[prefix]
        points = [(place + aside, score.mean) for place, key in enumerate(keys) if (score := group.score(key))]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, linestyle="none", **look)


def _panel_title(group: RunGroup) -> str:
    seeds = len({run.seeds for run in group.runs})
    return f"{group.name}  ({seeds} {'seed' if seeds == 1 else 'seeds'})"


def plain(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Two spines, and grid lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def legend(figure: Figure, columns: int, place: str = "outside upper center") -> None:
    """One legend above all panels, each name once."""
    named: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    named = dict(sorted(named.items(), key=lambda item: item[0] != "ours"))
    how: dict[str, Any] = {"loc": place, "ncols": min(len(named), columns), "frameon": False, "fontsize": 9}
    figure.legend([*named.values()], [*named], **how)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "earshot"}):
        figure.savefig(file, dpi=150, metadata={"Software": None})
        figure.savefig(file.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
