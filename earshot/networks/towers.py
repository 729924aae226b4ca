"""The towers of the correspondence networks: 3x3 convolutions in four blocks of two, for images and for spectrograms.

64, 128, 256 and 512 channels, batch norm and ReLU after each convolution, 2x2 max pools between the blocks
(Arandjelovic & Zisserman 2017, section 2.1 and Figure 2).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (64, 128, 256, 512)  # of the four blocks
EMBEDDING = 128  # Arandjelovic & Zisserman 2018, section 3.1
SMALLEST_SIDE = 16  # px, the smallest image for which conv4 has an output at either stride


def scaled(units: int, width: float) -> int:
    """Units of a layer in a network of that width."""
    return max(1, round(units * width))


class Tower(nn.Sequential):
    """From images or spectrograms (n, channels, height, width) to conv4_2 after its batch norm and before its ReLU.

    The convolutions conv1_1 to conv4_2 have no biases, because batch norm would cancel them. At stride 1 an image of
    224 px becomes 28 x 28, and 257 x 199 become 32 x 24; at stride 2 14 x 14 and 16 x 12. The receptive field of a
    position of conv4_2 is 68 x 68 at stride 1, or 133 x 133 at stride 2.

    Args:
        channels: of the input.
        width: factor on the channels of all layers.
        stride: of conv1_1.
    """

    def __init__(self, channels: int, *, width: float, stride: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block, wide in enumerate((scaled(wide, width) for wide in CHANNELS), 1):
            for suffix in (f"{block}_1", f"{block}_2"):
                step = stride if suffix == "1_1" else 1
                layers[f"conv{suffix}"] = nn.Conv2d(channels, wide, 3, step, padding=1, bias=False)
                layers[f"norm{suffix}"] = nn.BatchNorm2d(wide)
                layers[f"relu{suffix}"] = nn.ReLU(inplace=True)
                channels = wide
            layers[f"pool{block}"] = nn.MaxPool2d(2)
        for beyond in ("relu4_2", "pool4"):
            del layers[beyond]
        super().__init__(layers)
        self.channels = channels


def pooled(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (n, channels, h, w) max-pooled to at most height x width positions, flat: (n, channels * h' * w').

    Pools overlap if the sides do not divide, so that they cover the whole map.
    """
    return functional.adaptive_max_pool2d(maps, (min(height, maps.shape[2]), min(width, maps.shape[3]))).flatten(1)


def global_max_pool(maps: Tensor) -> Tensor:
    """The maximum of each channel over all positions, after a ReLU: (n, channels), the papers' pool4."""
    return torch.relu(maps.amax((2, 3)))
