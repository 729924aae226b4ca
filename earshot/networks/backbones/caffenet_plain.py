"""CaffeNet as Caffe trains it, without batch norm: for weights of others, which `earshot caffemodel` converts.

The layers, their names, the initial weights and the mean follow models/bvlc_reference_caffenet/train_val.prototxt of
github.com/BVLC/caffe.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.networks.backbones.alexnet import FULLY_CONNECTED, POOL, POOL_STRIDE, AlexNet, scaled
from earshot.networks.backbones.caffenet import CaffeNet
from earshot.networks.network import ConvolutionalNetwork

# Mean of ImageNet's pixels, red first, not scaled otherwise: 104, 117 and 123 of the prototxt, which are blue first.
MEAN = (123.0, 117.0, 104.0)
NORM_SIZE, NORM_ALPHA, NORM_BETA = 5, 1e-4, 0.75  # of norm1 and norm2
CONVOLUTION_STD, HIDDEN_STD = 0.01, 0.005  # of the Gaussian initial weights


class PlainCaffeNet(ConvolutionalNetwork):
    """CaffeNet with biases and with local response normalization after pool1 and pool2.

    Pools count a last partial window, as Caffe's do; at 227 px there is none. The output layer starts at zero, as that
    of every network here.

    Raises:
        EarshotError: the images are too small: the third pool has no output.
    """

    probe_layers = AlexNet.probe_layers
    plan = CaffeNet.plan
    stride = CaffeNet.stride
    fully_connected_names = ("fc6", "fc7", "fc8")
    norm_first = False  # whether the normalization precedes the pool
    biases = (0.0, 0.4, 0.0, 1.0, 0.4)  # initial ones of conv1 to conv5
    hidden_bias = 0.4

    def __init__(self, *, classes: int, width: float = 1.0, image_size: int = 227, dropout: float = 0.5) -> None:
        super().__init__(classes=classes, width=width, image_size=image_size, dropout=dropout)
        self.channel_mean.copy_(torch.tensor(MEAN).view(3, 1, 1))
        self.channel_deviation.fill_(1)
        self.pooled_side = self.side_of_pool5(image_size)
        if self.pooled_side < 1:
            smallest = next(size for size in count(image_size) if self.side_of_pool5(size) >= 1)
            actual = f"pretrain.image_size is {image_size}; {self.architecture['name']}"
            raise EarshotError(f"{actual} requires {smallest} px or more: raise it, or set another pretrain.backbone")
        self.body = nn.Sequential(self._layers(width))
        self.last_pool = nn.MaxPool2d(POOL, POOL_STRIDE, ceil_mode=True)
        hidden = scaled(FULLY_CONNECTED, width)
        self.fc6 = nn.Linear(scaled(self.plan[-1].channels, width, 2) * self.pooled_side**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, 1)
        self.drop = nn.Dropout(dropout)
        convolutions = [module for module in self.body if isinstance(module, nn.Conv2d)]
        for layer, bias in zip(convolutions, self.biases, strict=True):
            _gaussian(layer, CONVOLUTION_STD, bias)
        for hidden_layer in (self.fc6, self.fc7):
            _gaussian(hidden_layer, HIDDEN_STD, self.hidden_bias)
        self.renew_output(classes)

    @classmethod
    def side_of_pool5(cls, image_size: int) -> int:
        """Positions along one side of the pool5 map of an image of that size: 6 at 227 px."""
        side = image_size
        for layer in cls.plan:
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
            if layer.pooled:
                side = -((POOL - side) // POOL_STRIDE) + 1
        return side

    def convolve(self, normalized: Tensor) -> Tensor:
        return self.body(normalized)

    def pool(self, conv5: Tensor) -> Tensor:
        return self.last_pool(conv5)

    def hidden(self, pooled: Tensor) -> Tensor:
        return self._after(self.fc7, self._after(self.fc6, pooled.flatten(1)))

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        conv5 = self.convolve(normalized)  # (images, 256 w, side, side)
        yield "max5", conv5.amax((2, 3))
        pool5 = self.pool(conv5)  # (images, 256 w, pooled_side, pooled_side)
        yield "pool5", pool5
        fc6 = self._after(self.fc6, pool5.flatten(1))  # (images, 4096 w)
        yield "fc6", fc6
        yield "fc7", self._after(self.fc7, fc6)

    def _after(self, layer: nn.Module, inputs: Tensor) -> Tensor:
        return self.drop(functional.relu(layer(inputs)))

    def _layers(self, width: float) -> OrderedDict[str, nn.Module]:
        """All layers up to conv5's ReLU, by Caffe's names."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for number, (wide, kernel, stride, padding, groups, pooled) in enumerate(self.plan, 1):
            filters = scaled(wide, width, 2)
            layers[f"conv{number}"] = nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            channels = filters
            if pooled and number < len(self.plan):
                after: list[tuple[str, nn.Module]] = [
                    (f"pool{number}", nn.MaxPool2d(POOL, POOL_STRIDE, ceil_mode=True)),
                    (f"norm{number}", nn.LocalResponseNorm(NORM_SIZE, NORM_ALPHA, NORM_BETA)),
                ]
                layers.update(reversed(after) if self.norm_first else after)
        return layers


def _gaussian(layer: nn.Conv2d | nn.Linear, deviation: float, bias: float) -> None:
    nn.init.normal_(layer.weight, 0, deviation)
    nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]


BACKBONE = PlainCaffeNet
