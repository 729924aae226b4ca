"""The charts of the report: scores with controls, curves, bars of classes, centroids, scatter plots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from earshot.report.drawing import (
    BLUE,
    COLUMN,
    GREEN,
    INK,
    MUTED,
    NETWORKS,
    OTHERS,
    PURPLE,
    VERMILION,
    label,
    with_look,
)
from earshot.results.charts import legend, plain

WIDTH = 5.6  # inches; fits a phone screen
# Color, marker and size of a score and its controls.
MARKS = {
    "sound": (BLUE, "o", 9),
    "descriptor": (BLUE, "o", 9),
    "wrong sound": (VERMILION, "X", 7),
    "random weights": (GREEN, "s", 6),
    "color histogram": (PURPLE, "D", 6),
    "chance": (MUTED, "|", 11),
}
OTHER_CONTROLS = "other controls"
OTHER_MARK = (PURPLE, "^", 6)
LINES = ("-", "--", "-.", ":")
RUN_COLORS = (BLUE, "#b07d00", PURPLE, "#8a5a44")  # of runs side by side; none is that of a control
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"  # both suit color-blind readers
MOST_NUMBERS = 40  # bars that have room for their numbers
POINTS_AS_SHAPES = 1500  # more points are rasterized within the SVG
Bar = float | tuple[float, float]  # an error bar: its length to each side, or those below and above


@dataclass(frozen=True)
class Curve:
    """A line of a chart: its name, its points, its color and its line style."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = BLUE
    style: str = "-"


