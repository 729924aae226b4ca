"""The base classes of networks: uint8 images in, scores out, and named layers for probes."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.core.params import Group

Width = Annotated[float, Field(ge=1 / 64, le=4)]  # factor on the channels of all layers

# Mean and deviation of the channels of ImageNet, as in the papers, on the scale 0-255.
CHANNEL_MEAN = (123.675, 116.28, 103.53)
CHANNEL_DEVIATION = (58.395, 57.12, 57.375)


class ImageEncoder(nn.Module, ABC):
    """A network over decoded images, uint8 (images, 3, image_size, image_size), with layers for probes.

    Args:
        image_size: side of the images in px.

    Attributes:
        frames: images of one sequence; if it is not 1, inputs are (n, frames, 3, image_size, image_size).
        probe_layers: names of the layers that probes may use, in the order of computation; none for a network that
            takes no single images.
        architecture: the name and the arguments, from which the network can be rebuilt.
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
        """The `probe_layers` with their values, (images, ...), after the nonlinearity; computed one by one."""

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Activations of the requested layers, one flat row per image.

        Dropout and batch norm follow the mode: call `eval()` to probe.

        Args:
            images: uint8, (images, 3, image_size, image_size).
            layers: some of `probe_layers`, by default all; later layers are not computed.

        Raises:
            ValueError: a layer is unknown, or the images have another size or type.
        """
        layers = self.probe_layers if layers is None else layers
        if unknown := set(layers) - set(self.probe_layers):
            raise ValueError(f"the network has no layers {sorted(unknown)}; it has {', '.join(self.probe_layers)}")
        features: dict[str, Tensor] = {}
        for layer, values in self.activations(self.normalize(self._checked(images))):
            if layer in layers:
                features[layer] = values.flatten(1)
            if len(features) == len(set(layers)):
                break
        return {layer: features[layer] for layer in layers}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Also takes a plain dict of tensors: MNASNet requires a version that only a full state dict holds."""
        versioned: Any = OrderedDict(state_dict)
        own: Any = self.state_dict()
        versioned._metadata = own._metadata
        return super().load_state_dict(versioned, *args, **options)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize each channel of uint8 images of any size by ImageNet's mean and deviation."""
        return (images - self.channel_mean) / self.channel_deviation

    def _checked(self, images: Tensor) -> Tensor:
        frames = () if self.frames == 1 else (self.frames,)
        expected = (*frames, 3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            actual = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"images are {actual}; this network requires torch.uint8 of shape (images, {expected})")
        return images


class Convolutional(ImageEncoder):
    """A network with maps over the positions of an image, as heatmaps, units and detection require."""

    @abstractmethod
    def convolve(self, normalized: Tensor) -> Tensor:
        """The conv5 maps after their nonlinearity, (images, channels, height, width), of images of any size."""


class ClassifierArguments(Group):
    """The arguments of a classifier, with the ranges that encoder.json may hold.

    The ranges keep a damaged or hostile file from building a huge network.
    """

    classes: Annotated[int, Field(ge=1, le=100_000)]
    width: Width
    image_size: Annotated[int, Field(ge=16, le=1024)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Network(ImageEncoder):
    """An image classifier, for the stage pretrain and for fine-tuning.

    An image runs through `normalize`, `penultimate` and the output layer.

    Args:
        name: of the architecture, as in `pretrain.backbone`; by default that of the class's module.
        classes: number of outputs.
        width: factor on all channels and hidden units.
        image_size: side of the images in px.
        dropout: probability at the dropouts among the fully connected layers.

    Attributes:
        has_width: whether the network supports widths other than 1.
        fully_connected_names: the fully connected layers in order, the output layer last.
        left_out: modules of the original architecture that this one omits: auxiliary classifiers.
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
        """The input of the output layer, (images, units), for normalized images."""

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes, (images, classes), of uint8 images (images, 3, image_size, image_size)."""
        return self.scores(self.penultimate_of(images))

    def penultimate_of(self, images: Tensor) -> Tensor:
        """The input of the output layer, (images, units), for uint8 images (images, 3, image_size, image_size)."""
        return self.penultimate(self.normalize(self._checked(images)))

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of the classes, (images, classes), from the output of `penultimate`."""
        return self.fully_connected[-1](hidden)

    @property
    def hidden_units(self) -> int:
        """The number of units of the input of the output layer."""
        output = self.get_submodule(self.fully_connected_names[-1])
        return output.in_channels if isinstance(output, nn.Conv2d) else cast(nn.Linear, output).in_features

    @property
    def fully_connected(self) -> list[nn.Linear]:
        """The layers that mode `head` trains: the hidden ones in order, and the output layer."""
        return [cast(nn.Linear, self.get_submodule(name)) for name in self.fully_connected_names]

    def renew_fully_connected(self, classes: int) -> None:
        """Draw the fully connected layers anew, with an output layer of `classes`, in place."""
        for layer in self.fully_connected[:-1]:
            initialize(layer)
        self.renew_output(classes)

    def renew_output(self, classes: int) -> None:
        """Replace the output layer by a zero one of `classes`: at first all classes are equally likely."""
        parent, _, name = self.fully_connected_names[-1].rpartition(".")
        setattr(self.get_submodule(parent), name, _zero_output(self.fully_connected[-1], classes))
        self.architecture["classes"] = classes


class ConvolutionalNetwork(Network, Convolutional):
    """A convolutional classifier: an image runs through `normalize`, `convolve`, `pool`, `hidden` and the output.

    A detector may pass an image of any size through the first two and pool regions of conv5 to pooled_side x
    pooled_side for `hidden`.

    Attributes:
        stride: px of the image from one position of conv5 to the next.
        pooled_side: positions along one side of the maps that `hidden` takes.
    """

    stride: int
    pooled_side: int

    @abstractmethod
    def pool(self, conv5: Tensor) -> Tensor:
        """The input of `hidden`, from the conv5 maps."""

    @abstractmethod
    def hidden(self, pooled: Tensor) -> Tensor:
        """The input of the output layer, (images, units), from maps (images, channels, pooled_side, pooled_side)."""

    def penultimate(self, normalized: Tensor) -> Tensor:
        return self.hidden(self.pool(self.convolve(normalized)))


def require_convolutional(network: ImageEncoder) -> Convolutional:
    """The network itself.

    Raises:
        EarshotError: it has no maps over the positions of an image.
    """
    if isinstance(network, Convolutional):
        return network
    raise EarshotError(
        f"{network.architecture['name']} is not convolutional; use a network that is, such as alexnet or ave"
    )


def initialize(module: nn.Module) -> None:
    """Gaussian weights that keep the variance through a ReLU (He 2015, equation 10), biases zero; in place.

    Weights on the device `meta` have no values; to draw them, torch would import its compiler, which takes seconds.
    """
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _zero_output(old: Any, classes: int) -> nn.Module:
    """Built on the device `meta`, which draws no numbers: other weights must not depend on the classes."""
    if isinstance(old, nn.Conv2d):  # SqueezeNet's
        new: nn.Module = nn.Conv2d(old.in_channels, classes, 1, device="meta")
    else:
        new = nn.Linear(old.in_features, classes, device="meta")
    if old.weight.is_meta:  # nothing to fill, and torch would import its compiler for it
        return new
    new = new.to_empty(device=old.weight.device)
    for values in new.parameters():
        nn.init.zeros_(values)
    return new
