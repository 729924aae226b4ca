"""CaffeNet with batch norm, at any width and picture size: the network of Owens (2016), section 3.3."""

from earshot.networks.backbones.alexnet import AlexNet, Convolution


class CaffeNet(AlexNet):
    """AlexNet with conv2, conv4 and conv5 in two groups, and without padding before conv1.

    CaffeNet also differs from AlexNet in that its two response normalisations follow the pools instead of preceding
    them. Here neither network has any: batch norm stands between every convolution and its ReLU, and takes their part
    (Ioffe & Szegedy 2015, sections 3.2 and 4.2.1). After it the activations are about 1, of which CaffeNet's response
    normalisation (alpha 0.0001) would change less than 0.04 %, for a third more time of a step on a CPU.
    """

    plan = (
        Convolution(96, 11, 4, 0, 1, True),
        Convolution(256, 5, 1, 2, 2, True),
        Convolution(384, 3, 1, 1, 1, False),
        Convolution(384, 3, 1, 1, 2, False),
        Convolution(256, 3, 1, 1, 2, True),
    )


BACKBONE = CaffeNet
