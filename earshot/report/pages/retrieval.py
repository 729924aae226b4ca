"""Retrieval: the nearest clips to some clips in four directions, trained and random."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.figures import network_name, network_rank
from earshot.report.site import Numbers, Site
from earshot.report.sources import Source

DIRECTIONS = ("image-to-audio", "audio-to-image", "image-to-image", "audio-to-audio")


def column(site: Site, source: Source, prefix: str) -> Column:
    """The queries of a run with their nearest clips, by direction and query, one row per network."""
    exhibit = source.exhibit("retrieval")
    if exhibit.skipped:
        return skipped_column(source.name, exhibit)
    clips = {row["clip_id"]: _clip(site, row) for row in exhibit.rows("retrieval_clips")}
    results: dict[str, dict[str, dict[str, list]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in exhibit.rows("retrieval_results"):
        results[row["direction"]][row["query"]][row["network"]].append((clips[row["result"]], row["gain"]))
        gains[row["direction"], row["network"]].append(row["gain"])
    networks = sorted({network for _, network in gains}, key=network_rank)
    directions = [each for each in DIRECTIONS if each in results]
    view = {
        "directions": [_direction(name, results[name], clips, networks) for name in directions],
        "gains": _gains(gains, directions, networks),
    }
    return Column(source.name, _lead(gains, directions), "", exhibit.metadata, exhibit.metrics, view)


def _clip(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {name: site.image(row[name], "retrieval_clips.parquet") for name in ("frame", "spectrogram")}
    return {"clip_id": row["clip_id"], "annotations": row["annotations"], "sound": site.sound(row["sound"]), **media}


def _direction(name: str, queries: Mapping[str, Any], clips: Mapping[str, Any], networks: list[str]) -> dict[str, Any]:
    query_modality, _, result_modality = name.partition("-to-")
    queries_with_results = [
        {"clip": clips[query], "rows": [(network_name(n), of[n]) for n in networks if n in of]}
        for query, of in queries.items()
    ]
    return {
        "name": name.replace("-", " "),
        "query_modality": query_modality,
        "result_modality": result_modality,
        "queries": queries_with_results,
    }


def _gains(gains: Mapping[tuple[str, str], list[float]], directions: list[str], networks: list[str]) -> Numbers:
    rows = []
    for direction in directions:
        means = [gains.get((direction, network)) for network in networks]
        rows.append((direction.replace("-", " "), *(round(statistics.mean(m), 3) if m else None for m in means)))
    heads = ("direction", *map(network_name, networks))
    return Numbers("Mean gain of the results", heads, rows, "data/explain/retrieval/retrieval_results.parquet")


def _lead(gains: Mapping[tuple[str, str], list[float]], directions: list[str]) -> str:
    across = [name for name in directions if name.partition("-to-")[0] != name.partition("-to-")[2]]
    texts = []
    for direction in across:
        means = {n: statistics.mean(of) for (where, n), of in gains.items() if where == direction}
        if "encoder" in means:
            own = means.pop("encoder")
            beside = ", ".join(f"{network_name(n)} {means[n]:.3f}" for n in sorted(means, key=network_rank))
            texts.append(f"{direction.replace('-', ' ')} {own:.3f}{f' ({beside})' if beside else ''}")
    return (
        f"Mean gain of the results below, where 1 is the query's own class: {'; '.join(texts)}."
        if texts
        else "Nearest clips."
    )


PAGE = Page(
    "The clips with the embeddings nearest to that of a query, across and within modalities. A gain of 1 is the "
    "query's own class, a lower one is farther away: max(C − d, 0) / C, where d is the distance of two classes in "
    "the ontology, and C the largest of any two. The tested score is another one: nDCG over all queries.",
    column,
    "retrieval.html",
    shows="the nearest clips to a few queries",
)
