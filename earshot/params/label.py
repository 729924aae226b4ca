"""Parameters of the stage label: those that all label models have, and those that each of them declares."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from earshot.core.params import IDEA, INDIFFERENT, Group, Part, Positive, Seed, UsedIf, fields_of_each
from earshot.core.registry import find_all
from earshot.labels.model import LABEL_MODELS, LabelModel

MODELS: dict[str, LabelModel] = find_all(LABEL_MODELS, "LABEL_MODEL")
NAME: Any = Annotated[Literal[*MODELS], IDEA]
# For what only some label models use: the number of clusters, and how sound is described.
CLUSTERED = UsedIf("label.model", *(name for name, model in MODELS.items() if model.size == "clusters"))
HEARD = UsedIf("label.model", *(name for name, model in MODELS.items() if model.table is None))

ClusterCount = Annotated[int, Field(ge=2, le=32767), IDEA, CLUSTERED]


class LabelBase(Group):
    """From descriptors to labels, whatever the label model."""

    model: str
    control: Annotated[Literal["none", "wrong-sound"], IDEA]
    memory_megabytes: Annotated[Positive, INDIFFERENT]


Label = create_model(
    "Label",
    __base__=LabelBase,
    model=(NAME, ...),
    **fields_of_each({name: model.params for name, model in MODELS.items()}, "label.model"),
)


class BaseParams(Part):
    """What the stage label reads, whatever the label model."""

    seed: Seed
    clusters: ClusterCount
    label: LabelBase


Params = create_model("Params", __base__=BaseParams, label=(Label, ...))
