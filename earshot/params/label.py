"""Parameters of the stage label: the common ones, and those that each label model declares."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from earshot.core.params import IDEA, INDIFFERENT, Group, Part, Positive, Seed, UsedIf, fields_of_each
from earshot.core.registry import find_all

MODELS = find_all("earshot.labels.models", "LABEL_MODEL")
# Used only by some label models: the number of clusters, and the description of sound.
CLUSTERED = UsedIf("label.model", *(name for name, model in MODELS.items() if model.size == "clusters"))
DESCRIBED = UsedIf("label.model", *(name for name, model in MODELS.items() if model.table is None))

Model: Any = Annotated[Literal[*MODELS], IDEA]
ClusterCount = Annotated[int, Field(ge=2, le=32767), IDEA, CLUSTERED]


class LabelBase(Group):
    """From descriptors to labels, for any label model."""

    model: str
    control: Annotated[Literal["none", "wrong-sound"], IDEA]
    memory_megabytes: Annotated[Positive, INDIFFERENT]


Label = create_model(
    "Label",
    __base__=LabelBase,
    model=(Model, ...),
    **fields_of_each({name: model.params for name, model in MODELS.items()}, "label.model"),
)


class LabelBaseParams(Part):
    """What the stage label reads, for any label model."""

    seed: Seed
    clusters: ClusterCount
    label: LabelBase


LabelParams = create_model("LabelParams", __base__=LabelBaseParams, label=(Label, ...))
