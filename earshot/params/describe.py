"""Parameters of the stage describe: those of all descriptors, and a group for each that has options of its own."""

from typing import Annotated, Any, Literal

from pydantic import create_model

from earshot.core.params import IDEA, Amount, Part, UsedIf
from earshot.core.registry import find_all
from earshot.sound.description import DESCRIPTORS
from earshot.sound.texture import TextureOptions

ALL = find_all(DESCRIPTORS, "DESCRIPTOR")
Descriptor: Any = Annotated[Literal[*ALL], IDEA]
Texture = Annotated[TextureOptions, UsedIf("descriptor", "texture")]


class Window(Part):
    """The sound around a moment, as extract keeps it."""

    window: Amount
    shortest: Amount


class BaseParams(Part):
    """What the stage describe reads, whatever the descriptor."""

    descriptor: str
    texture: Texture  # its cochlea is that of all descriptors
    extract: Window


# The groups of params.yaml that descriptors declare, beside that of the texture.
GROUPS: dict[str, Any] = {
    name: (Annotated[descriptor.params, UsedIf("descriptor", name)], ...)
    for name, descriptor in ALL.items()
    if descriptor.params and name != "texture"
}


Params = create_model("Params", __base__=BaseParams, descriptor=(Descriptor, ...), **GROUPS)
