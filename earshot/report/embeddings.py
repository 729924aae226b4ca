"""Embeddings: t-SNE of pictures and sounds, trained beside random, and how often neighbours are of one kind."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earshot.report.columns import Column, nothing_to_show
from earshot.report.figures import MOST_ANNOTATIONS, network_name, point_look, scatter
from earshot.report.site import Numbers, Site, share
from earshot.report.sources import Source
from earshot.report.units import ORDER

NEIGHBOURS = 10
OTHERS, UNSAID = "others", "no annotation"
AT_ONCE = 500  # points whose distances to all are in memory
MOST_NAMED = MOST_ANNOTATIONS - 1
Point = tuple[float, float, dict[str, Any]]  # x, y, and its moment


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
        told["annotations"] = row["annotations"] or []
        moments[row["clip_id"], row["moment"]] = told | {"number": len(moments)}
    names = _names([moment["said"] for moment in moments.values()])
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for row in exhibit.rows("embedded"):
        points[row["network"], row["sense"]].append((row["x"], row["y"], moments[row["clip_id"], row["moment"]]))
    keys = sorted(points, key=lambda key: (key[1], ORDER.index(key[0]) if key[0] in ORDER else 9, key[0]))
    alike = {key: _alike(points[key]) for key in keys}
    view = {
        "maps": [_map(site, key, points[key], names, alike[key], prefix) for key in keys],
        "data": _data(keys, points, moments, names, prefix),
        "legend": [{"name": name, "index": number} for number, name in enumerate(names)],
        "table": _table(keys, points, names, alike),
    }
    return Column(source.name, _lead(keys, points, alike), "", exhibit.facts, exhibit.metrics, view)


def _alike(points: Sequence[Point]) -> np.ndarray:
    groups = np.unique([moment["group"] for _, _, moment in points], return_inverse=True)[1]
    return neighbours_alike(_said(points), groups, np.array([(x, y) for x, y, _ in points]))


def _said(points: Sequence[Point]) -> np.ndarray:
    """Which annotations each point has: bool (points, annotations)."""
    numbers = {name: n for n, name in enumerate(sorted({a for _, _, moment in points for a in moment["annotations"]}))}
    said = np.zeros((len(points), len(numbers)), bool)
    for place, (_, _, moment) in enumerate(points):
        said[place, [numbers[name] for name in moment["annotations"]]] = True
    return said


def neighbours_alike(said: np.ndarray, groups: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Of each point, the share of its ten nearest in the plane that share an annotation with it: (points,).

    Args:
        said: which annotations each has, bool (points, annotations).
        groups: of each; points of its own group do not count as neighbours.
        places: (points, 2).
    """
    shares = np.full(len(places), np.nan)
    for first in range(0, len(places), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        distances = np.square(places[part, None] - places[None]).sum(-1)  # (points at once, points)
        distances[groups[part, None] == groups[None]] = np.inf
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        counted = np.isfinite(np.take_along_axis(distances, nearest, 1))
        alike = np.any(said[nearest] & said[part, None], axis=2) & counted
        with np.errstate(invalid="ignore"):
            shares[part] = alike.sum(1) / counted.sum(1)
    return shares


def chance_alike(said: np.ndarray) -> float | None:
    """The share of all pairs of points that share an annotation."""
    together = said.astype(np.float32)
    alike = [(np.sum(part @ together.T > 0, dtype=int)) for part in np.array_split(together, len(said) // AT_ONCE + 1)]
    pairs = len(said) * (len(said) - 1)
    return (sum(alike) - int(said.any(1).sum())) / pairs if pairs else None


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
        f"of the ten nearest points of each, {share(mean)} share one",
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
    caption = "Of the ten nearest points on the map, the share that shares an annotation"
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
            told.append(f"{sense}s {share(_mean(own))}{beside}")
    if not told:
        return "No point is shown."
    chance = share(chance_alike(_said(points[keys[0]])))
    return f"Of the ten nearest points on the map, so many share an annotation: {', '.join(told)}; by chance {chance}."
