"""Any convolutional classifier of torchvision as one of our networks; `layer_taps` defines conv5, fc6 and fc7."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.fx import Graph, Interpreter
from torch.nn import functional

from earshot.networks.backbones.alexnet import POOL, POOL_STRIDE, AlexNet
from earshot.networks.layer_taps import Parts, build_body, parts_of, pooled_side
from earshot.networks.network import ConvolutionalNetwork


class TorchvisionNetwork(ConvolutionalNetwork):
    """One of torchvision's classifiers without its auxiliary classifiers; `body` keeps torchvision's weight names.

    `hidden` is fc7. `dropout` applies to torchvision's dropout layers after conv5; ResNet has none. SqueezeNet averages
    before its output layer here, and has no ReLU after it: scores that start at zero could not train through a ReLU.

    Raises:
        EarshotError: the images are too small, or the network is not convolutional.
    """

    probe_layers = AlexNet.probe_layers
    has_width = False

    def __init__(
        self, name: str, *, classes: int, width: float = 1.0, image_size: int = 224, dropout: float = 0.5
    ) -> None:
        super().__init__(name=name, classes=classes, width=width, image_size=image_size, dropout=dropout)
        parts = self._parts
        self.body = build_body(name)
        self.stride = parts.stride
        self.pooled_side = pooled_side(name, image_size)
        self.left_out = parts.left_out
        for child in parts.left_out:
            delattr(self.body, child)
        for layer in parts.dropouts:
            self.body.get_submodule(layer).p = dropout  # type: ignore[assignment]
        self.fully_connected_names = tuple(f"body.{layer}" for layer in parts.fully_connected)
        self.renew_output(classes)

    def convolve(self, normalized: Tensor) -> Tensor:
        return self._run(self._parts.later, self._run(self._parts.earlier, normalized))

    def pool(self, conv5: Tensor) -> Tensor:
        return self._run(self._parts.pool, conv5) if self._parts.pool else conv5

    def hidden(self, pooled: Tensor) -> Tensor:
        values = pooled
        for part in self._parts.hidden:
            values = self._run(part, values)
        return _averaged(values)

    def scores(self, hidden: Tensor) -> Tensor:
        output = self.fully_connected[-1]
        return output(hidden) if isinstance(output, nn.Linear) else output(hidden[..., None, None]).flatten(1)

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        before = self._run(self._parts.earlier, normalized)
        conv5 = self._run(self._parts.later, before)  # (images, channels, side, side)
        yield "max5", conv5.amax((2, 3))
        pooled = self.pool(conv5)
        small = pooled is not conv5 or conv5.shape[3] <= 2
        yield "pool5", pooled if small else functional.max_pool2d(conv5, POOL, POOL_STRIDE)
        *first, last = self._parts.hidden
        fc6 = self._run(first[0], pooled) if first else before
        yield "fc6", _averaged(fc6)
        yield "fc7", _averaged(self._run(last, fc6 if first else pooled))

    @property
    def _parts(self) -> Parts:
        return parts_of(self.architecture["name"])

    def _run(self, part: Graph, values: Tensor) -> Tensor:
        return Interpreter(self.body, graph=part).run(values)


def _averaged(values: Tensor) -> Tensor:
    """Maps averaged over positions; vectors unchanged."""
    return values.mean((2, 3)) if values.dim() == 4 else values
