"""CaffeNet with batch norm, at any width and image size: the network of Owens (2016), section 3.3."""

from torch import nn

from earshot.networks.backbones.alexnet import AlexNet, Convolution


class CaffeNet(AlexNet):
    """AlexNet with conv2, conv4 and conv5 in two groups, no padding before conv1, and dropout after fc6 and fc7.

    The layers are those of models/bvlc_reference_caffenet/train_val.prototxt in github.com/BVLC/caffe.

    In the original CaffeNet, two response normalizations follow the pools; in AlexNet they precede them. Here neither
    network has any, because batch norm between every convolution and its ReLU replaces them (Ioffe & Szegedy 2015,
    sections 3.2 and 4.2.1). After batch norm, activations are about 1: CaffeNet's response normalization (alpha 0.0001)
    would change them by less than 0.04 %, and a step on a CPU would take a third longer.
    """

    plan = (
        Convolution(96, 11, 4, 0, 1, True),
        Convolution(256, 5, 1, 2, 2, True),
        Convolution(384, 3, 1, 1, 1, False),
        Convolution(384, 3, 1, 1, 2, False),
        Convolution(256, 3, 1, 1, 2, True),
    )
    fully_connected_names = ("fc6.0", "fc7.0", "fc8")

    def _hidden_layer(self, inputs: int, outputs: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(dropout))


BACKBONE = CaffeNet
