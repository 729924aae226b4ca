"""Single units: the number of selective ones with controls, and the top frames of each."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.drawing import NETWORKS, OTHERS
from earshot.report.figures import Curve, class_counts, curves, network_name, network_rank
from earshot.report.site import Chart, Numbers, ReportImage, Site, share
from earshot.report.sources import ExhibitOutput, Source

CONTROLS = ("wrong_sound", "random")
MOST_BARS = 40  # classes in one chart
POSITION_SHARE = 0.5  # of a unit's variance, from which it is selective for position; as the exhibit counts
# Ways to measure selectivity, by the column of unit_classes: in words, and the name of the chart.
WAYS = {
    "units": ("by their top frames", "classes"),
    "boxed_units": ("by their top annotated images", "images"),
    "iou_units": ("by the boxes that they cover", "boxes"),
}
OF_A_UNIT = (
    *("network", "unit", "maximum", "position", "annotation", "purity", "boxed", "boxed_purity", "iou_class", "iou"),
    *("selective", "audible"),
)
Classes = Mapping[str, Mapping[str, Mapping[str, Any]]]  # rows of unit_classes, by network and class


@dataclass
class Count:
    """Counts of the units of one network: all, selective, selective for a class that makes sound, and their classes.

    `boxed` are selective by annotated images, `detectors` by boxes, `positional` for a position in the frame.
    """

    units: int = 0
    selective: int = 0
    audible: int = 0
    classes: set[str] = field(default_factory=set)
    boxed: int = 0
    detectors: int = 0
    positional: int = 0

    @property
    def share(self) -> float:
        return self.selective / self.units if self.units else 0.0


@dataclass(frozen=True)
class AscentImage:
    """An image that gradient ascent found for a unit, and the unit's activations, as in the table unit_ascent."""

    image: ReportImage
    start: float
    end: float
    highest: float


@dataclass(frozen=True)
class Unit:
    """A unit, its row of the table units, its gallery, which some networks lack, and what gradient ascent found."""

    values: Mapping[str, Any]
    gallery: ReportImage | None
    frames: int
    ascent: AscentImage | None


def column(site: Site, source: Source, prefix: str) -> Column:
    """The units of a run."""
    exhibit = source.exhibit("units")
    if exhibit.skipped:
        return skipped_column(source.name, exhibit)
    ascents = _ascents(site, exhibit)
    units = [_unit(site, row, ascents.get((row["network"], row["unit"]))) for row in exhibit.rows("units")]
    units.sort(
        key=lambda unit: (network_rank(unit.values["network"]), -_known(unit.values["purity"]), unit.values["unit"])
    )
    classes: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in exhibit.rows("unit_classes"):
        classes[row["network"]][row["class"]] = row
    counts = _counts(units, classes)
    drawn = [unit for unit in units if unit.gallery]
    charts = [_class_chart(site, classes, way, prefix) for way in WAYS] + [_sweep_chart(site, exhibit, prefix)]
    undrawn = counts.keys() - {unit.values["network"] for unit in drawn}
    view = {
        "units": drawn,
        "counts": {network_name(name): counts[name] for name in sorted(counts, key=network_rank)},
        "charts": [chart for chart in charts if chart],
        "networks": sorted({unit.values["network"] for unit in drawn}, key=network_rank),
        "undrawn": [network_name(name) for name in sorted(undrawn, key=network_rank)],
        "classes": sorted({unit.values["annotation"] for unit in drawn if unit.values["annotation"]}),
        "frames": max((unit.frames for unit in drawn), default=0),
        "audible": "audible" in exhibit.metrics,
        "ascent_steps": exhibit.metadata.get("ascent_steps", 0),
        "boxes": any(unit.values["iou"] == unit.values["iou"] for unit in drawn),
    }
    return Column(source.name, lead(counts, exhibit, source.params), "", exhibit.metadata, exhibit.metrics, view)


def _ascents(site: Site, exhibit: ExhibitOutput) -> dict[tuple[str, int], AscentImage]:
    """What gradient ascent found, by network and unit; nothing where it took no steps."""
    if "ascent_steps" not in exhibit.metadata:
        return {}
    return {
        (row["network"], row["unit"]): AscentImage(
            site.image(row["image"], f"unit_ascent.parquet, {row['network']} unit {row['unit']}"),
            *(row[name] for name in ("start", "end", "highest")),
        )
        for row in exhibit.rows("unit_ascent")
    }


def _unit(site: Site, row: Mapping[str, Any], ascent: AscentImage | None) -> Unit:
    of = f"units.parquet, {row['network']} unit {row['unit']}"
    gallery = site.image(row["gallery"], of) if row["gallery"] else None
    return Unit({key: row[key] for key in OF_A_UNIT}, gallery, len(row["clips"] or ()), ascent)


def _known(value: float) -> float:
    """A sort key in which NaN comes last."""
    return -1.0 if math.isnan(value) else value


