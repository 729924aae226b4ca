"""Parameters of the stage label: those that all label models have, and those that each of them declares."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from earshot.core.params import IDEA, INDIFFERENT, Group, Part, Positive, Role, Seed, UsedIf
from earshot.core.registry import find_all
from earshot.labels.model import LABEL_MODELS, LabelModel

MODELS: dict[str, LabelModel] = find_all(LABEL_MODELS, "LABEL_MODEL")
# For what only some label models use: the number of clusters, and how sound is described.
CLUSTERED = UsedIf("label.model", *(name for name, model in MODELS.items() if model.size == "clusters"))
HEARD = UsedIf("label.model", *(name for name, model in MODELS.items() if model.table is None))

ClusterCount = Annotated[int, Field(ge=2, le=32767), IDEA, CLUSTERED]


class LabelBase(Group):
    """From descriptors to labels, whatever the label model."""

    model: str
    control: Annotated[Literal["none", "wrong-sound"], Role("idea", plain="none")]
    memory_megabytes: Annotated[Positive, INDIFFERENT]


def with_models(base: type[LabelBase], models: dict[str, LabelModel]) -> type[LabelBase]:
    """The group with what every label model declares; where several declare one, it is used with any of them.

    Raises TypeError where two models do not declare a parameter of one name alike.
    """
    fields: dict[str, Any] = {"model": (Annotated[Literal[*models], IDEA], ...)}
    for model in models.values():
        for key, info in model.params.model_fields.items():
            owners = [name for name, other in models.items() if key in other.params.model_fields]
            alike = all(models[owner].params.model_fields[key].asdict() == info.asdict() for owner in owners)
            if not alike or key in base.model_fields:
                raise TypeError(f"label.{key} is not declared alike by {', '.join(owners)} and all label models")
            default = ... if info.is_required() else info.default
            fields[key] = (Annotated[info.annotation, *info.metadata, UsedIf("label.model", *owners)], default)
    return create_model("Label", __base__=base, **fields)


Label = with_models(LabelBase, MODELS)


class BaseParams(Part):
    """What the stage label reads, whatever the label model."""

    seed: Seed
    clusters: ClusterCount
    label: LabelBase


Params = create_model("Params", __base__=BaseParams, label=(Label, ...))
