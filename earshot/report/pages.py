"""Which pages a report has, and how they are written: an overview of one run or of several, and a page an exhibit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earshot.commands.tables import DO_NOT_COMPARE
from earshot.report import clusters, embeddings, heatmaps, localisation, overview, refusals, retrieval, units
from earshot.report.columns import Column
from earshot.report.comparison import compared
from earshot.report.curves import class_charts, history_charts
from earshot.report.site import Site
from earshot.report.sources import Source


@dataclass(frozen=True)
class Page:
    """A page that shows its subject in columns, one a run.

    Args:
        title: in the navigation and at the head.
        about: what is shown, for who never saw such a page.
        column: what one run shows; the last argument begins the names of what belongs to the run alone.
    """

    title: str
    about: str
    column: Callable[[Site, Source, str], Column]


PAGES: Mapping[str, Page] = {
    "clusters": Page(
        "Clusters",
        "The labels that a network was trained to tell: clusters of the sounds around frames, found without a word of "
        "annotation. Annotations only name them here.",
        clusters.column,
    ),
    "units": Page(
        "Units",
        "What single units of the network respond to. A strip shows the frames that activate a unit most, dimmed where "
        "it does not look; a unit is selective when its top frames show one object.",
        units.column,
    ),
    "heatmaps": Page(
        "Heat maps",
        "Units whose strongest moments agree most in an annotation, and where in frames and spectrograms they respond.",
        heatmaps.column,
    ),
    "localisation": Page(
        "Localisation",
        "Where in a picture a sound comes from, by the map of the network that tells which pictures and sounds belong "
        "together. It never saw a box; boxes are drawn to compare.",
        localisation.column,
    ),
    "embeddings": Page(
        "Embeddings",
        "Pictures and sounds as points: t-SNE lays what the network finds alike side by side. Each map is made by "
        "itself; only who is next to whom means something, not where.",
        embeddings.column,
    ),
    "retrieval": Page(
        "Retrieval",
        "The clips that the network finds nearest to a clip, from one sense to the other and within each. A gain of 1 "
        "is the query's own class, less is farther away in the ontology.",
        retrieval.column,
    ),
    "refusals": Page(
        "Refusals",
        "What was left out, at which stage and why: nothing vanishes without a row.",
        refusals.column,
    ),
}
START = "index.html"


def write_report(sources: Sequence[Source], folder: Path) -> Site:
    """Write the report of a run, or of several side by side, into `folder`; all of it, or it raises.

    Raises EarshotError for metrics, tables or pictures that cannot be read.
    """
    navigation = {START: "Overview"} | {f"{name}.html": page.title for name, page in PAGES.items()}
    site = Site(folder, " | ".join(source.name for source in sources), navigation)
    prefixes = [""] if len(sources) == 1 else [f"{number}-" for number in range(1, len(sources) + 1)]
    leads: dict[str, list[Column]] = {}
    for name, page in PAGES.items():
        columns = [page.column(site, source, prefix) for source, prefix in zip(sources, prefixes, strict=True)]
        values = {"title": page.title, "about": page.about, "columns": columns, "prefixes": prefixes}
        site.write_page(f"{name}.html", f"{name}.html", **values)
        leads[name] = [Column(column.run, column.lead, column.nothing) for column in columns]
    cards = [{"file": f"{name}.html", "title": page.title, "columns": leads[name]} for name, page in PAGES.items()]
    if len(sources) == 1:
        site.write_page(START, "index.html", title="Overview", cards=cards, **_overview(site, sources[0]))
        for name, rows in overview.plot_tables(sources[0]).items():
            site.write_table(name, rows)
    else:
        site.write_page(START, "compare.html", title="Comparison", cards=cards, **compared(site, sources))
    return site


def _overview(site: Site, source: Source) -> dict[str, Any]:
    tables = overview.score_tables(source)
    beside = overview.beside_papers(source)
    return {
        "question": overview.question(source.params),
        "findings": overview.findings(source),
        "scores": overview.scores_chart(site, source, "scores"),
        "tables": tables,
        "pretext": overview.pretext_scores(source),
        "beside": beside,
        "rendered": any(each.rendered for each in beside)
        or overview.corpus_in_words(source.params) == "the rendered world",
        "do_not_compare": DO_NOT_COMPARE,
        "cell": overview.cell,
        "corpus": overview.corpus_facts(source),
        "history": history_charts(site, [source]),
        "classes": class_charts(site, source),
        "lists": overview.lists(source),
        "versions": overview.versions(),
        "parameters": overview.parameters(source.params),
    }
