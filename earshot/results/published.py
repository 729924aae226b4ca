"""The papers' tables as published, one file each in published/, and the match of runs with their rows.

A row is a method of the paper, which `run` identifies by its parameters, or a network of others, identified by its file
of weights: `pretrain.epochs=0` and a `pretrain.weights` with the row's name `weights`, such as
`../networks/tracking.safetensors`. A row with neither is only quoted.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from earshot.core.yaml_files import read_yaml
from earshot.results.trainings import TRAININGS, Params, TrainingStage, group_of

FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table: its published scores in percent (None if missing), and the parameters of its runs."""

    name: str
    scores: tuple[float | None, ...]
    run: Params | None = None
    weights: str | None = None
    recipe: str | None = None

    def knows(self, params: Params, training: TrainingStage) -> bool:
        """Whether a run with these parameters belongs to this row."""
        untrained = params.get(training.untrained) == 0
        if self.weights:
            return untrained and PurePath(str(params.get("pretrain.weights"))).stem == self.weights
        if self.run is None or untrained != (training.untrained in self.run):
            return False
        return all(params.get(key) == value for key, value in {**training.plain, **self.run}.items())


@dataclass(frozen=True)
class PublishedTable:
    """A table.

    Args:
        recipe: that of the paper's own size.
        columns: the key of a run's score, by the column's title.
        classes: whether each column is a class; on a dataset with other classes, those are the columns.
        sweep: the parameter that a sweep varies, then the parameter that distinguishes its curves.
        among: the parameters that a run must have to be in the table.
        trained: the stage whose networks are measured.
    """

    name: str
    title: str
    source: str
    recipe: str
    columns: dict[str, str]
    rows: tuple[PublishedRow, ...]
    note: str = ""
    classes: bool = False
    sweep: tuple[str, ...] = ()
    among: Params | None = None
    trained: str = "pretrain"

    @property
    def training(self) -> TrainingStage:
        """The training of the table's networks."""
        return TRAININGS[self.trained]

    @property
    def benchmarks(self) -> set[str]:
        """The benchmarks of the table's scores."""
        return {key.partition(".")[0].removesuffix("_classes") for key in self.columns.values()}

    def admits(self, params: Params) -> bool:
        """Whether a run with these parameters may be in the table, which has networks of one stage."""
        if any(params.get(f"{group_of(name)}.encoder", self.encoder) != self.encoder for name in self.benchmarks):
            return False
        required = {**self.training.plain, **self.among} if self.among else {}
        trained = not self.among or params.get(self.training.untrained) != 0
        return trained and all(params.get(key) == value for key, value in required.items())

    @property
    def encoder(self) -> str:
        """The folder of the encoders that its benchmarks measure."""
        return f"models/{self.trained}"

    def row_of(self, params: Params) -> PublishedRow | None:
        """The row of a run with these parameters, if any."""
        return next((row for row in self.rows if row.knows(params, self.training)), None)


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables, sorted by name."""
    return tuple(_read(file) for file in sorted(FOLDER.glob("*.yaml")))


def _read(file: Path) -> PublishedTable:
    values: dict[str, Any] = read_yaml(file)
    rows = tuple(PublishedRow(**{**row, "scores": tuple(row["scores"])}) for row in values.pop("rows"))
    sweep = tuple(values.pop("sweep", ()))
    return PublishedTable(name=file.stem, rows=rows, sweep=sweep, **values)
