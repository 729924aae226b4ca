"""The pipeline's two trainings, and the parameters of a run that belong to each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from earshot.core.params import ABSENT

Params = Mapping[str, Any]  # flat, by dotted name

SEEDS = ("seed", "sample.seed")
LABELS = "labels"  # not a parameter: the text of labels.txt, for labels that do not come from the pipeline


@dataclass(frozen=True)
class TrainingStage:
    """One of the pipeline's two trainings.

    Args:
        stage: its stage, which names its group of parameters and its folder in models/.
        plain: the default parameters of a row of a published table.
        targets: the groups and parameters that define the labels, if earlier stages write them.
    """

    stage: str
    plain: Params
    targets: tuple[str, ...] = ()

    @property
    def untrained(self) -> str:
        """The parameter that is 0 without training."""
        return f"{self.stage}.epochs"

    def is_random(self, params: Params) -> bool:
        """Whether a run has no training and starts from random weights."""
        own = {key: value for key, value in self.plain.items() if among(key, (self.stage,))}
        return params.get(self.untrained) == 0 and all(params.get(key, value) == value for key, value in own.items())


PRETRAIN = TrainingStage(
    "pretrain",
    plain={LABELS: None, "label.control": "none", "pretrain.initialization": "random", "pretrain.weights": ABSENT},
    targets=("descriptor", "texture", "clusters", "label"),
)
CORRESPOND = TrainingStage("correspond", plain={"correspond.weights": ABSENT})
TRAININGS = {training.stage: training for training in (PRETRAIN, CORRESPOND)}


def group_of(place: str) -> str:
    """The group of parameters behind metrics/<place>.json: that of a benchmark, `evaluate.voc`, or of an exhibit."""
    exhibit = place.removeprefix("explain_")
    return f"evaluate.{place}" if exhibit == place else f"explain.{exhibit}"


def among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a parameter is one of `names`, or in one of these groups."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
