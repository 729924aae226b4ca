"""Parameters of the stage label: those that all label models have, and those that each of them declares."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, create_model

from earshot.core.params import IDEA, INDIFFERENT, Group, Part, Positive, Role, Seed, UsedIf
from earshot.core.registry import find_all

ClusterCount = Annotated[int, Field(ge=2, le=32767)]


class LabelBase(Group):
    """From descriptors to labels."""

    model: Annotated[str, IDEA]
    control: Annotated[Literal["none", "wrong-sound"], Role("idea", plain="none")]
    memory_megabytes: Annotated[Positive, INDIFFERENT]


def with_models(base: type[LabelBase]) -> type[LabelBase]:
    """The group with what every label model declares; where several declare one, it is used with any of them."""
    owners: dict[str, list[str]] = {}
    fields: dict[str, tuple[type, object]] = {}
    for name, model in find_all("earshot.labels.models", "LABEL_MODEL").items():
        own: type[BaseModel] = model.params
        for key, info in own.model_fields.items():
            owners.setdefault(key, []).append(name)
            fields[key] = (own.__annotations__[key], info)
    return create_model("Label", __base__=base, **{
        key: (Annotated[info.annotation, *info.metadata, UsedIf("label.model", *owners[key])], ...)
        for key, (_, info) in fields.items()
    })  # fmt: skip


Label = with_models(LabelBase)


class Params(Part):
    """What the stage label reads."""

    seed: Seed
    descriptor: str
    clusters: Annotated[ClusterCount, IDEA]
    label: Label
