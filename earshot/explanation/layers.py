"""The maps of the units of one layer, for images as they are decoded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.core.prefetch import prefetch
from earshot.explanation.frames import Frame
from earshot.networks.crops import crop_frames
from earshot.networks.device import autocast, get_device
from earshot.networks.network import Convolutional, ConvolutionalNetwork, ImageEncoder, require_convolutional
from earshot.pipeline.settings import settings
from earshot.scenes.table import decoding_frames

CONV5 = "conv5"
NAMED = 6  # layers that an error names


class Layer:
    """The maps of `conv5`, of a module before it, or of the pool after it.

    A module that runs several times gives its first map. Later layers are not computed.

    Raises:
        EarshotError: the network is not convolutional, has no such module, or the module gives no maps.
    """

    def __init__(self, network: ImageEncoder, name: str) -> None:
        self.network, self.name = require_convolutional(network), name
        self._module = dict(network.named_modules()).get(name) if name != CONV5 else None
        smallest = torch.zeros(1, 3, network.image_size, network.image_size, device=network.channel_mean.device)
        if name != CONV5 and name not in (maps := _names_of_maps(self.network, smallest)):
            some = maps[:: max(len(maps) // NAMED, 1)]
            reason = "is not in the network" if self._module is None else "gives no maps of single images"
            raise EarshotError(f"layer {name!r} {reason}; expected {CONV5} or a module such as {', '.join(some)}")
        with torch.inference_mode():
            self.units = self.of(smallest).shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """Maps (images, units, height, width) of uint8 images (images, 3, image_size, image_size)."""
        return self.of(self.network.normalize(images))

    def of(self, normalized: Tensor) -> Tensor:
        """The same for normalized images of any size; gradients pass."""
        if self._module is None:
            return self.network.convolve(normalized)
        with _stopping_at(self._module):
            try:
                _run(self.network, normalized)
            except _Reached as reached:
                return reached.maps
        raise AssertionError(f"{self.name} was reached before")


def look_through(
    layers: Mapping[str, Layer], batches: Iterable[Sequence[Frame]], scenes: Path, title: str
) -> Iterator[tuple[Sequence[Frame], dict[str, Tensor]]]:
    """Batches of frames and their maps in every layer; frames are decoded once, in advance.

    Networks take the middle square of a frame. Raises EarshotError for a frame that is not a JPEG.
    """
    size = next(iter(layers.values())).network.image_size

    def decode(batch: Sequence[Frame]) -> tuple[Sequence[Frame], Tensor]:
        with decoding_frames(scenes):
            return batch, crop_frames([frame.jpeg for frame in batch], size)

    decoded = prefetch(decode, batches, settings().threads)
    for batch, images in tqdm(decoded, desc=title, unit="batch", leave=False, disable=None):
        yield batch, maps_of(layers, images)


@torch.inference_mode()
def maps_of(layers: Mapping[str, Layer], images: Tensor) -> dict[str, Tensor]:
    """The maps of images in every layer, on the device, in bfloat16 where it is fast."""
    device = get_device()
    with autocast("auto", device):
        return {prefix: layer(images.to(device)) for prefix, layer in layers.items()}


class _Reached(Exception):
    """Stops a forward pass at a layer, before a later one can overwrite its maps in place."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps


@contextmanager
def _stopping_at(module: nn.Module) -> Iterator[None]:
    def stop(module: nn.Module, inputs: tuple, maps: Tensor) -> None:
        raise _Reached(maps)

    hook = module.register_forward_hook(stop)
    try:
        yield
    finally:
        hook.remove()


@torch.inference_mode()
def _names_of_maps(network: Convolutional, normalized: Tensor) -> list[str]:
    """The modules that give maps, in the order in which they run."""
    map_names: list[str] = []
    names = {module: name for name, module in network.named_modules() if name}

    def note(module: nn.Module, inputs: tuple, result: object) -> None:
        if isinstance(result, Tensor) and result.dim() == 4 and names[module] not in map_names:
            map_names.append(names[module])

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        _run(network, normalized)
    finally:
        for hook in hooks:
            hook.remove()
    return map_names


def _run(network: Convolutional, normalized: Tensor) -> None:
    conv5 = network.convolve(normalized)
    if isinstance(network, ConvolutionalNetwork):
        network.pool(conv5)
