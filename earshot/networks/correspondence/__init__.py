"""The networks of the stage correspond, one module each: the values of `correspond.network`.

A module defines CORRESPONDENCE, a class of Correspondence named after the module.
"""

from typing import Any

from earshot.core.registry import find, names
from earshot.networks.audio_visual_base import Correspondence

PACKAGE = __name__


def build_correspondence(name: str, **arguments: Any) -> Correspondence:
    """A network with random weights, which torch's generator draws.

    Args:
        arguments: of any of the networks; a network ignores those that are not its own.

    Raises:
        EarshotError: the name is unknown, or the images are too small.
    """
    kind = find_correspondence(name)
    return kind(**{key: value for key, value in arguments.items() if key in kind.arguments.model_fields})


def find_correspondence(name: str) -> type[Correspondence]:
    """The class of a network; raises EarshotError for an unknown name."""
    return find(PACKAGE, name, "CORRESPONDENCE", what="correspond.network")


def is_correspondence(name: str) -> bool:
    """Whether a correspondence network has this name."""
    return name in names(PACKAGE)
