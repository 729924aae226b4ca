"""Embeddings: t-SNE of images and audio, trained and random, and the precision of neighbors."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.figures import MOST_ANNOTATIONS, network_name, network_rank, point_look, scatter
from earshot.report.site import Chart, Numbers, Site, score
from earshot.report.sources import ExhibitOutput, Source

OTHERS, NO_ANNOTATION = "others", "no annotation"
COLUMNS = ["network", "modality", "clip_id", "moment", "x", "y", "knn_precision"]
PLURALS = {"image": "images", "audio": "audio"}
MOST_NAMED = MOST_ANNOTATIONS - 1
Point = tuple[float, float, dict[str, Any]]  # x, y, and the moment
Key = tuple[str, str]  # network and modality


def column(site: Site, source: Source, prefix: str) -> Column:
    """The maps of a run, one per network and modality."""
    exhibit = source.exhibit("embeddings")
    if exhibit.skipped:
        return skipped_column(source.name, exhibit)
    moments: dict[tuple[str, int], dict[str, Any]] = {}
    for row in exhibit.rows("embedding_moments"):
        image = site.image(row["thumbnail"], "embedding_moments.parquet")
        annotation = (row["annotations"] or [NO_ANNOTATION])[0]
        moment = {"clip_id": row["clip_id"], "group": row["group"], "annotation": annotation, "file": image.file}
        moments[row["clip_id"], row["moment"]] = moment | {"number": len(moments)}
    names = _names([moment["annotation"] for moment in moments.values()])
    points: dict[Key, list[Point]] = defaultdict(list)
    shares: dict[Key, list[float | None]] = defaultdict(list)
    for row in exhibit.rows("embeddings", COLUMNS):
        key = row["network"], row["modality"]
        points[key].append((row["x"], row["y"], moments[row["clip_id"], row["moment"]]))
        shares[key].append(row["knn_precision"])
    keys = sorted(points, key=lambda key: (key[1], network_rank(key[0])))
    knn_precision = {key: np.array(shares[key], float) for key in keys}  # NaN for a point without annotation
    view = {
        "maps": [_map(site, key, points[key], names, knn_precision[key], prefix) for key in keys],
        "joint": _joint_maps(site, exhibit, moments, names, prefix),
        "data": _data(keys, points, moments, names, prefix),
        "legend": [{"name": name, "index": number} for number, name in enumerate(names)],
        "table": _table(keys, points, names, knn_precision),
    }
    return Column(source.name, _lead(knn_precision, exhibit.metrics), "", exhibit.metadata, exhibit.metrics, view)


def _names(annotations: Sequence[str]) -> list[str]:
    """The annotations with a mark of their own, the most frequent first; the last stands for the others."""
    counts = Counter(annotations)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return [*ranked[:MOST_NAMED], OTHERS]


def _map(
    site: Site, key: tuple[str, str], points: Sequence, names: list[str], knn_precision: np.ndarray, prefix: str
) -> dict:
    network, modality = key
    marks = [
        names.index(moment["annotation"]) if moment["annotation"] in names[:-1] else len(names) - 1
        for _, _, moment in points
    ]
    used = [name for number, name in enumerate(names) if number in set(marks)] or names
    title = f"{PLURALS.get(modality, modality)}, {network_name(network)}"
    mean = _mean(knn_precision)
    chart = site.chart(
        f"embeddings-{prefix}{modality if modality in PLURALS else 'other'}-{_rank(network)}",
        lambda: scatter([p[0] for p in points], [p[1] for p in points], marks, names),
        title[:1].upper() + title[1:],
        f"Map of {len(points)} points with {len(used)} annotations; "
        f"{score(mean)} of the nearest neighbors share an annotation",
    )
    return {"id": f"{prefix}{modality}-{_rank(network)}", "chart": chart, "knn_precision": mean, "points": len(points)}


def _joint_maps(
    site: Site,
    exhibit: ExhibitOutput,
    moments: Mapping[tuple[str, int], Mapping[str, Any]],
    names: list[str],
    prefix: str,
) -> list[Chart]:
    """One map of images and audio together for each network that embeds both."""
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in exhibit.rows("embeddings_joint"):
        rows[row["network"]].append(row)
    return [
        _joint_map(site, network, rows[network], moments, names, prefix) for network in sorted(rows, key=network_rank)
    ]


def _joint_map(
    site: Site, network: str, rows: Sequence[Mapping[str, Any]], moments: Mapping, names: list[str], prefix: str
) -> Chart:
    index = {name: number for number, name in enumerate(names[:-1])}
    marks = [index.get(moments[row["clip_id"], row["moment"]]["annotation"], len(names) - 1) for row in rows]
    crossed = [row["modality"] == "audio" for row in rows]
    return site.chart(
        f"embeddings-{prefix}joint-{_rank(network)}",
        lambda: scatter([row["x"] for row in rows], [row["y"] for row in rows], marks, names, crossed),
        f"Images and audio (×) in one map, {network_name(network)}",
        f"Map of {len(rows)} points, images and audio together",
    )


def _rank(network: str) -> str:
    """The name of a network in file names."""
    return {"encoder": "trained", "wrong_sound": "wrong-sound", "random": "random"}.get(network, "other")


def _data(keys: Sequence, points: Mapping, moments: Mapping, names: list[str], prefix: str) -> dict[str, Any]:
    """The data for the page's script: marks of annotations, moments, and the points of each map by moment."""
    index = {name: number for number, name in enumerate(names[:-1])}
    others = len(names) - 1
    return {
        "looks": [(name, *point_look(number, len(names))) for number, name in enumerate(names)],
        "moments": [
            [m["file"], index.get(m["annotation"], others), m["annotation"], m["clip_id"]] for m in moments.values()
        ],
        "maps": {
            f"{prefix}{modality}-{_rank(network)}": [
                [round(x, 4), round(y, 4), moment["number"]] for x, y, moment in points[network, modality]
            ]
            for network, modality in keys
        },
    }


