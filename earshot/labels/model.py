"""Label models: how one is fitted, what its labels are, and what it is fitted on."""

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

Kind = Literal["cluster", "bits"]  # of labels: the number of a cluster, or a binary code


class Fitted(Protocol):
    """A fitted label model: a dataclass of float32 tensors, in the order of `shapes`.

    If it has `centroids`, (values, d), the moments nearest to each can be displayed.
    """

    @staticmethod
    def shapes(values: int, dimensions: int) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""

    def assign(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (rows, d) to labels, int64 (rows,), and distances from the centroid, float32 (rows,) or NaN."""


@dataclass(frozen=True)
class Described:
    """The descriptor in the rows of a table from which labels are made.

    Args:
        name: such as `texture`.
        parts: groups of dimensions that are weighted separately; together they cover all dimensions.
    """

    name: str
    parts: Mapping[str, slice]

    @property
    def dimensions(self) -> int:
        """The number of dimensions of a row."""
        return max(part.stop for part in self.parts.values())


@dataclass(frozen=True)
class LabelModel:
    """A method that makes labels from a table of descriptors.

    Args:
        params: its own parameters in the group `label`. Two have a meaning for all models: with `distance_filter`,
            training leaves out moments far from their centroid; `scale` sets the weight of each dimension.
        kind: of its labels.
        fit: `fit(blocks, rows, values=..., options=..., seed=...)`: the scaled rows in blocks (any number, d), the same
            in every iteration; their total number; the number of clusters or bits; the model's own parameters. Raises
            EarshotError if the rows do not suffice.
        fitted: the dataclass that `fit` returns and whose tensors are saved.
        words: a description of a label, with {values} and {descriptor}, for the closing line.
        predicts: what a network learns to predict from frames, with the same fields, for the report.
        size: the parameter that sets the number of clusters or bits, which is also the least number of rows for a fit.
        entropy: function of labels (rows,) and the number of values, in bits.
        table: for a model that labels another table than the descriptors of sounds: `table(run, sounds, options, seed)`
            writes its shards, with a row for each moment of the shards of sounds.
        clusters_of: what the members of a cluster share, in words.
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
    """The descriptor of data/sounds, from the file that the stage describe writes to models/descriptor.

    Raises EarshotError if the file is missing or damaged.
    """
    file = folder / DESCRIPTION_FILE
    values = read_json(file, "describe")
    try:
        return Described(values["descriptor"], {name: slice(*ends) for name, ends in values["parts"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        message = f"does not name a descriptor and its parts ({error!r})"
        raise EarshotError(f"{file}: {message}; run the stage describe again") from None


def entropy(values: np.ndarray) -> float:
    """Entropy of the distribution of values, in bits: log2 of their number if all are equally frequent."""
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / max(len(values), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0
