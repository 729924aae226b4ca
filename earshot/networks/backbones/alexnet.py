"""AlexNet with batch norm, at any width and image size: the network of Mahadev & Lu (2020)."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.networks.network import ConvolutionalNetwork, initialize


class Convolution(NamedTuple):
    """A convolution with batch norm and ReLU, and whether a pool follows."""

    channels: int
    kernel: int
    stride: int
    padding: int
    groups: int
    pooled: bool


FULLY_CONNECTED = 4096
POOL, POOL_STRIDE = 3, 2


class AlexNet(ConvolutionalNetwork):
    """Five convolutions with batch norm, two hidden fully connected layers with dropout, and one output per class.

    Dropout precedes each hidden fully connected layer (github.com/rowhanm/ambient-sound-self-supervision,
    utils/models.py), and `hidden` is fc7. Width 1 and 227 px give the papers'
    network, with a pool5 of 6 x 6 x 256. `max5` is the maximum of each conv5 channel over the image, `pool5` the
    pooled conv5 map, `fc6` and `fc7` are the hidden units (Owens 2016, Table 2).

    Raises:
        EarshotError: the images are too small: the third pool has no output.
    """

    probe_layers = ("max5", "pool5", "fc6", "fc7")
    # Krizhevsky 2012, section 3.5, without its two groups.
    plan = (
        Convolution(96, 11, 4, 2, 1, True),
        Convolution(256, 5, 1, 2, 1, True),
        Convolution(384, 3, 1, 1, 1, False),
        Convolution(384, 3, 1, 1, 1, False),
        Convolution(256, 3, 1, 1, 1, True),
    )
    stride = 16  # 4 of conv1, and 2 of each pool before conv5
    fully_connected_names = ("fc6.1", "fc7.1", "fc8")

    def __init__(self, *, classes: int, width: float = 1.0, image_size: int = 227, dropout: float = 0.5) -> None:
        super().__init__(classes=classes, width=width, image_size=image_size, dropout=dropout)
        self.pooled_side = self.side_of_pool5(image_size)
        if self.pooled_side < 1:
            smallest = next(size for size in count(image_size) if self.side_of_pool5(size) == 1)
            actual = f"pretrain.image_size is {image_size}; {self.architecture['name']}"
            raise EarshotError(f"{actual} requires {smallest} px or more: raise it, or set another pretrain.backbone")
        self.convolutions = self._convolutions(width)
        self.last_pool = nn.MaxPool2d(POOL, POOL_STRIDE)
        hidden = scaled(FULLY_CONNECTED, width)
        flat = scaled(self.plan[-1].channels, width, self._divisor()) * self.pooled_side**2
        self.fc6 = self._hidden_layer(flat, hidden, dropout)
        self.fc7 = self._hidden_layer(hidden, hidden, dropout)
        self.fc8 = nn.Linear(hidden, 1)
        self.apply(initialize)
        self.renew_output(classes)

    @classmethod
    def side_of_pool5(cls, image_size: int) -> int:
        """Positions along one side of the pool5 map of an image of that size: 6 at 227 px."""
        side = image_size
        for layer in cls.plan:
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
            if layer.pooled:
                side = (side - POOL) // POOL_STRIDE + 1
        return side

    def convolve(self, normalized: Tensor) -> Tensor:
        return self.convolutions(normalized)

    def pool(self, conv5: Tensor) -> Tensor:
        return self.last_pool(conv5)

    def hidden(self, pooled: Tensor) -> Tensor:
        return self.fc7(self.fc6(pooled.flatten(1)))

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        conv5 = self.convolve(normalized)  # (images, 256 w, side, side)
        yield "max5", conv5.amax((2, 3))
        pool5 = self.pool(conv5)  # (images, 256 w, pooled_side, pooled_side)
        yield "pool5", pool5
        fc6 = self.fc6(pool5.flatten(1))  # (images, 4096 w)
        yield "fc6", fc6
        yield "fc7", self.fc7(fc6)

    def _convolutions(self, width: float) -> nn.Sequential:
        """All layers up to conv5's ReLU, without the pool after it, because max5 is taken before that pool."""
        blocks: list[nn.Module] = []
        channels = 3
        for wide, kernel, stride, padding, groups, pooled in self.plan:
            filters = scaled(wide, width, self._divisor())
            blocks.append(nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups, bias=False))
            blocks += [nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
            if pooled:
                blocks.append(nn.MaxPool2d(POOL, POOL_STRIDE))
            channels = filters
        return nn.Sequential(*blocks[:-1])

    def _hidden_layer(self, inputs: int, outputs: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.ReLU(inplace=True))

    def _divisor(self) -> int:
        """The number of channels is a multiple of it, so that all groups are of equal size."""
        return max(layer.groups for layer in self.plan)


def scaled(units: int, width: float, divisor: int = 1) -> int:
    return divisor * max(1, round(units * width / divisor))


BACKBONE = AlexNet
