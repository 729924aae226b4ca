"""The networks by their names: what `pretrain.backbone` may be."""

from earshot.networks.alexnet import AlexNet
from earshot.networks.network import Network
from earshot.pipeline.errors import EarshotError

OWN = {network.name: network for network in (AlexNet,)}


def build_network(name: str, *, classes: int, width: float, image_size: int, dropout: float) -> Network:
    """A network with random weights: `alexnet`.

    Raises:
        EarshotError: an unknown name, or a size of pictures that it cannot take.
    """
    if name not in OWN:
        raise EarshotError(f"pretrain.backbone is {name!r:.60}; wanted {', '.join(OWN)}")
    return OWN[name](classes=classes, width=width, image_size=image_size, dropout=dropout)
