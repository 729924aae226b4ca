"""What a label model is: how it is fitted, what its labels are, and what it is fitted on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.json_files import read_json
from earshot.core.params import Group
from earshot.pipeline.stage import StageContext

LABEL_MODELS = "earshot.labels.models"
DESCRIPTION_FILE = "descriptor.json"  # of the stage describe

Kind = Literal["cluster", "bits"]  # of labels: the number of one of so many clusters, or a code of so many bits


class Fitted(Protocol):
    """What a fit gives: a dataclass of float32 tensors, in the order of `shapes`.

    One that has `centroids`, (values, d), can be displayed by the moments nearest to each.
    """

    @staticmethod
    def shapes(values: int, dimensions: int) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""

    def assign(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (rows, d) to labels, int64 (rows,), and distances from the centroid, float32 (rows,) or NaN."""


@dataclass(frozen=True)
class Described:
    """What the rows of a table are that labels are made of.

    Args:
        name: such as `texture`.
        parts: the dimensions that are weighed against each other; together they are all.
    """

    name: str
    parts: Mapping[str, slice]

    @property
    def dimensions(self) -> int:
        """Of a row."""
        return max(part.stop for part in self.parts.values())


@dataclass(frozen=True)
class LabelModel:
    """A way to make labels of a table of descriptors.

    Args:
        params: its own parameters in the group `label`. Two have a meaning for all models: with `distance_filter`,
            training leaves out moments far from their centroid; `scale` says how much each dimension counts.
        kind: of its labels.
        fit: `fit(rows, count, values=..., options=..., seed=...)`: the rows in blocks (any number, d), scaled, the
            same ones in every iteration; how many; clusters or bits; the model's own parameters. It raises EarshotError
            where it cannot be fitted on them.
        fitted: the dataclass that `fit` gives and that is saved tensor by tensor.
        words: what a label is, with {values} and {descriptor}, for the closing line.
        predicts: what a network learns to predict of frames, with the same, for the report.
        size: the parameter that says how many clusters or bits, and so how many rows a fit needs at least.
        entropy: of labels (rows,) of so many values, in bits.
        table: for a model that does not label the descriptors of sounds: writes the shards of another table, a row a
            moment of the shards of sounds, `table(run, sounds, options, seed)`.
        clusters_of: what is alike in a cluster, in words.
    """

    params: type[Group]
    kind: Kind
    fit: Callable[..., Fitted]
    fitted: type[Fitted]
    words: str
    predicts: str
    size: str = "clusters"
    entropy: Callable[[np.ndarray, int], float] = lambda labels, values: entropy(labels)
    table: Callable[[StageContext, list[Path], Any, int], tuple[list[Path], Described]] | None = None
    clusters_of: str = "what is heard"

    def own(self, label: Group) -> Group:
        """The model's own parameters among those of the group `label`."""
        return self.params.model_validate({name: getattr(label, name) for name in self.params.model_fields})


def read_described(folder: Path) -> Described:
    """What the descriptors of data/sounds are, as the stage describe keeps it in models/descriptor.

    Raises EarshotError where its file is missing or damaged.
    """
    file = folder / DESCRIPTION_FILE
    values = read_json(file, "describe")
    try:
        return Described(values["descriptor"], {name: slice(*ends) for name, ends in values["parts"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        found = f"says no descriptor and its parts ({error!r})"
        raise EarshotError(f"{file}: {found}; run the stage describe again") from None


def entropy(values: np.ndarray) -> float:
    """In bits, of how often each value is there: log2 of their number where all are equally frequent."""
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / max(len(values), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0
