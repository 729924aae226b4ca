"""Heat maps: where selective units respond in frames and spectrograms."""

import statistics
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.figures import network_name
from earshot.report.site import Site, share
from earshot.report.sources import Source

OF_A_UNIT = ("network", "modality", "unit", "annotation", "share")


def column(site: Site, source: Source, prefix: str) -> Column:
    """The units of a run, each with its moments under its heat map."""
    exhibit = source.exhibit("heatmaps")
    if exhibit.skipped:
        return skipped_column(source.name, exhibit)
    units = []
    for key, rows in groupby(exhibit.rows("heatmaps"), key=lambda row: tuple(row[name] for name in OF_A_UNIT)):
        unit = dict(zip(OF_A_UNIT, key, strict=True))
        units.append(
            {**unit, "network": network_name(unit["network"]), "moments": [_moment(site, row) for row in rows]}
        )
    sections = [
        {"network": network, "modality": modality, "units": [*of]}
        for (network, modality), of in groupby(units, key=lambda unit: (unit["network"], unit["modality"]))
    ]
    return Column(source.name, _lead(units), "", exhibit.metadata, exhibit.metrics, {"sections": sections})


def _moment(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    of = f"heatmaps.parquet, {row['network']} {row['modality']} unit {row['unit']}, rank {row['rank']}"
    media = {name: site.image(row[name], of) for name in ("image", "heat")}
    return {"clip_id": row["clip_id"], "annotations": row["annotations"], "sound": site.sound(row["sound"]), **media}


def _lead(units: list[dict[str, Any]]) -> str:
    """The mean purity of the displayed units, and that of random weights, selected in the same way."""
    texts = []
    for modality in dict.fromkeys(unit["modality"] for unit in units):
        shares: dict[str, list[float]] = {}
        for unit in (unit for unit in units if unit["modality"] == modality):
            shares.setdefault(unit["network"], []).append(unit["share"])
        first, *others = [(share(statistics.mean(of)), network) for network, of in shares.items()]
        beside = f" ({', '.join(f'{network} {value}' for value, network in others)})" if others else ""
        texts.append(f"{modality} {first[0]}{beside}")
    if not texts:
        return "No unit is displayed."
    return f"Share of a unit's top moments that have its annotation, averaged over the units below: {'; '.join(texts)}."


PAGE = Page(
    "The units whose top moments most often share an annotation, and where they respond in frames and spectrograms. "
    "Wrong sound is not drawn here.",
    column,
    "heatmaps.html",
    shows="where single units respond in frames and spectrograms",
)
