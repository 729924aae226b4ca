"""Pages of exhibits have one column per run; all columns have the same parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from earshot.report.site import Site
from earshot.report.sources import ExhibitOutput, Source


@dataclass(frozen=True)
class Column:
    """The column of one run on one page.

    Args:
        run: the run's name.
        lead: one sentence that sums up the result.
        skipped: the reason why there is nothing to display, else empty.
        metadata: words and numbers of the exhibit, by name.
        metrics: the numbers in its metrics file, by name.
        view: the values for the page's template, by name.
        network: what it shows, and the stage that made it, in words.
    """

    run: str
    lead: str
    skipped: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)
    network: str = ""


def skipped_column(run: str, exhibit: ExhibitOutput) -> Column:
    """The column of an exhibit that was skipped."""
    return Column(run, f"Skipped because {exhibit.skipped}.", exhibit.skipped, exhibit.metadata, exhibit.metrics)


@dataclass(frozen=True)
class Page:
    """A page with one column per run.

    Args:
        about: explains the page to a new reader.
        column: builds the column of a run; its last argument is the prefix of the run's file names.
        template: a file in templates/.
        shows: what it shows, as the end of a sentence.
        title: in the report; by default the exhibit's.
    """

    about: str
    column: Callable[[Site, Source, str], Column]
    template: str
    shows: str = ""
    title: str = ""


@dataclass(frozen=True)
class ExamplesPage:
    """A page that shows examples of what a benchmark measures: its title, and what it shows."""

    title: str
    shows: str
