"""Write a report: an overview of one run or several, a page per exhibit, and the clips."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from earshot.core.registry import find_all
from earshot.report import clips, generic, glossary, overview, paper
from earshot.report.columns import Column, ExamplesPage, Page
from earshot.report.comparison import compared
from earshot.report.curves import class_charts, history_charts
from earshot.report.site import Site
from earshot.report.sources import Source
from earshot.results.network_names import encoder_in_words
from earshot.results.paper_tables import DO_NOT_COMPARE
from earshot.results.verdicts import LEGEND, answers

START, SUMMARY, CLIPS = "index.html", "summary.html", "clips"


def write_report(sources: Sequence[Source], folder: Path) -> Site:
    """Write the report of a run, or of several side by side, into `folder`.

    Raises EarshotError for metrics, tables or images that cannot be read.
    """
    pages = pages_of(sources)
    titles = {name: title_of(name, page, sources) for name, page in pages.items()} | {CLIPS: "Clips"}
    navigation = {START: "Overview"} | {f"{name}.html": title for name, title in titles.items()}
    navigation |= {glossary.FILE: "Words"}
    if len(sources) == 1:
        navigation |= {paper.FILE: "Figures", SUMMARY: "Summary"}
    site = Site(folder, " | ".join(source.title for source in sources), navigation)
    prefixes = [""] if len(sources) == 1 else [f"{number}-" for number in range(1, len(sources) + 1)]
    examples = {name: ExamplesPage(titles[name], page.shows) for name, page in pages.items()}
    cards = []
    for name, page in (pages | {CLIPS: clips.PAGE}).items():
        columns = [
            replace(page.column(site, source, prefix), network=encoder_in_words(source.params, f"explain.{name}"))
            for source, prefix in zip(sources, prefixes, strict=True)
        ]
        values = {"title": titles[name], "about": page.about, "columns": columns, "prefixes": prefixes}
        site.write_page(f"{name}.html", page.template, **values)
        leads = [Column(column.run, column.lead, column.skipped) for column in columns]
        cards.append({"file": f"{name}.html", "title": titles[name], "columns": leads})
    site.write_page(glossary.FILE, "glossary.html", title="Words", terms=glossary.TERMS, anchor=glossary.anchor)
    if len(sources) == 1:
        site.write_page(START, "index.html", title="Overview", cards=cards, **_overview(site, sources[0], examples))
        site.write_page(SUMMARY, "summary.html", title="Summary", **_summary(site, sources[0], examples))
        figures, tables = paper.paper_figures(site, sources[0]), paper.paper_tables(site, sources[0])
        site.write_page(paper.FILE, "figures.html", title="Figures", figures=figures, tables=tables)
        for name, rows in overview.plot_tables(sources[0]).items():
            site.write_table(name, rows)
    else:
        site.write_page(START, "compare.html", title="Comparison", cards=cards, **compared(site, sources, examples))
    return site


def pages_of(sources: Sequence[Source]) -> dict[str, Page]:
    """The pages by exhibit: those of the runs in the order of their parameters, then the other known ones."""
    known = find_all("earshot.report.pages", "PAGE")
    keys = [key.split(".") for source in sources for key in source.params]
    listed = dict.fromkeys(parts[1] for parts in keys if parts[0] == "explain" and len(parts) > 2)
    return {name: known.get(name) or generic.page(name) for name in [*listed, *sorted(known.keys() - listed)]}


def title_of(name: str, page: Page, sources: Sequence[Source]) -> str:
    """The title of a page: its own, or that of the exhibit if a run has it, else the exhibit's name."""
    titles = [page.title, *(source.exhibit(name).title for source in sources)]
    return next(filter(None, titles), name.capitalize())


def _summary(site: Site, source: Source, examples: Mapping[str, ExamplesPage]) -> dict[str, Any]:
    """The values of the page for a meeting."""
    return {
        "run": source.title,
        "summary": overview.run_summary(source.params, source.labels),
        "verdicts": overview.verdicts(source, examples),
        "answer": answers(source.findings.values()),
        "legend": LEGEND,
        "made_by": paper.made_by(source),
        "drawn": bool(source.grids),
        "rendered": overview.is_rendered_run(source),
        "do_not_compare": DO_NOT_COMPARE,
    }


def _overview(site: Site, source: Source, examples: Mapping[str, ExamplesPage]) -> dict[str, Any]:
    tables = overview.score_tables(source)
    beside = overview.beside_papers(source)
    return {
        "summary": overview.run_summary(source.params, source.labels),
        "verdicts": overview.verdicts(source, examples),
        "answer": answers(source.findings.values()),
        "legend": LEGEND,
        "scores": overview.scores_chart(site, source, "scores"),
        "tables": tables,
        "pretext": overview.pretext_scores(source),
        "beside": beside,
        "rendered": overview.is_rendered_run(source),
        "run": source.title,
        "do_not_compare": DO_NOT_COMPARE,
        "cell": overview.cell,
        "corpus": overview.corpus_metadata(source),
        "history": history_charts(site, [source]),
        "classes": class_charts(site, source),
        "lists": overview.lists(source),
        "versions": overview.versions(),
        "parameters": overview.parameters(source.params),
    }