def _table(keys: Sequence, points: Mapping, names: list[str], knn_precision: Mapping) -> Numbers:
    """A table for readers who cannot see the maps: the precision of neighbors by annotation."""
    index = {name: number for number, name in enumerate(names[:-1])}
    others = len(names) - 1
    annotations_of = {
        key: np.array([index.get(moment["annotation"], others) for _, _, moment in points[key]]) for key in keys
    }
    rows = []
    for number, name in enumerate(names):
        count = max((int(np.sum(annotations_of[key] == number)) for key in keys), default=0)
        if count:
            rows.append(
                (name, count, *(score(_mean(knn_precision[key][annotations_of[key] == number])) for key in keys))
            )
    heads = (
        "annotation",
        "points",
        *(f"{PLURALS.get(modality, modality)}, {network_name(network)}" for network, modality in keys),
    )
    caption = "Share of the nearest neighbors in the embedding that share an annotation"
    return Numbers(caption, heads, rows, "data/explain/embeddings/embeddings.parquet")


def _mean(values: np.ndarray) -> float | None:
    """The mean of the finite values."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _lead(knn_precision: Mapping[Key, np.ndarray], metrics: Mapping[str, Any]) -> str:
    texts = []
    for modality in dict.fromkeys(modality for _, modality in knn_precision):
        networks = [network for network, of in knn_precision if of == modality]
        own, *others = (f"{score(_mean(knn_precision[name, modality]))}" for name in networks)
        beside = ", ".join(f"{network_name(name)} {each}" for name, each in zip(networks[1:], others, strict=True))
        texts.append(f"{PLURALS.get(modality, modality)} {own}{f' ({beside})' if beside else ''}")
    if not texts:
        return "There are no points."
    nearest, chance = metrics.get("nearest", "few"), score(metrics.get("chance"))
    return f"Share of the {nearest} nearest neighbors that share an annotation: {', '.join(texts)}; chance {chance}."


PAGE = Page(
    "Images and audio as points: t-SNE places moments with similar embeddings next to each other. Each map is computed "
    "separately; only the neighbors of a point have a meaning, not its position.",
    column,
    "embeddings.html",
    shows="embeddings as points",
)