def score_dots(
    rows: Mapping[str, Mapping[str, float]], bars: Mapping[str, Mapping[str, Bar]], width: float = WIDTH
) -> Figure:
    """One row of marks per benchmark: its score first, and those of its controls.

    `bars` has the lengths of the error bars to each side, or those below and above, by row and name.
    """
    scale = width / WIDTH
    figure = Figure(figsize=(width, 0.9 + 0.36 * (0.5 + scale / 2) * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (row, scores) in enumerate(rows.items()):
        for number, (name, score) in enumerate(scores.items()):
            if name in bars[row]:
                color = MARKS.get(name, OTHER_MARK)[0] if number else BLUE
                line_width, cap = (1.2, 2) if number else (2.2, 4)
                xerr = np.broadcast_to(bars[row][name], 2).reshape(2, 1)
                axes.errorbar(score, place, xerr=xerr, color=color, elinewidth=line_width, capsize=cap, zorder=1.5)
        axes.plot([min(scores.values()), max(scores.values())], [place, place], color=MUTED, linewidth=0.8, zorder=1)
        for name, score in reversed([*scores.items()]):
            color, marker, size = MARKS.get(name, OTHER_MARK)
            look: dict[str, Any] = {
                "color": color,
                "marker": marker,
                "markersize": size * (0.4 + 0.6 * scale),
                "markeredgewidth": 1.6 if marker == "|" else 0,
            }
            look["clip_on"] = False
            axes.plot(score, place, linestyle="none", label=name if name in MARKS else OTHER_CONTROLS, **look)
    axes.set_yticks(range(len(rows)), [*rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    plain(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _sorted_legend(figure, list(MARKS))
    return figure


def curves(lines: Sequence[Curve], across: str, up: str, *, levels: Mapping[str, float] | None = None) -> Figure:
    """Lines, and horizontal levels such as chance."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for line in lines:
        look: dict[str, Any] = {"color": line.color, "linestyle": line.style}
        marker = "o" if len(line.x) < 2 else None
        axes.plot(line.x, line.y, label=label(line.name), linewidth=1.8, marker=marker, **look)
    for name, level in (levels or {}).items():
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=INK, fontsize=8
        )
    axes.set(xlabel=across, ylabel=up)
    axes.set_ylim(bottom=0) if up != "loss" else None
    plain(axes)
    legend(figure, 2, "outside upper left")
    return figure


def against(lines: Mapping[str, tuple[list[float], list[float], list[float]]], across: str) -> Figure:
    """Scores with their intervals against a parameter of the runs, at column width.

    `lines` has the values of the parameter, the scores and their standard errors by the name of the line.
    """
    figure = Figure(figsize=(COLUMN, 0.8 * COLUMN), layout="constrained")
    axes = figure.subplots()
    for number, (name, (x, y, errors)) in enumerate(lines.items()):
        look: dict[str, Any] = {"color": RUN_COLORS[number % len(RUN_COLORS)], "linestyle": LINES[number % len(LINES)]}
        axes.errorbar(x, y, 1.96 * np.array(errors), marker="o", markersize=4, capsize=2, label=label(name), **look)
    ticks = sorted({value for x, _, _ in lines.values() for value in x})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(bottom=0)
    axes.set(xlabel=across, ylabel="score")
    plain(axes)
    legend(figure, 1, "outside upper left")
    return figure


def class_bars(
    names: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    title: str,
    *,
    whole: bool = False,
    width: float = WIDTH,
    bars: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """One bar per class for the first entry of `scores`, the trained network; marks for the others, its controls.

    `bars` has half the lengths of the error bars.
    """
    figure = Figure(figsize=(width, 1.1 + 0.24 * (0.5 + width / WIDTH / 2) * len(names)), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(scores.items()):
        color, marker, size = MARKS.get(name, OTHER_MARK)
        if number == 0:
            axes.barh(range(len(names)), values, height=0.62, color=BLUE, label=label(name))
        else:
            look: dict[str, Any] = {"color": color, "marker": marker, "markersize": size, "markeredgecolor": "white"}
            look |= {"markeredgewidth": 2} if marker in "|_" else {"markeredgewidth": 0.6}
            if marker == "|":
                look["markeredgecolor"] = INK
            axes.plot(values, range(len(names)), linestyle="none", label=label(name), **look)
        if bars:
            places, ink = range(len(names)), color if number else INK
            axes.errorbar(values, places, xerr=bars[name], linestyle="none", ecolor=ink, elinewidth=1, capsize=2)
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    if whole:
        whole_numbers(axes)
    axes.set_xlabel(title)
    plain(axes, "x")
    _sorted_legend(figure, [])
    return figure


def sizes(numbers: Sequence[int], shares: Sequence[float], purities: Sequence[float], chance_of: str) -> Figure:
    """Bars of the shares of clusters, the largest first, and the part of each that has its first annotation.

    `numbers` are those of the clusters, which name the bars if there is room.
    """
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    places = range(len(shares))
    axes.bar(places, shares, color=MUTED, width=0.8 if len(shares) < 100 else 1, label="of all moments")
    annotated = [share * purity for share, purity in zip(shares, purities, strict=True)]
    axes.bar(places, annotated, color=BLUE, width=0.4, label=f"with {chance_of}")
    axes.set(xlabel="number of the cluster, the largest first", ylabel="share of moments")
    if len(numbers) <= MOST_NUMBERS:
        axes.set_xticks(places, [str(number) for number in numbers], fontsize=7)
    else:
        axes.set_xticks([])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    plain(axes)
    legend(figure, 2, "outside upper left")
    return figure


class CentroidCharts:
    """The three charts of a sound texture's centroid; the figures are reused for every cluster.

    Create and save them within `with_look`, since axes take their style when they are created.

    Args:
        frequencies: of the 32 channels, Hz.
        rates: of the modulation bands, Hz.
    """

    def __init__(self, frequencies: Sequence[float] | np.ndarray, rates: Sequence[float] | np.ndarray) -> None:
        self.frequencies, self.rates = np.asarray(frequencies), np.asarray(rates)
        channels, zeros = np.arange(len(frequencies)), np.zeros(len(frequencies))
        with with_look():
            self._mean_figure = Figure(figsize=(WIDTH, 2.4))
            self._mean_axes = self._mean_figure.add_axes((0.11, 0.2, 0.85, 0.74))
            self._band = self._mean_axes.fill_between(channels, zeros, zeros, color=BLUE, alpha=0.2, linewidth=0)
            (self._line,) = self._mean_axes.plot(channels, zeros, color=BLUE, linewidth=1.8)
            self._frequency_axis(self._mean_axes.xaxis, self._mean_axes.set_xlabel)
            self._mean_axes.set_ylabel("mean of the envelope")
            self._mean_axes.set_xlim(0, len(channels) - 1)
            plain(self._mean_axes)
            look: dict[str, Any] = {"cmap": DIVERGING, "vmin": -1, "vmax": 1}
            shape = len(frequencies), len(frequencies)
            self._correlation_figure, self._correlation = self._image(shape, "correlation", **look)
            self._frequency_axis(self._correlation.axes.xaxis, self._correlation.axes.set_xlabel)
            shape = len(frequencies), len(rates)
            self._modulation_figure, self._modulation = self._image(shape, "modulation power", cmap=SEQUENTIAL)
            ticks = range(0, len(rates), 3)
            self._modulation.axes.set_xticks(ticks, [f"{rates[tick]:.3g}" for tick in ticks])
            self._modulation.axes.set_xlabel("modulation, Hz")

    def mean(self, mean: Sequence[float], spread: Sequence[float]) -> Figure:
        """Mean of the envelopes by frequency, with the relative spread as a band."""
        middle, width = np.asarray(mean), np.multiply(mean, spread)
        self._line.set_ydata(middle)
        self._band.set_data(np.arange(len(middle)), np.maximum(middle - width, 0), middle + width)
        self._mean_axes.set_ylim(0, 1.05 * max(float(np.max(middle + width)), 1e-6))
        return self._mean_figure

    def correlation(self, correlation: Sequence[float]) -> Figure:
        """Correlation of the envelopes of every two channels."""
        self._correlation.set_data(np.reshape(np.asarray(correlation, float), (len(self.frequencies), -1)))
        return self._correlation_figure

    def modulation(self, modulation: Sequence[float]) -> Figure:
        """Modulation power of the envelope of each channel, by rate."""
        values = np.reshape(np.asarray(modulation, float), (len(self.frequencies), -1))
        self._modulation.set_data(values)
        self._modulation.set_clim(values.min(), max(values.max(), values.min() + 1e-6))
        return self._modulation_figure

    def _image(self, shape: tuple[int, int], title: str, **look: Any) -> tuple[Figure, AxesImage]:
        """An image by channel, with a color bar."""
        figure = Figure(figsize=(3.6, 3.1))
        axes = figure.add_axes((0.16, 0.16, 0.6, 0.78))
        image = axes.imshow(np.zeros(shape), origin="lower", aspect="auto", interpolation="nearest", **look)
        self._frequency_axis(axes.yaxis, axes.set_ylabel)
        bar = figure.colorbar(image, cax=figure.add_axes((0.79, 0.16, 0.035, 0.78)))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8)
        bar.set_label(title)
        return figure, image

    def _frequency_axis(self, axis: Axis, name: Callable[[str], object]) -> None:
        ticks = [0.1, 0.3, 1, 3, 10]
        places = np.interp(np.multiply(ticks, 1000), self.frequencies, np.arange(len(self.frequencies)))
        axis.set_ticks(places, [f"{tick:g}" for tick in ticks])
        name("frequency, kHz")


def class_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]], title: str) -> Figure:
    """Grouped bars: one group per class, one bar per network."""
    figure = Figure(figsize=(WIDTH, 1.1 + (0.12 + 0.14 * len(counts)) * len(names)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(len(counts), 1)
    for number, (network, values) in enumerate(counts.items()):
        color, _, _ = NETWORKS.get(network, OTHERS)
        places = np.arange(len(names)) - 0.4 + height * (number + 0.5)
        axes.barh(places, values, height=height * 0.9, color=color, label=network_name(network))
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    whole_numbers(axes)
    axes.set_xlabel(title)
    plain(axes, "x")
    legend(figure, 3, "outside upper left")
    return figure


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    marks: Sequence[int],
    names: Sequence[str],
    crossed: Sequence[bool] | None = None,
) -> Figure:
    """Points by annotation; the last name stands for all other annotations. Those `crossed` are drawn as ×."""
    figure = Figure(figsize=(4.6, 4.6 + 0.18 * len(names) / 3), layout="constrained")
    axes = figure.subplots()
    across, up, of = np.asarray(x), np.asarray(y), np.asarray(marks)
    many = len(across) > POINTS_AS_SHAPES
    crosses = np.zeros(len(across), bool) if crossed is None else np.asarray(crossed)
    for number, name in enumerate(names):
        selected = (of == number) & ~crosses
        color, marker = point_look(number, len(names))
        if crosses.any():
            both = (of == number) & crosses
            axes.scatter(across[both], up[both], s=14, c=color, marker="x", linewidths=0.8, rasterized=many)
        axes.scatter(
            across[selected],
            up[selected],
            s=14,
            c=color,
            marker=marker,
            linewidths=0,
            label=label(name),
            rasterized=many,
        )
    axes.set(xticks=[], yticks=[], xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_aspect("equal")
    axes.spines[:].set_color(MUTED)
    legend(figure, 3, "outside lower center")
    return figure


# 7 colors and 5 markers cycle together: they distinguish 35 annotations.
POINT_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#2f9bd6", "#8a5a44")
POINT_MARKERS = ("o", "s", "^", "D", "v")
MOST_ANNOTATIONS = len(POINT_COLORS) * len(POINT_MARKERS)


def point_look(number: int, names: int) -> tuple[str, str]:
    """Color and marker of an annotation by its number; gray dots for the last, which stands for all others."""
    if number == names - 1:
        return MUTED, "."
    return POINT_COLORS[number % len(POINT_COLORS)], POINT_MARKERS[number % len(POINT_MARKERS)]


def network_rank(network: str) -> tuple[int, str]:
    """The sort key of networks: the trained one first, then its controls."""
    return ([*NETWORKS].index(network) if network in NETWORKS else len(NETWORKS), network)


def network_name(network: str) -> str:
    """The displayed name of a network."""
    return {"encoder": "trained", "wrong_sound": "wrong sound", "random": "random weights"}.get(network, network)


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers only."""
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)


def _sorted_legend(figure: Figure, order: Sequence[str]) -> None:
    """One legend above, the names of `order` first."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    by_name = dict(zip(names, handles, strict=True))
    ranked = sorted(by_name, key=lambda name: order.index(name) if name in order else len(order))
    columns = min(3 if figure.get_figwidth() > COLUMN else 2, len(ranked))
    place: dict[str, Any] = {"loc": "outside upper left", "ncols": columns, "frameon": False}
    figure.legend([by_name[name] for name in ranked], ranked, **place)
