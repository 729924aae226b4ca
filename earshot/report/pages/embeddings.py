"""Embeddings: t-SNE of pictures and sounds, trained beside random, and how often neighbours are of one kind."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earshot.report.columns import Column, Page, nothing_to_display
from earshot.report.figures import MOST_ANNOTATIONS, network_name, network_rank, point_look, scatter
from earshot.report.site import Numbers, Site, share
from earshot.report.sources import Source

OTHERS, UNSAID = "others", "no annotation"
EMBEDDED = ["network", "modality", "clip_id", "moment", "x", "y", "alike"]
MOST_NAMED = MOST_ANNOTATIONS - 1
Point = tuple[float, float, dict[str, Any]]  # x, y, and its moment
Key = tuple[str, str]  # network and sense


def column(site: Site, source: Source, prefix: str) -> Column:
    """A run's maps, one a network and sense."""
    exhibit = source.exhibit("embeddings")
    if exhibit.nothing:
        return nothing_to_display(source.name, exhibit)
    moments: dict[tuple[str, int], dict[str, Any]] = {}
    for row in exhibit.rows("embedded_moments"):
        image = site.image(row["thumbnail"], "embedded_moments.parquet")
        said = (row["annotations"] or [UNSAID])[0]
        told = {"clip_id": row["clip_id"], "group": row["group"], "said": said, "file": image.file}
        moments[row["clip_id"], row["moment"]] = told | {"number": len(moments)}
    names = _names([moment["said"] for moment in moments.values()])
    points: dict[Key, list[Point]] = defaultdict(list)
    shares: dict[Key, list[float | None]] = defaultdict(list)
    for row in exhibit.rows("embedded", EMBEDDED):
        key = row["network"], row["modality"]
        points[key].append((row["x"], row["y"], moments[row["clip_id"], row["moment"]]))
        shares[key].append(row["alike"])
    keys = sorted(points, key=lambda key: (key[1], network_rank(key[0])))
    alike = {key: np.array(shares[key], float) for key in keys}  # of a point without annotation NaN
    view = {
        "maps": [_map(site, key, points[key], names, alike[key], prefix) for key in keys],
        "data": _data(keys, points, moments, names, prefix),
        "legend": [{"name": name, "index": number} for number, name in enumerate(names)],
        "table": _table(keys, points, names, alike),
    }
    return Column(source.name, _lead(alike, exhibit.metrics), "", exhibit.metadata, exhibit.metrics, view)


def _names(said: Sequence[str]) -> list[str]:
    """The annotations that are told apart, the most frequent first; the last stands for the others."""
    counts = Counter(said)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return [*ranked[:MOST_NAMED], OTHERS]


def _map(site: Site, key: tuple[str, str], points: Sequence, names: list[str], alike: np.ndarray, prefix: str) -> dict:
    network, modality = key
    marks = [names.index(moment["said"]) if moment["said"] in names[:-1] else len(names) - 1 for _, _, moment in points]
    used = [name for number, name in enumerate(names) if number in set(marks)] or names
    title = f"{modality}s, {network_name(network)}"
    mean = _mean(alike)
    chart = site.chart(
        f"embeddings-{prefix}{modality if modality in ('image', 'sound') else 'other'}-{_rank(network)}",
        lambda: scatter([p[0] for p in points], [p[1] for p in points], marks, names),
        title[:1].upper() + title[1:],
        f"Map of {len(points)} points of {len(used)} annotations: "
        f"of the nearest neighbours of each, {share(mean)} share one",
    )
    return {"id": f"{prefix}{modality}-{_rank(network)}", "chart": chart, "alike": mean, "points": len(points)}


def _rank(network: str) -> str:
    """A network in the name of a file."""
    return {"encoder": "trained", "wrong_sound": "wrong-sound", "random": "random"}.get(network, "other")


def _data(keys: Sequence, points: Mapping, moments: Mapping, names: list[str], prefix: str) -> dict[str, Any]:
    """What the page's script draws: looks of annotations, moments, and the points of each map by moment."""
    index = {name: number for number, name in enumerate(names[:-1])}
    others = len(names) - 1
    return {
        "looks": [(name, *point_look(number, len(names))) for number, name in enumerate(names)],
        "moments": [[m["file"], index.get(m["said"], others), m["said"], m["clip_id"]] for m in moments.values()],
        "maps": {
            f"{prefix}{modality}-{_rank(network)}": [
                [round(x, 4), round(y, 4), moment["number"]] for x, y, moment in points[network, modality]
            ]
            for network, modality in keys
        },
    }


def _table(keys: Sequence, points: Mapping, names: list[str], alike: Mapping) -> Numbers:
    """In place of the maps: by annotation, how often neighbours have it too."""
    index = {name: number for number, name in enumerate(names[:-1])}
    others = len(names) - 1
    of = {key: np.array([index.get(moment["said"], others) for _, _, moment in points[key]]) for key in keys}
    rows = []
    for number, name in enumerate(names):
        count = max((int(np.sum(of[key] == number)) for key in keys), default=0)
        if count:
            rows.append((name, count, *(share(_mean(alike[key][of[key] == number])) for key in keys)))
    heads = ("annotation", "points", *(f"{modality}s, {network_name(network)}" for network, modality in keys))
    caption = "Of the nearest neighbours by the embedding, the share that shares an annotation"
    return Numbers(caption, heads, rows, "data/explain/embeddings/embedded.parquet")


def _mean(values: np.ndarray) -> float | None:
    """The mean of the numbers among the values."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _lead(alike: Mapping[Key, np.ndarray], metrics: Mapping[str, Any]) -> str:
    told = []
    for modality in dict.fromkeys(modality for _, modality in alike):
        own, random = (alike.get((network, modality)) for network in ("encoder", "random"))
        if own is not None:
            beside = f" (random weights {share(_mean(random))})" if random is not None else ""
            told.append(f"{modality}s {share(_mean(own))}{beside}")
    if not told:
        return "No point is shown."
    nearest, chance = metrics.get("nearest", "few"), share(metrics.get("chance"))
    return f"Of the {nearest} nearest neighbours, so many share an annotation: {', '.join(told)}; by chance {chance}."


PAGE = Page(
    "Pictures and sounds as points: t-SNE lays what the network finds alike side by side. Each map is made by "
    "itself; only who is next to whom means something, not where.",
    column,
    "embeddings.html",
)
