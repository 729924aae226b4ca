"""The networks by their names: what `pretrain.backbone` may be."""

import difflib

from earshot.core.errors import EarshotError
from earshot.networks.alexnet import AlexNet
from earshot.networks.caffenet import CaffeNet
from earshot.networks.layer_taps import torchvision_names
from earshot.networks.network import Network
from earshot.networks.torchvision_networks import TorchvisionNetwork

OWN = {network.name: network for network in (AlexNet, CaffeNet)}


def build_network(name: str, *, classes: int, width: float, image_size: int, dropout: float) -> Network:
    """A network with random weights: `alexnet`, `caffenet`, or a convolutional classifier of torchvision.

    Torchvision's own AlexNet is `torchvision-alexnet`. All weights but the output layer's, which are zero, are drawn
    from torch's generator, and do not depend on the number of classes.

    Raises:
        EarshotError: an unknown name, a network that is not convolutional, a width that it does not have, or pictures
            too small for it.
    """
    options = {"classes": classes, "width": width, "image_size": image_size, "dropout": dropout}
    if name in OWN:
        return OWN[name](**options)
    names = [*OWN, *torchvision_names()]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        wanted = f"the nearest is {nearest[0]}" if nearest else f"wanted {', '.join(OWN)}, resnet18 or another"
        raise EarshotError(f"pretrain.backbone is {name!r:.60}, which torchvision does not have; {wanted}")
    return TorchvisionNetwork(name, **options)
