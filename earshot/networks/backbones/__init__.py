"""The networks of the stage pretrain, one module each: the values of `pretrain.backbone` beside the networks of
torchvision and timm.

A module defines BACKBONE, a class of Network named after the module.
"""

import difflib
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.registry import find, names
from earshot.networks.network import Network

PACKAGE = __name__


def build_network(name: str, *, width: float, **arguments: Any) -> Network:
    """A network with random weights: one of ours, or a classifier of torchvision or timm.

    Torchvision's own AlexNet is `torchvision-alexnet`; names of timm begin with `timm-`. The output layer is zero.
    Torch's generator draws all other weights, which do not depend on the number of classes.

    Args:
        width, arguments: those of Network: classes, image_size and dropout.

    Raises:
        EarshotError: the name is unknown, the network is not available in this width, or it does not take images of
            this size.
    """
    kind: Any = find_network(name)
    if width != 1 and not kind.has_width:
        raise EarshotError(f"pretrain.width is {width:g}; {name} has a single width, expected 1")
    arguments["width"] = width
    return kind(**arguments) if name in names(PACKAGE) else kind(name, **arguments)


def find_network(name: str) -> type[Network]:
    """The class of a network.

    Raises:
        EarshotError: neither this package nor torchvision has a network of that name.
    """
    own = names(PACKAGE)
    if name in own:
        return find(PACKAGE, name, "BACKBONE", what="pretrain.backbone")
    # Imported here: torchvision takes as long as torch.
    from earshot.networks.backbones._tokens import TIMM, TRANSFORMERS, TimmNetwork, TorchvisionTransformer
    from earshot.networks.backbones._torchvision import TorchvisionNetwork
    from earshot.networks.layer_taps import torchvision_names

    others = torchvision_names()
    if name in others:
        return TorchvisionTransformer if name.startswith(TRANSFORMERS) else TorchvisionNetwork
    if name.startswith(TIMM):
        return TimmNetwork
    nearest = difflib.get_close_matches(name, [*own, *others], n=1, cutoff=0.4)
    advice = f"the nearest is {nearest[0]}" if nearest else f"expected {', '.join(own)}, resnet18 or another"
    raise EarshotError(f"pretrain.backbone is {name!r:.60}, which torchvision does not have; {advice}")
