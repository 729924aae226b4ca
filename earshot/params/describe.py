"""Parameters of the stage describe."""

from typing import Annotated

from earshot.core.params import IDEA, Amount, Part, UsedIf
from earshot.sound.texture import TextureOptions

Descriptor = Annotated[str, IDEA]
Texture = Annotated[TextureOptions, UsedIf("descriptor", "texture")]


class Window(Part):
    """The sound around a moment, as extract keeps it."""

    window: Amount
    shortest: Amount


class Params(Part):
    """What the stage describe reads."""

    descriptor: Descriptor
    texture: Texture
    extract: Window
