"""Heat maps: where in frames and spectrograms units respond that prefer a class."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from earshot.insight.report.columns import Column, nothing_to_show
from earshot.insight.report.figures import network_name
from earshot.insight.report.site import Site, share
from earshot.insight.report.sources import Source

OF_A_UNIT = ("network", "sense", "unit", "annotation", "share")


def column(site: Site, source: Source, prefix: str) -> Column:
    """The units of a run, each with its moments under its heat map."""
    exhibit = source.exhibit("heatmaps")
    if exhibit.nothing:
        return nothing_to_show(source.name, exhibit)
    units = []
    for key, rows in groupby(exhibit.rows("heatmaps"), key=lambda row: tuple(row[name] for name in OF_A_UNIT)):
        told = dict(zip(OF_A_UNIT, key, strict=True))
        units.append(
            {**told, "network": network_name(told["network"]), "moments": [_moment(site, row) for row in rows]}
        )
    sections = [
        {"network": network, "sense": sense, "units": [*of]}
        for (network, sense), of in groupby(units, key=lambda unit: (unit["network"], unit["sense"]))
    ]
    return Column(source.name, _lead(units), "", exhibit.facts, exhibit.metrics, {"sections": sections})


def _moment(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    of = f"heatmaps.parquet, {row['network']} {row['sense']} unit {row['unit']}, rank {row['rank']}"
    media = {name: site.picture(row[name], of) for name in ("shown", "heat")}
    return {"clip_id": row["clip_id"], "annotations": row["annotations"], "sound": site.sound(row["sound"]), **media}


def _lead(units: list[dict[str, Any]]) -> str:
    """The unit of each sense whose top moments agree most, in the trained network and beside it in the random one."""
    told = []
    for sense in dict.fromkeys(unit["sense"] for unit in units):
        best = {}
        for unit in (unit for unit in units if unit["sense"] == sense):
            if unit["share"] > best.get(unit["network"], {"share": -1})["share"]:
                best[unit["network"]] = unit
        own = best.get(network_name("encoder"))
        if own:
            random = best.get(network_name("random"))
            beside = f" (random weights at best {share(random['share'])})" if random else ""
            told.append(f"of unit {own['unit']}'s top {sense}s {share(own['share'])} are {own['annotation']}{beside}")
    return f"Nobody named a class, yet units stand for some: {'; '.join(told)}." if told else "No unit is shown."
