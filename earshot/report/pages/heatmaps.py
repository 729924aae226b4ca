"""Heat maps: where in frames and spectrograms units respond that prefer a class."""

import statistics
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from earshot.report.columns import Column, Page, nothing_to_display
from earshot.report.figures import network_name
from earshot.report.site import Site, share
from earshot.report.sources import Source

OF_A_UNIT = ("network", "modality", "unit", "annotation", "share")


def column(site: Site, source: Source, prefix: str) -> Column:
    """The units of a run, each with its moments under its heat map."""
    exhibit = source.exhibit("heatmaps")
    if exhibit.nothing:
        return nothing_to_display(source.name, exhibit)
    units = []
    for key, rows in groupby(exhibit.rows("heatmaps"), key=lambda row: tuple(row[name] for name in OF_A_UNIT)):
        told = dict(zip(OF_A_UNIT, key, strict=True))
        units.append(
            {**told, "network": network_name(told["network"]), "moments": [_moment(site, row) for row in rows]}
        )
    sections = [
        {"network": network, "modality": modality, "units": [*of]}
        for (network, modality), of in groupby(units, key=lambda unit: (unit["network"], unit["modality"]))
    ]
    return Column(source.name, _lead(units), "", exhibit.metadata, exhibit.metrics, {"sections": sections})


def _moment(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    of = f"heatmaps.parquet, {row['network']} {row['modality']} unit {row['unit']}, rank {row['rank']}"
    media = {name: site.image(row[name], of) for name in ("shown", "heat")}
    return {"clip_id": row["clip_id"], "annotations": row["annotations"], "sound": site.sound(row["sound"]), **media}


def _lead(units: list[dict[str, Any]]) -> str:
    """How far the top moments of the units shown agree, beside those of random weights, chosen in the same way."""
    told = []
    for modality in dict.fromkeys(unit["modality"] for unit in units):
        shares: dict[str, list[float]] = {}
        for unit in (unit for unit in units if unit["modality"] == modality):
            shares.setdefault(unit["network"], []).append(unit["share"])
        first, *others = [(share(statistics.mean(of)), network) for network, of in shares.items()]
        beside = f" ({', '.join(f'{network} {value}' for value, network in others)})" if others else ""
        told.append(f"{modality}s {first[0]}{beside}")
    if not told:
        return "No unit is shown."
    return f"Of the top moments of the units shown, so many have the unit's annotation: {'; '.join(told)}."


PAGE = Page(
    "Units whose strongest moments agree most in an annotation, and where in frames and spectrograms they respond.",
    column,
    "heatmaps.html",
)
