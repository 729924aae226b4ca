"""The networks of the stage correspond, a module each: what `correspond.network` may be.

A module defines CORRESPONDENCE, a class of Correspondence whose name is the module's.
"""

from typing import Any

from earshot.core.registry import find, names
from earshot.networks.audio_visual_base import Correspondence

PACKAGE = __name__


def build_correspondence(name: str, **arguments: Any) -> Correspondence:
    """A network with random weights, which are drawn from torch's generator.

    Args:
        arguments: of any of the networks; one passes over what is not its own.

    Raises:
        EarshotError: an unknown name, or pictures too small.
    """
    kind = find_correspondence(name)
    return kind(**{key: value for key, value in arguments.items() if key in kind.arguments.model_fields})


def find_correspondence(name: str) -> type[Correspondence]:
    """The class of a network; raises EarshotError for a name that is none of theirs."""
    return find(PACKAGE, name, "CORRESPONDENCE", what="correspond.network")


def is_correspondence(name: str) -> bool:
    """Whether there is a correspondence network of that name."""
    return name in names(PACKAGE)
