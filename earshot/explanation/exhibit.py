"""The interface of an exhibit: a module of earshot/exhibits that defines EXHIBIT.

An exhibit writes its tables (earshot/explanation/tables) into a folder, and returns metadata and metrics.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from earshot.core.params import Group
from earshot.explanation.tables import SKIPPED

CONTROLS = ("wrong_sound_", "random_")  # prefixes of metrics of the control networks


@dataclass(frozen=True)
class ExhibitContext:
    """The inputs and outputs of an exhibit.

    Args:
        data_dir, encoder: the folders named in the exhibit's parameters.
        params: the exhibit's own parameters.
        seed: for random draws.
        window_s: seconds of sound around a frame.
        scenes, annotations, clips: the corpus; the folder annotations also holds the ontology.
        folder: where the exhibit writes its tables; after a crash it still holds the finished ones.
        scratch: a folder for unfinished work.
        follow_links: folders outside to which links in `clips` may lead.
    """

    data_dir: Path
    encoder: Path
    params: Any
    seed: int
    window_s: float
    scenes: Path
    annotations: Path
    clips: Path
    folder: Path
    scratch: Path
    follow_links: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ExhibitResult:
    """The result of an exhibit, beside its tables.

    Args:
        metadata: flat words and numbers; `skipped` gives the reason if there are no tables, such as a network
            without localization maps.
        metrics: flat numbers, every score with its controls.
        closing: the text of the closing line.
    """

    metadata: dict[str, Any]
    metrics: dict[str, Any]
    closing: str


@dataclass(frozen=True)
class Exhibit:
    """An exhibit, as its module defines it.

    Args:
        title: its name in the report.
        params: the schema of its parameters.
        make: writes the tables into the context's folder. Raises NotApplicable if the corpus has nothing to display.
        tables: the columns of each table, by name.
        metrics: the names of its metrics, without the prefixes of controls.
    """

    title: str
    params: type[Group]
    make: Callable[[ExhibitContext], ExhibitResult]
    tables: Mapping[str, pa.Schema]
    metrics: Collection[str]

    def check_metrics(self, metrics: Collection[str]) -> None:
        """Raise LookupError for a metric that the exhibit does not declare."""
        plain = {name.removeprefix(next(filter(name.startswith, CONTROLS), "")) for name in metrics}
        if unknown := plain - {*self.metrics}:
            raise LookupError(f"exhibit {self.title} does not declare the metrics {', '.join(sorted(unknown))}")


def skipped(reason: str) -> ExhibitResult:
    """The result of an exhibit that has nothing to display."""
    return ExhibitResult({SKIPPED: reason}, {}, f"skipped because {reason}")
