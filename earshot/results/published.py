"""The papers' tables as published, a file each in published/, and how a run is known to be one of their rows.

A row is the paper's own idea, which `run` tells by its parameters, or somebody else's network, which fills the row when
a file of its weights is evaluated: `pretrain.epochs=0` and a `pretrain.weights` named by the row's word `weights`, as
`../networks/tracking.safetensors`. A row that has neither can only be quoted.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from earshot.core.yaml_files import read_yaml
from earshot.results.trainings import TRAININGS, Params, Training

FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Row:
    """A row of a table: its published scores in per cent (None where there is none), and what a run of it is."""

    name: str
    scores: tuple[float | None, ...]
    run: Params | None = None
    weights: str | None = None
    recipe: str | None = None

    def knows(self, params: Params, training: Training) -> bool:
        """Whether a run with these parameters is one of this row."""
        untrained = params.get(training.untrained) == 0
        if self.weights:
            return untrained and PurePath(str(params.get("pretrain.weights"))).stem == self.weights
        if self.run is None or untrained != (training.untrained in self.run):
            return False
        return all(params.get(key) == value for key, value in {**training.plain, **self.run}.items())


@dataclass(frozen=True)
class Published:
    """A table.

    Args:
        recipe: the paper's own size.
        columns: the key of a run's score, by the column's title.
        classes: whether a column is a class, and so others stand for them on a tree with other classes.
        sweep: what the rows differ by beside ideas: the parameter that a sweep varies, and what its curves are told by.
        among: what a run must be to stand in the table at all.
        trained: the stage whose networks are measured.
    """

    name: str
    title: str
    source: str
    recipe: str
    columns: dict[str, str]
    rows: tuple[Row, ...]
    note: str = ""
    classes: bool = False
    sweep: tuple[str, ...] = ()
    among: Params | None = None
    trained: str = "pretrain"

    @property
    def training(self) -> Training:
        """That of which the table shows networks."""
        return TRAININGS[self.trained]

    @property
    def benchmarks(self) -> set[str]:
        """The benchmarks whose scores the table shows."""
        return {key.partition(".")[0].removesuffix("_classes") for key in self.columns.values()}

    def admits(self, params: Params) -> bool:
        """Whether a run with these parameters may stand in the table, which shows what one stage trained."""
        if any(params.get(f"evaluate.{name}.encoder", self.encoder) != self.encoder for name in self.benchmarks):
            return False
        wanted = {**self.training.plain, **self.among} if self.among else {}
        trained = not self.among or params.get(self.training.untrained) != 0
        return trained and all(params.get(key) == value for key, value in wanted.items())

    @property
    def encoder(self) -> str:
        """What its benchmarks measure."""
        return f"models/{self.trained}"

    def row_of(self, params: Params) -> Row | None:
        """The row that a run with these parameters is of."""
        return next((row for row in self.rows if row.knows(params, self.training)), None)


@cache
def published_tables() -> tuple[Published, ...]:
    """All tables, in the order of their names."""
    return tuple(_read(file) for file in sorted(FOLDER.glob("*.yaml")))


def _read(file: Path) -> Published:
    values: dict[str, Any] = read_yaml(file)
    rows = tuple(Row(**{**row, "scores": tuple(row["scores"])}) for row in values.pop("rows"))
    sweep = tuple(values.pop("sweep", ()))
    return Published(name=file.stem, rows=rows, sweep=sweep, **values)