def _counts(units: Iterable[Unit], classes: Classes) -> dict[str, Count]:
    counts: dict[str, Count] = defaultdict(Count)
    for values in (unit.values for unit in units):
        of = counts[values["network"]]
        of.units += 1
        of.positional += values["position"] >= POSITION_SHARE
        if values["selective"]:
            of.selective += 1
            of.audible += bool(values["audible"])
            of.classes.add(values["annotation"])
    for network, of in counts.items():
        of.boxed = sum(row["boxed_units"] for row in classes.get(network, {}).values())
        of.detectors = sum(row["iou_units"] for row in classes.get(network, {}).values())
    return counts


def lead(counts: Mapping[str, Count], exhibit: ExhibitOutput, params: Mapping[str, Any]) -> str:
    """The number of selective units, of the network and its controls, and of those for classes that make sound."""
    top = exhibit.metrics.get("judged", params.get("explain.units.top"))  # with few frames, fewer count as top
    least = params.get("explain.units.selective")
    own = counts.get("encoder", Count())
    others = [f"{network_name(name)} {counts[name].selective}" for name in CONTROLS if name in counts]
    beside = f" ({', '.join(others)})" if others else ""
    rule = (
        f": at least {share(least)} of the {top} frames that activate them most show the same one"
        if least and top
        else ""
    )
    sentence = f" {own.audible} of these units are selective for objects that make sound."
    audible = sentence if own.selective and "audible" in exhibit.metrics else ""
    boxes = ""
    if any(count.detectors for count in counts.values()):
        beside_boxes = [f"{network_name(name)} {counts[name].detectors}" for name in CONTROLS if name in counts]
        boxes = f" By boxes, {own.detectors} cover those of a class ({', '.join(beside_boxes)})."
    if "audible_videos" in exhibit.metrics:
        audible_share = share(exhibit.metrics["audible_videos"])
        audible += f" In {audible_share} of their top clips, such an object, by the units' top images, is audible."
    layer = f" of {exhibit.metadata['layer']}" if "layer" in exhibit.metadata else ""
    return f"{own.selective} of {own.units:,} units{layer} are selective for an object{beside}{rule}.{audible}{boxes}"


def _class_chart(site: Site, classes: Classes, way: str, prefix: str) -> Chart | None:
    """The number of selective units by class, for the most frequent classes; None without selective units."""
    networks = sorted(classes, key=network_rank)
    every = {name for rows in classes.values() for name in rows}
    count = {name: {n: classes[n].get(name, {way: 0})[way] for n in networks} for name in every}
    if not any(any(of.values()) for of in count.values()):
        return None
    audible = {name for n in networks for name, row in classes[n].items() if row["audible"]}
    ranked = sorted(count, key=lambda name: (*(-count[name][n] for n in networks), name))
    names = [name for name in ranked if any(count[name].values())][:MOST_BARS]
    words, file = WAYS[way]
    heads = ("class", *(("makes sound",) if audible else ()), *map(network_name, networks))
    table = [(name, *((name in audible,) if audible else ()), *count[name].values()) for name in ranked]
    most_frequent = ", ".join(f"{name} {count[name][networks[0]]}" for name in names[:3])
    bars = {network: [count[name][network] for name in names] for network in networks}
    return site.chart(
        f"units-{prefix}{file}",
        lambda: class_counts([f"{name} ♪" if name in audible else name for name in names], bars, "selective units"),
        f"Selective units {words}{'; ♪: it makes sound' if audible else ''}",
        f"Bars: selective units by class and network; {network_name(networks[0])}: most often {most_frequent}",
        Numbers(f"Selective units {words}", heads, table, "data/explain/units/unit_classes.parquet"),
    )


def _sweep_chart(site: Site, exhibit: ExhibitOutput, prefix: str) -> Chart | None:
    """The number of selective units at each threshold of purity."""
    rows = [*exhibit.rows("unit_sweep")]
    networks = sorted({row["network"] for row in rows}, key=network_rank)
    if not networks:
        return None
    of = {network: [row for row in rows if row["network"] == network] for network in networks}
    lines = [
        Curve(network_name(n), [r["threshold"] for r in of[n]], [r["share"] for r in of[n]], color, style)
        for n in networks
        for color, _, style in (NETWORKS.get(n, OTHERS),)
    ]
    heads = ("network", "threshold", "units", "share", "by annotated images")
    table = [
        (network_name(r["network"]), round(r["threshold"], 3), r["units"], share(r["share"]), r["boxed_units"])
        for r in rows
    ]
    return site.chart(
        f"units-{prefix}sweep",
        lambda: curves(lines, "minimum purity of the top frames", "share of units"),
        "Selective units by threshold",
        "Lines: the share of units that are selective, falling as the threshold of purity rises, for each network",
        Numbers("Selective units by threshold", heads, table, "data/explain/units/unit_sweep.parquet"),
    )


PAGE = Page(
    "What single units of the network respond to. A strip displays the frames that activate a unit most, dimmed where "
    "the unit does not respond. A unit is selective if its top frames show the same object.",
    column,
    "units.html",
    shows="what single units of the convolutional layers respond to",
    title="Top frames of units",
)
