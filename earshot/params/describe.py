"""Parameters of the stage describe: the common ones, and the options that each descriptor declares."""

from typing import Annotated, Any, Literal

from pydantic import create_model

from earshot.core.params import IDEA, Amount, Part, UsedIf
from earshot.core.registry import find_all

DESCRIPTORS = find_all("earshot.sound.descriptors", "DESCRIPTOR")
Descriptor: Any = Annotated[Literal[*DESCRIPTORS], IDEA]
# By name; the options of the texture also set the cochlea, which all descriptors share.
OPTIONS: dict[str, Any] = {
    name: Annotated[descriptor.params, UsedIf("descriptor", name)]
    for name, descriptor in DESCRIPTORS.items()
    if descriptor.params
}


class SoundWindow(Part):
    """The sound around a moment, as extract stores it."""

    window_s: Amount
    min_duration_s: Amount


class Encoder(Part):
    """The network of the descriptor `encoder`."""

    folder: str


class DescribeBaseParams(Part):
    """What the stage describe reads, for any descriptor."""

    descriptor: str
    encoder: Encoder
    extract: SoundWindow


_FIELDS: dict[str, Any] = {name: (options, ...) for name, options in OPTIONS.items()}
DescribeParams = create_model("DescribeParams", __base__=DescribeBaseParams, descriptor=(Descriptor, ...), **_FIELDS)
