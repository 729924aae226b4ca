"""What an exhibit is: a module of earshot/exhibits that defines EXHIBIT.

An exhibit writes its tables (earshot/explanation/tables) into a folder; what can be told in a number or a word stands
beside them as facts.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from earshot.core.params import Group
from earshot.explanation.tables import NOTHING

CONTROLS = ("wrong_sound_", "random_")  # before the name of a metric: of which network it is


@dataclass(frozen=True)
class Context:
    """What to show.

    Args:
        data_dir, encoder: the folders that the exhibit's parameters name.
        params: the exhibit's own parameters.
        seed: for whatever is drawn.
        window_s: seconds of sound around a frame.
        scenes, annotations, clips: the corpus; annotations has the ontology too.
        folder: where the exhibit's tables go; a killed exhibit finds there what it had finished.
        scratch: a folder for unfinished work.
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


@dataclass(frozen=True)
class ExhibitResult:
    """What is told of an exhibit.

    Args:
        facts: flat, words and numbers that stand beside the pictures; `nothing` says why there are none, such as for a
            network that has no map of where a sound comes from.
        metrics: flat, numbers alone, every score with its controls.
        closing: for the closing line.
    """

    metadata: dict[str, Any]
    metrics: dict[str, Any]
    closing: str


@dataclass(frozen=True)
class Exhibit:
    """An exhibit, as its module defines it.

    Args:
        title: what the report calls it.
        params: the schema of its parameters.
        make: writes the tables into the context's folder and tells of them. Raises NotApplicable where the corpus has
            nothing that it could show.
        tables: the columns of each table that it writes, by name.
        metrics: the names of its metrics, without what stands before those of a control.
    """

    title: str
    params: type[Group]
    make: Callable[[Context], ExhibitResult]
    tables: Mapping[str, pa.Schema]
    metrics: Collection[str]

    def check_metrics(self, metrics: Collection[str]) -> None:
        """Raise LookupError for a metric that the exhibit does not declare."""
        plain = {name.removeprefix(next(filter(name.startswith, CONTROLS), "")) for name in metrics}
        if unknown := plain - {*self.metrics}:
            raise LookupError(f"exhibit {self.title} does not declare the metrics {', '.join(sorted(unknown))}")


def skipped(reason: str) -> ExhibitResult:
    """The result of an exhibit that has nothing to show."""
    return ExhibitResult({NOTHING: reason}, {}, f"nothing to show: {reason}")
