"""The clusters of sounds: one page for all, and one page each with its nearest moments and its centroid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.figures import CentroidCharts, sizes
from earshot.report.site import Chart, Numbers, ReportImage, Site, score, share
from earshot.report.sources import ExhibitOutput, Source

OVERVIEW = ["cluster", "moments", "trained_on", "split_moments", "annotations", "shares"]
CENTROID = ["cluster", "mean", "spread", "correlation", "modulation", "frequencies", "rates"]
CLUSTERS_OF = "clusters_of"  # key of the metadata: what a cluster groups
NEXT_TO = 2  # clusters before and after that a page links to


@dataclass
class ClusterCard:
    """A cluster on the overview.

    Args:
        tags: its most frequent annotations in the exhibit's split, and the shares of its moments there that have them.
        split_moments: its moments in that split.
        frame: of the moment nearest to its centroid.
        page: its file.
    """

    number: int
    moments: int
    trained_on: int
    split_moments: int
    share: float
    tags: list[tuple[str, float]]
    page: str
    frame: ReportImage | None = None

    @property
    def purity(self) -> float:
        """The share of its moments with its most frequent annotation; 0 without annotations."""
        return self.tags[0][1] if self.tags else 0.0


def column(site: Site, source: Source, prefix: str) -> Column:
    """The overview of a run's clusters; also writes the page of each."""
    exhibit = source.exhibit("clusters")
    if exhibit.skipped:
        return skipped_column(source.name, exhibit)
    clusters, split = _overview(exhibit, prefix), _split_of(exhibit)
    charts: CentroidCharts | None = None
    for place, (row, moments) in enumerate(_with_moments(exhibit)):
        cluster = clusters[place]
        displayed = [_moment(site, moment) for moment in moments]
        cluster.frame = next((moment["frame"] for moment in displayed), None)
        neighbors = [each for each in clusters[max(place - NEXT_TO, 0) : place + NEXT_TO + 1] if each is not cluster]
        values = {
            "cluster": cluster,
            "moments": displayed,
            "neighbors": neighbors,
            "run": source.name,
            "split": split,
            "clusters": len(clusters),
        }
        if row["mean"] and charts is None:  # the same for all clusters
            charts = CentroidCharts(np.array(row["frequencies"]), np.array(row["rates"]))
        drawn = _centroid_charts(site, charts, row, f"cluster-{prefix}{cluster.number}") if charts else []
        site.write_page(cluster.page, "cluster.html", title=f"Cluster {cluster.number}", charts=drawn, **values)
    classes = sorted({cluster.tags[0][0] for cluster in clusters if cluster.tags})
    chart = _sizes_chart(site, clusters, prefix, split)
    view = {"clusters": clusters, "classes": classes, "chart": chart, "split": split}
    metadata = {name: value for name, value in exhibit.metadata.items() if name != CLUSTERS_OF}
    return Column(source.name, _lead(clusters, exhibit), "", metadata, exhibit.metrics, view)


def _split_of(exhibit: ExhibitOutput) -> str:
    return str(exhibit.metadata.get("split", "test"))


def _overview(exhibit: ExhibitOutput, prefix: str) -> list[ClusterCard]:
    rows = [*exhibit.rows("clusters", OVERVIEW)]
    total = max(sum(row["moments"] for row in rows), 1)
    return [
        ClusterCard(
            number=row["cluster"],
            moments=row["moments"],
            trained_on=row["trained_on"],
            split_moments=row["split_moments"],
            share=row["moments"] / total,
            tags=[*zip(row["annotations"] or (), row["shares"] or (), strict=True)],
            page=f"clusters/{prefix}{row['cluster']}.html",
        )
        for row in rows
    ]


def _with_moments(exhibit: ExhibitOutput) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """The centroid of each cluster with its nearest moments; one cluster in memory at a time."""
    groups = groupby(exhibit.rows("cluster_moments"), key=lambda row: row["cluster"])
    number, moments = next(groups, (None, iter(())))
    for row in exhibit.rows("clusters", CENTROID):
        if row["cluster"] != number:
            yield row, []
            continue
        yield row, [*moments]
        number, moments = next(groups, (None, iter(())))


