"""AlexNet with batch norm, at any width and picture size: the network of Mahadev & Lu (2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LAYERS = ("max5", "pool5", "fc6", "fc7")

# Channels, kernel, stride, padding, and whether a pool follows (Krizhevsky 2012, section 3.5, without its two groups).
CONVOLUTIONS = (
    (96, 11, 4, 2, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
FULLY_CONNECTED = 4096
POOL, POOL_STRIDE = 3, 2

# Mean and deviation of the channels of natural photographs (those of ImageNet, as the papers use), on the scale 0-255.
CHANNEL_MEAN = (123.675, 116.28, 103.53)
CHANNEL_DEVIATION = (58.395, 57.12, 57.375)


class AlexNet(nn.Module):
    """Five convolutions with batch norm, two hidden fully connected layers with dropout, and one output a class.

    Pictures go in as they are decoded: uint8, (pictures, 3, image_size, image_size). The network normalises them.

    Args:
        classes: number of outputs.
        width: factor on all channels and hidden units; 1 is the papers' network.
        image_size: side of the pictures in px; 227 gives the papers' 6 x 6 x 256 pool5.
        dropout: probability, before each hidden fully connected layer.
    """

    def __init__(self, *, classes: int, width: float = 1.0, image_size: int = 227, dropout: float = 0.5) -> None:
        super().__init__()
        side = pool5_side(image_size)
        if side < 1:
            raise ValueError(f"image_size {image_size}: no position is left after the third pool; take 63 px or more")
        self.image_size = image_size
        self.architecture = {
            "name": "alexnet",
            "classes": classes,
            "width": width,
            "image_size": image_size,
            "dropout": dropout,
        }
        self.register_buffer("channel_mean", torch.tensor(CHANNEL_MEAN).view(3, 1, 1))
        self.register_buffer("channel_deviation", torch.tensor(CHANNEL_DEVIATION).view(3, 1, 1))
        self.convolutions = _convolutions(width)
        self.last_pool = nn.MaxPool2d(POOL, POOL_STRIDE)
        hidden = _scaled(FULLY_CONNECTED, width)
        flat = _scaled(CONVOLUTIONS[-1][0], width) * side**2
        self.fc6 = nn.Sequential(nn.Dropout(dropout), nn.Linear(flat, hidden), nn.ReLU(inplace=True))
        self.fc7 = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(inplace=True))
        self.fc8 = nn.Linear(hidden, classes)
        self.apply(_initialise)
        nn.init.zeros_(self.fc8.weight)  # all classes start out equally likely

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes, (pictures, classes), of uint8 pictures (pictures, 3, image_size, image_size)."""
        return self.fc8(self.features(images, ("fc7",))["fc7"])

    def features(self, images: Tensor, layers: Sequence[str] = LAYERS) -> dict[str, Tensor]:
        """Activations after the ReLU, a flat row a picture, of the layers asked for.

        `max5` is the maximum of each conv5 channel over the picture, `pool5` the pooled conv5 map, `fc6` and `fc7` the
        hidden units (Owens 2016, Table 2). Dropout and batch norm follow the mode: call `eval()` to probe.

        Args:
            images: uint8, (pictures, 3, image_size, image_size).
            layers: some of LAYERS; nothing beyond the last one needed is computed.

        Raises:
            ValueError: an unknown layer, or pictures of another size or type.
        """
        if unknown := set(layers) - set(LAYERS):
            raise ValueError(f"layers {sorted(unknown)} are not in an AlexNet; it has {', '.join(LAYERS)}")
        conv5 = self.convolutions(self._normalise(images))  # (pictures, 256 w, side, side)
        found = {"max5": conv5.amax((2, 3))} if "max5" in layers else {}
        found["pool5"] = self.last_pool(conv5).flatten(1)  # (pictures, 256 w * pool5_side^2)
        if {"fc6", "fc7"} & set(layers):
            found["fc6"] = self.fc6(found["pool5"])  # (pictures, 4096 w)
        if "fc7" in layers:
            found["fc7"] = self.fc7(found["fc6"])
        return {layer: found[layer] for layer in layers}

    def _normalise(self, images: Tensor) -> Tensor:
        wanted = (3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != wanted:
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"pictures are {found}; this AlexNet wants torch.uint8 of shape (pictures, {wanted})")
        return (images - self.channel_mean) / self.channel_deviation


def pool5_side(image_size: int) -> int:
    """Positions along one side of the pool5 map of a picture of that size: 6 at 227 px, 2 at 112 px."""
    side = image_size
    for _, kernel, stride, padding, pooled in CONVOLUTIONS:
        side = (side + 2 * padding - kernel) // stride + 1
        if pooled:
            side = (side - POOL) // POOL_STRIDE + 1
    return side


def _convolutions(width: float) -> nn.Sequential:
    """All up to conv5's ReLU; the pool after conv5 stands apart, since max5 is taken before it."""
    blocks: list[nn.Module] = []
    channels = 3
    for wide, kernel, stride, padding, pooled in CONVOLUTIONS:
        filters = _scaled(wide, width)
        blocks.append(nn.Conv2d(channels, filters, kernel, stride, padding, bias=False))
        blocks += [nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        if pooled:
            blocks.append(nn.MaxPool2d(POOL, POOL_STRIDE))
        channels = filters
    return nn.Sequential(*blocks[:-1])


def _scaled(units: int, width: float) -> int:
    return max(1, round(units * width))


def _initialise(module: nn.Module) -> None:
    """Gaussian weights that keep the variance through a ReLU (He 2015, equation 10), biases zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
