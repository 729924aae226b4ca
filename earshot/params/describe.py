"""Parameters of the stage describe: those of all descriptors, and the group of options that each of them declares."""

from typing import Annotated, Any, Literal

from pydantic import create_model

from earshot.core.params import IDEA, Amount, Part, UsedIf
from earshot.core.registry import find_all

DESCRIPTORS = find_all("earshot.sound.descriptors", "DESCRIPTOR")
Descriptor: Any = Annotated[Literal[*DESCRIPTORS], IDEA]
# By name; that of the texture is the cochlea's too, which all descriptors share.
OPTIONS: dict[str, Any] = {
    name: Annotated[descriptor.params, UsedIf("descriptor", name)]
    for name, descriptor in DESCRIPTORS.items()
    if descriptor.params
}


class Window(Part):
    """The sound around a moment, as extract keeps it."""

    window_s: Amount
    min_duration_s: Amount


class BaseParams(Part):
    """What the stage describe reads, whatever the descriptor."""

    descriptor: str
    extract: Window


_FOUND: dict[str, Any] = {name: (options, ...) for name, options in OPTIONS.items()}
Params = create_model("Params", __base__=BaseParams, descriptor=(Descriptor, ...), **_FOUND)
