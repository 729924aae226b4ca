"""Embeddings: t-SNE of pictures and sounds, trained beside random, and how often neighbours are of one kind."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earshot.insight.report.columns import Column, nothing_to_show
from earshot.insight.report.figures import MOST_ANNOTATIONS, network_name, point_look, scatter
from earshot.insight.report.site import Numbers, Site, share
from earshot.insight.report.sources import Source
from earshot.insight.report.units import ORDER

NEIGHBOURS = 10
OTHERS, UNSAID = "others", "no annotation"
AT_ONCE = 500  # points whose distances to all are in memory
MOST_NAMED = MOST_ANNOTATIONS - 1


def column(site: Site, source: Source, prefix: str) -> Column:
    """A run's maps, one a network and sense."""
    exhibit = source.exhibit("embeddings")
    if exhibit.nothing:
        return nothing_to_show(source.name, exhibit)
    moments: dict[tuple[str, int], dict[str, Any]] = {}
    for row in exhibit.rows("embedded_moments"):
        picture = site.picture(row["thumbnail"], "embedded_moments.parquet")
        said = (row["annotations"] or [UNSAID])[0]
        told = {"clip_id": row["clip_id"], "group": row["group"], "said": said, "file": picture.file}
        moments[row["clip_id"], row["moment"]] = told | {"number": len(moments)}
    names = _names([moment["said"] for moment in moments.values()])
    points: dict[tuple[str, str], list[tuple[float, float, dict]]] = defaultdict(list)
    for row in exhibit.rows("embedded"):
        points[row["network"], row["sense"]].append((row["x"], row["y"], moments[row["clip_id"], row["moment"]]))
    keys = sorted(points, key=lambda key: (key[1], ORDER.index(key[0]) if key[0] in ORDER else 9, key[0]))
    alike = {key: neighbours_alike(points[key]) for key in keys}
    view = {
        "maps": [_map(site, key, points[key], names, alike[key], prefix) for key in keys],
        "data": _data(keys, points, moments, names, prefix),
        "legend": [{"name": name, "index": number} for number, name in enumerate(names)],
        "table": _table(keys, points, names, alike),
    }
    return Column(source.name, _lead(keys, points, alike), "", exhibit.facts, view)


def neighbours_alike(points: Sequence[tuple[float, float, Mapping[str, Any]]]) -> np.ndarray:
    """Of each point, the share of its ten nearest in the plane that have its annotation; its own group left out."""
    places = np.array([(x, y) for x, y, _ in points])
    said = np.array([moment["said"] for _, _, moment in points])
    group = np.array([moment["group"] for _, _, moment in points])
    shares = np.full(len(points), np.nan)
    for first in range(0, len(points), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        distances = np.square(places[part, None] - places[None]).sum(-1)  # (points at once, points)
        distances[group[part, None] == group[None]] = np.inf
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        counted = np.isfinite(np.take_along_axis(distances, nearest, 1))
        same = (said[nearest] == said[part, None]) & counted
        with np.errstate(invalid="ignore"):
            shares[part] = same.sum(1) / counted.sum(1)
    return shares


def _names(said: Sequence[str]) -> list[str]:
    """The annotations that are told apart, the most frequent first; the last stands for the others."""
    counts = Counter(said)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return [*ranked[:MOST_NAMED], OTHERS]


def _map(site: Site, key: tuple[str, str], points: Sequence, names: list[str], alike: np.ndarray, prefix: str) -> dict:
    network, sense = key
    marks = [names.index(moment["said"]) if moment["said"] in names[:-1] else len(names) - 1 for _, _, moment in points]
    used = [name for number, name in enumerate(names) if number in set(marks)] or names
    title = f"{sense}s, {network_name(network)}"
    mean = _mean(alike)
    chart = site.chart(
        f"embeddings-{prefix}{sense if sense in ('picture', 'sound') else 'other'}-{_rank(network)}",
        lambda: scatter([p[0] for p in points], [p[1] for p in points], marks, names),
        title[:1].upper() + title[1:],
        f"Map of {len(points)} points of {len(used)} annotations: "
        f"of the ten nearest points of each, {share(mean)} have its own",
    )
    return {"id": f"{prefix}{sense}-{_rank(network)}", "chart": chart, "alike": mean, "points": len(points)}


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
            f"{prefix}{sense}-{_rank(network)}": [
                [round(x, 4), round(y, 4), moment["number"]] for x, y, moment in points[network, sense]
            ]
            for network, sense in keys
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
    heads = ("annotation", "points", *(f"{sense}s, {network_name(network)}" for network, sense in keys))
    caption = "Of the ten nearest points on the map, the share that has the same annotation"
    return Numbers(caption, heads, rows, "data/explain/embeddings/embedded.parquet")


def _mean(values: np.ndarray) -> float | None:
    """The mean of the numbers among the values."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _lead(keys: Sequence, points: Mapping, alike: Mapping) -> str:
    told = []
    for sense in dict.fromkeys(sense for _, sense in keys):
        own, random = (alike.get((network, sense)) for network in ("encoder", "random"))
        if own is not None:
            beside = f" (random weights {share(_mean(random))})" if random is not None else ""
            told.append(f"{share(_mean(own))} of {sense}s{beside}")
    chance = _chance([moment["said"] for _, _, moment in points[keys[0]]]) if keys else None
    return f"Neighbours on the map have the same annotation: {', '.join(told)}; by chance {share(chance)}."


def _chance(said: Sequence[str]) -> float:
    counts = np.array([*Counter(said).values()])
    return float(np.sum((counts / counts.sum()) ** 2))
