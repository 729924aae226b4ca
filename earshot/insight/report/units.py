"""Single units: how many are selective for an object beside the controls, and the top frames of each."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from earshot.insight.report.columns import Column, nothing_to_show
from earshot.insight.report.figures import Curve, class_counts, curves, network_name
from earshot.insight.report.site import Chart, Numbers, Picture, Site, share
from earshot.insight.report.sources import Source

ORDER = ("encoder", "wrong_sound", "random")
MOST_BARS = 40  # classes in one chart
OF_A_UNIT = ("network", "unit", "maximum", "annotation", "purity", "boxed", "boxed_purity", "iou_class", "iou")
OF_A_UNIT += ("selective", "sounding")


@dataclass
class Count:
    """The units of one network: all, those selective for an object, and of these for one that sounds; by boxes."""

    units: int = 0
    selective: int = 0
    sounding: int = 0
    classes: set[str] = field(default_factory=set)

    @property
    def share(self) -> float:
        return self.selective / self.units if self.units else 0.0


@dataclass(frozen=True)
class Unit:
    """A unit and its gallery."""

    told: Mapping[str, Any]
    gallery: Picture
    frames: int


def column(site: Site, source: Source, prefix: str) -> Column:
    """What a run's units respond to."""
    exhibit = source.exhibit("units")
    if exhibit.nothing:
        return nothing_to_show(source.name, exhibit)
    units = [_unit(site, row) for row in exhibit.rows("units")]
    units.sort(key=lambda unit: (_rank(unit.told["network"]), -unit.told["purity"], unit.told["unit"]))
    counts = _counts(units)
    charts = [_class_chart(site, [*exhibit.rows("unit_classes")], prefix), _sweep_chart(site, source, prefix)]
    view = {
        "units": units,
        "counts": {network_name(name): counts[name] for name in sorted(counts, key=_rank)},
        "charts": [chart for chart in charts if chart],
        "networks": sorted(counts, key=_rank),
        "classes": sorted({unit.told["annotation"] for unit in units if unit.told["annotation"]}),
        "frames": max((unit.frames for unit in units), default=0),
        "boxes": any(unit.told["iou"] == unit.told["iou"] for unit in units),
    }
    return Column(source.name, lead(counts, source), "", exhibit.facts, exhibit.metrics, view)


def _unit(site: Site, row: Mapping[str, Any]) -> Unit:
    gallery = site.picture(row["gallery"], f"units.parquet, {row['network']} unit {row['unit']}")
    return Unit({key: row[key] for key in OF_A_UNIT}, gallery, len(row["clips"] or ()))


def _rank(network: str) -> tuple[int, str]:
    return (ORDER.index(network) if network in ORDER else len(ORDER), network)


def _counts(units: Iterable[Unit]) -> dict[str, Count]:
    counts: dict[str, Count] = defaultdict(Count)
    for told in (unit.told for unit in units):
        of = counts[told["network"]]
        of.units += 1
        if told["selective"]:
            of.selective += 1
            of.sounding += bool(told["sounding"])
            of.classes.add(told["annotation"])
    return counts


def lead(counts: Mapping[str, Count], source: Source) -> str:
    """How many units are selective, beside the controls, and how many of them for what sounds."""
    top, least = source.params.get("explain.units.top"), source.params.get("explain.units.selective")
    own = counts.get("encoder", Count())
    others = [f"{network_name(name)} {counts[name].selective}" for name in ORDER[1:] if name in counts]
    beside = f" ({', '.join(others)})" if others else ""
    rule = f", that is, at least {share(least)} of the {top} frames that activate them most show it" if least else ""
    sounding = f" {own.sounding} of them are for objects that make sound." if own.selective else ""
    return f"{own.selective} of {own.units:,} units are selective for an object{beside}{rule}.{sounding}"


def _class_chart(site: Site, rows: Sequence[Mapping[str, Any]], prefix: str) -> Chart | None:
    """The histogram by category, of the classes with most units."""
    if not rows:
        return None
    totals: Counter[str] = Counter()
    by_network: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        totals[row["class"]] += row["units"]
        by_network[row["network"]][row["class"]] = row
    sounding = {row["class"] for row in rows if row["sounding"]}
    networks = sorted(by_network, key=_rank)
    first = by_network[networks[0]]
    ranked = sorted(totals, key=lambda name: (-_units(first, name), -totals[name], name))
    names = ranked[:MOST_BARS]
    counts = {network: [_units(by_network[network], name) for name in names] for network in networks}
    heads = (
        "class",
        "sounds",
        *(network_name(name) for name in networks),
        *(f"{network_name(n)}, by boxes" for n in networks),
    )
    table = [
        (
            name,
            name in sounding,
            *(_units(by_network[n], name) for n in networks),
            *(_units(by_network[n], name, "iou_units") for n in networks),
        )
        for name in ranked
    ]
    told = ", ".join(f"{name} {count}" for name, count in zip(names[:3], counts[networks[0]], strict=False))
    return site.chart(
        f"units-classes{prefix and '-' + prefix.rstrip('-')}",
        lambda: class_counts([f"{name} ♪" if name in sounding else name for name in names], counts, "selective units"),
        "Selective units by class; ♪: it makes sound",
        f"Bars: selective units by class and network; {network_name(networks[0])} most often {told}",
        Numbers("Selective units by class", heads, table, "data/explain/units/unit_classes.parquet"),
    )


def _units(rows: Mapping[str, Mapping[str, Any]], name: str, column: str = "units") -> int:
    return rows[name][column] if name in rows else 0


def _sweep_chart(site: Site, source: Source, prefix: str) -> Chart | None:
    """How many units are selective at each threshold of purity."""
    rows = [*source.exhibit("units").rows("unit_sweep")]
    networks = sorted({row["network"] for row in rows}, key=_rank)
    if not networks:
        return None
    of = {network: [row for row in rows if row["network"] == network] for network in networks}
    lines = [
        Curve(network_name(n), [r["threshold"] for r in of[n]], [r["share"] for r in of[n]], number, number)
        for number, n in enumerate(networks)
    ]
    table = [(network_name(r["network"]), round(r["threshold"], 3), r["units"], share(r["share"])) for r in rows]
    return site.chart(
        f"units-sweep{prefix and '-' + prefix.rstrip('-')}",
        lambda: curves(lines, "least purity of the top frames", "share of units"),
        "Selective units by threshold",
        "Lines: the share of units that are selective, falling as the threshold of purity rises, for each network",
        Numbers(
            "Selective units by threshold",
            ("network", "threshold", "units", "share"),
            table,
            "data/explain/units/unit_sweep.parquet",
        ),
    )
