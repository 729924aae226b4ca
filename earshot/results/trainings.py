"""The pipeline's two trainings, as tables of results know them: what stands for them among a run's parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from earshot.core.params import ABSENT

Params = Mapping[str, Any]  # flat, by dotted name

SEEDS = ("seed", "sample.seed")
LABELS = "labels"  # no parameter: where labels are none that the pipeline makes, what they are, from labels.txt


@dataclass(frozen=True)
class Training:
    """One of the pipeline's two trainings.

    Args:
        stage: of which it is the work; the group of its parameters, and its folder in models/.
        plain: what a row of a published table does unless it says otherwise.
        targets: the groups and parameters that say what it learns to predict, where stages before it make that.
    """

    stage: str
    plain: Params
    targets: tuple[str, ...] = ()

    @property
    def untrained(self) -> str:
        """The parameter that is 0 where nothing was trained."""
        return f"{self.stage}.epochs"

    def is_random(self, params: Params) -> bool:
        """Whether nothing was trained, nor begun with anything but random weights."""
        own = {key: value for key, value in self.plain.items() if among(key, (self.stage,))}
        return params.get(self.untrained) == 0 and all(params.get(key, value) == value for key, value in own.items())


PRETRAIN = Training(
    "pretrain",
    plain={LABELS: None, "label.control": "none", "pretrain.initialization": "random", "pretrain.weights": ABSENT},
    targets=("descriptor", "texture", "clusters", "label"),
)
CORRESPOND = Training("correspond", plain={"correspond.weights": ABSENT})
TRAININGS = {training.stage: training for training in (PRETRAIN, CORRESPOND)}


def among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a parameter is one of these, or in one of these groups."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