def _moment(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    of = f"cluster_moments.parquet, cluster {row['cluster']}, rank {row['rank']}"
    cochleagram = site.image(row["cochleagram"], of) if row["cochleagram"] else None
    media = {"frame": site.image(row["frame"], of), "cochleagram": cochleagram, "sound": site.sound(row["sound"])}
    return {key: row[key] for key in ("clip_id", "moment", "annotations", "distance", "seconds")} | media


def _centroid_charts(site: Site, charts: CentroidCharts, row: Mapping[str, Any], name: str) -> list[Chart]:
    """The charts of a centroid."""
    hertz = [f"{frequency:,.0f}" for frequency in charts.frequencies]
    numbers = Numbers(
        "By channel", ("Hz", "mean", "relative spread"), [*zip(hertz, row["mean"], row["spread"], strict=True)]
    )
    loudest = hertz[int(np.argmax(row["mean"]))]
    text = f"mean of the envelope by frequency with its spread, largest at {loudest} Hz"
    rate = f"{charts.rates[int(np.argmax(np.sum(np.reshape(row['modulation'], (len(hertz), -1)), 0)))]:.2g}"
    mean = lambda: charts.mean(row["mean"], row["spread"])  # noqa: E731
    return [
        site.chart(f"{name}-mean", mean, "Mean and spread by frequency", f"Line: {text}", numbers),
        site.chart(
            f"{name}-correlation",
            lambda: charts.correlation(row["correlation"]),
            "Correlation of channels",
            "Image: correlation of the envelopes of channels, by their frequencies",
        ),
        site.chart(
            f"{name}-modulation",
            lambda: charts.modulation(row["modulation"]),
            "Modulation of each channel",
            f"Image: modulation power by channel and rate, in total largest near {rate} Hz",
        ),
    ]


def _sizes_chart(site: Site, clusters: Sequence[ClusterCard], prefix: str, split: str) -> Chart:
    ranked = sorted(clusters, key=lambda cluster: (-cluster.moments, cluster.number))
    shares, purities = [c.share for c in ranked], [c.purity for c in ranked]
    rows = [
        (c.number, c.moments, share(c.share), c.tags[0][0] if c.tags else "", share(p))
        for c, p in zip(ranked, purities, strict=True)
    ]
    columns = ("cluster", "moments", "share", "first annotation", f"share with it, split {split}")
    return site.chart(
        f"clusters-{prefix}sizes",
        lambda: sizes([c.number for c in ranked], shares, purities, "the first annotation"),
        "Clusters by size",
        f"Bars: the share of moments of {len(ranked)} clusters, from {share(shares[0])} to {share(shares[-1])}, "
        f"and the part of each that has its most frequent annotation, by the split {split}",
        Numbers("Clusters by size", columns, rows, "data/explain/clusters/clusters.parquet"),
    )


def _lead(clusters: Sequence[ClusterCard], exhibit: ExhibitOutput) -> str:
    moments, largest = sum(c.moments for c in clusters), max((c.share for c in clusters), default=0.0)
    what = exhibit.metadata.get(CLUSTERS_OF, "moments")
    text = f"{len(clusters)} clusters of {what} hold {moments:,} moments; the largest has {share(largest)} of them."
    pure, present = sum(c.purity >= 0.5 for c in clusters), sum(c.split_moments > 0 for c in clusters)
    split = f"the split {_split_of(exhibit)}"
    text += " Clustering used no annotations."
    text += f" In {pure} of the {present} clusters with moments of {split}, at least half have the same annotation."
    if {"purity", "chance"} <= exhibit.metrics.keys():
        purity, chance = (score(exhibit.metrics[name]) for name in ("purity", "chance"))
        text += f" Purity, the share of these moments with the most frequent annotation of their cluster, is {purity}; "
        text += f"with shuffled annotations (chance) it is {chance}."
    return text


PAGE = Page(
    "The labels that a network learns to predict: clusters of the sounds around frames. Clustering uses no "
    "annotations; they only describe the clusters here.",
    column,
    "clusters.html",
    shows="the groups of sounds that this descriptor makes",
)
