"""A page shows its subject in columns, one a run; what all columns have is the same, whatever the subject."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from earshot.report.site import Site
from earshot.report.sources import Exhibit, Source


@dataclass(frozen=True)
class Column:
    """What one run shows on one page.

    Args:
        run: the run's name.
        lead: one sentence of what was learned.
        nothing: why there is nothing to show; empty where there is.
        facts: words and numbers of the exhibit, by name.
        metrics: the numbers of its file in metrics/, by name.
        view: what the page's template shows, by name.
    """

    run: str
    lead: str
    nothing: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)


def nothing_to_display(run: str, exhibit: Exhibit) -> Column:
    """The column of an exhibit that has nothing to show."""
    return Column(run, f"Nothing to show: {exhibit.nothing}.", exhibit.nothing, exhibit.metadata, exhibit.metrics)


@dataclass(frozen=True)
class Page:
    """A page that shows its subject in columns, one a run.

    Args:
        about: what is shown, for who never saw such a page.
        column: what one run shows; the last argument begins the names of what belongs to the run alone.
        template: of templates/.
    """

    about: str
    column: Callable[[Site, Source, str], Column]
    template: str
