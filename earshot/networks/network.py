"""What every network is to the rest: uint8 pictures in, scores out, and the layers that it declares for probes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.core.params import Group

Width = Annotated[float, Field(ge=1 / 64, le=4)]  # factor on the channels of all layers

# Mean and deviation of the channels of natural photographs (those of ImageNet, as the papers use), on the scale 0-255.
CHANNEL_MEAN = (123.675, 116.28, 103.53)
CHANNEL_DEVIATION = (58.395, 57.12, 57.375)


class ImageEncoder(nn.Module, ABC):
    """What probes see of any network over pictures as they are decoded: uint8, (pictures, 3, image_size, image_size).

    Args:
        image_size: side of the pictures in px.

    Attributes:
        frames: images that belong together; where it is not 1, pictures are (n, frames, 3, image_size, image_size).
        probe_layers: names of the layers that probes may ask for, in the order in which they are computed; none for a
            network that sees no single pictures.
        architecture: the name and the arguments, from which the network is built again.
    """

    channel_mean: Tensor
    channel_deviation: Tensor
    frames: int = 1
    probe_layers: tuple[str, ...]
    architecture: dict[str, Any]

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.register_buffer("channel_mean", torch.tensor(CHANNEL_MEAN).view(3, 1, 1))
        self.register_buffer("channel_deviation", torch.tensor(CHANNEL_DEVIATION).view(3, 1, 1))

    @abstractmethod
    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The `probe_layers` with their values, (pictures, ...), after the nonlinearity, each when it is asked for."""

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Activations of the layers asked for, a flat row a picture.

        Dropout and batch norm follow the mode: call `eval()` to probe.

        Args:
            images: uint8, (pictures, 3, image_size, image_size).
            layers: some of `probe_layers`, or all of them; nothing beyond the last one needed is computed.

        Raises:
            ValueError: an unknown layer, or pictures of another size or type.
        """
        layers = self.probe_layers if layers is None else layers
        if unknown := set(layers) - set(self.probe_layers):
            raise ValueError(f"layers {sorted(unknown)} are not in a network; it has {', '.join(self.probe_layers)}")
        found: dict[str, Tensor] = {}
        for layer, values in self.activations(self.normalize(self._checked(images))):
            if layer in layers:
                found[layer] = values.flatten(1)
            if len(found) == len(set(layers)):
                break
        return {layer: found[layer] for layer in layers}

    def normalize(self, images: Tensor) -> Tensor:
        """Float pictures of zero mean and unit variance, channel by channel, of uint8 pictures of any size."""
        return (images - self.channel_mean) / self.channel_deviation

    def _checked(self, images: Tensor) -> Tensor:
        frames = () if self.frames == 1 else (self.frames,)
        wanted = (*frames, 3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != wanted:
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"pictures are {found}; this network wants torch.uint8 of shape (pictures, {wanted})")
        return images


class Convolutional(ImageEncoder):
    """A network with maps over the positions of a picture: what heatmaps, units and detection can be made of."""

    @abstractmethod
    def convolve(self, normalized: Tensor) -> Tensor:
        """The conv5 maps after their nonlinearity, (pictures, channels, height, width), of pictures of any size."""


class ClassifierArguments(Group):
    """The arguments of a classifier, in the ranges in which encoder.json may have them.

    A damaged or hostile file must not be able to ask for a huge network.
    """

    classes: Annotated[int, Field(ge=1, le=100_000)]
    width: Width
    image_size: Annotated[int, Field(ge=16, le=1024)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Network(ImageEncoder):
    """A classifier of pictures: what the stage pretrain trains, and what is trained on by fine-tuning.

    A picture runs through `normalise`, `penultimate` and the output layer.

    Args:
        name: of the architecture, as `pretrain.backbone` gives it; without it, that of the module of the class.
        classes: number of outputs.
        width: factor on all channels and hidden units.
        image_size: side of the pictures in px.
        dropout: probability at the dropouts among the fully connected layers.

    Attributes:
        has_width: whether widths other than 1 can be had.
        fully_connected_names: the fully connected layers in order, the output layer last.
        left_out: modules that the architecture has elsewhere and not here: auxiliary classifiers.
    """

    arguments: type[Group] = ClassifierArguments
    has_width: bool = True
    fully_connected_names: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __init__(self, *, classes: int, width: float, image_size: int, dropout: float, name: str = "") -> None:
        super().__init__(image_size)
        self.architecture = {
            "name": name or type(self).__module__.rpartition(".")[2],
            "classes": classes,
            "width": width,
            "image_size": image_size,
            "dropout": dropout,
        }

    @abstractmethod
    def penultimate(self, normalized: Tensor) -> Tensor:
        """What the output layer reads, (pictures, units), of normalised pictures."""

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes, (pictures, classes), of uint8 pictures (pictures, 3, image_size, image_size)."""
        return self.scores(self.penultimate(self.normalize(self._checked(images))))

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of the classes, (pictures, classes), of what `penultimate` gives."""
        return self.fully_connected[-1](hidden)

    @property
    def fully_connected(self) -> list[nn.Module]:
        """The layers that are trained when only the head is: the hidden ones in order, and the output layer."""
        return [self.get_submodule(name) for name in self.fully_connected_names]

    def renew_fully_connected(self, classes: int) -> None:
        """Draw the fully connected layers anew, with an output layer of `classes`, in place."""
        for layer in self.fully_connected[:-1]:
            initialize(layer)
        self.renew_output(classes)

    def renew_output(self, classes: int) -> None:
        """Put a zero output layer of `classes` in the place of the old one: at first all are equally likely."""
        parent, _, name = self.fully_connected_names[-1].rpartition(".")
        setattr(self.get_submodule(parent), name, _zero_output(self.fully_connected[-1], classes))
        self.architecture["classes"] = classes


class ConvolutionalNetwork(Network, Convolutional):
    """A convolutional classifier: a picture runs through `normalise`, `convolve`, `pool`, `hidden` and the output.

    A detector may take a picture of any size through the first two and cut regions of pooled_side x pooled_side out of
    conv5 for `hidden`.

    Attributes:
        stride: px of the picture from one position of conv5 to the next.
        pooled_side: positions along one side of the maps that `hidden` is given when a picture is classified.
    """

    stride: int
    pooled_side: int

    @abstractmethod
    def pool(self, conv5: Tensor) -> Tensor:
        """The maps that `hidden` reads, of the conv5 maps."""

    @abstractmethod
    def hidden(self, pooled: Tensor) -> Tensor:
        """What the output layer reads, (pictures, units), of maps (pictures, channels, pooled_side, pooled_side)."""

    def penultimate(self, normalized: Tensor) -> Tensor:
        return self.hidden(self.pool(self.convolve(normalized)))


def require_convolutional(network: ImageEncoder) -> Convolutional:
    """The network itself.

    Raises:
        EarshotError: it has no maps over the positions of a picture.
    """
    if isinstance(network, Convolutional):
        return network
    raise EarshotError(
        f"{network.architecture['name']} is not convolutional; wanted one that is, such as alexnet or ave"
    )


def initialize(module: nn.Module) -> None:
    """Gaussian weights that keep the variance through a ReLU (He 2015, equation 10), biases zero; in place."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _zero_output(old: Any, classes: int) -> nn.Module:
    """Made on no device first, so that nothing is drawn: other layers' weights must not depend on the classes."""
    if isinstance(old, nn.Conv2d):  # SqueezeNet's
        new: nn.Module = nn.Conv2d(old.in_channels, classes, 1, device="meta")
    else:
        new = nn.Linear(old.in_features, classes, device="meta")
    new = new.to_empty(device=old.weight.device)
    for values in new.parameters():
        nn.init.zeros_(values)
    return new
