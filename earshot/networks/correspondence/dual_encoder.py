"""AVE-Net with any network of the stage pretrain as image tower: ours, or one of torchvision or timm."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.networks.backbones import build_network, find_network
from earshot.networks.correspondence.ave import AVENet
from earshot.networks.network import ConvolutionalNetwork
from earshot.networks.two_towers import TowerArguments


class DualEncoderArguments(TowerArguments):
    """The arguments of a dual encoder."""

    backbone: str


class DualEncoder(AVENet):
    """Compares by distance, as AVE-Net; the image's feature is what the backbone's output layer would read.

    Probe layers are the backbone's. `width` and `stride` are those of the audio tower, and `width` of a backbone that
    has a choice of widths. Images are normalized as the backbone requires.

    Args:
        backbone: as `pretrain.backbone`.

    Raises:
        EarshotError: the backbone is unknown, or does not take images of this size.
    """

    arguments = DualEncoderArguments
    image_tower: Any

    def __init__(self, *, backbone: str = "resnet18", **sizes: Any) -> None:
        super().__init__(backbone=backbone, **sizes)

    def build_image_tower(self, *, width: float, stride: int) -> None:
        name = self.architecture["backbone"]
        try:
            width = width if find_network(name).has_width else 1
            tower: Any = build_network(name, classes=1, width=width, image_size=self.image_size, dropout=0.0)
        except EarshotError as error:
            raise EarshotError(str(error).replace("pretrain.", "correspond.")) from None
        parent, _, last = tower.fully_connected_names[-1].rpartition(".")
        tower.channels = tower.hidden_units
        setattr(tower.get_submodule(parent), last, nn.Identity())
        self.image_tower, self.own_weights, self.probe_layers = tower, (tower,), tower.probe_layers
        self.channel_mean.copy_(tower.channel_mean)
        self.channel_deviation.copy_(tower.channel_deviation)

    @torch.no_grad()
    def calibrate_bias(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> None:
        # Where the distances of random weights lie depends on the backbone, unlike in AVE-Net.
        self.fc3.bias[1] -= self(images, sounds, image_index, audio_index).mean()

    def convolve(self, normalized: Tensor) -> Tensor:
        tower = self.image_tower
        return tower.convolve(normalized) if isinstance(tower, ConvolutionalNetwork) else tower.tokens(normalized)[0]

    def image_maps(self, images: Tensor) -> Tensor:
        return self.convolve(self.normalize(self._checked(images)))

    def pooled_images(self, images: Tensor) -> Tensor:
        return self.image_tower.penultimate(self.normalize(self._checked(images)))

    def project_positions(self, images: Tensor) -> Tensor:
        """As in AVE-Net; raises EarshotError unless the feature of an image is the mean of those of its positions."""
        maps, pooled = self.image_maps(images), self.pooled_images(images)
        if maps.shape[1] != pooled.shape[1] or not torch.allclose(maps.mean((2, 3)), pooled, atol=1e-3, rtol=1e-2):
            raise self._lacks(f"localization map with the backbone {self.architecture['backbone']}")
        return self.project_image(maps.permute(0, 2, 3, 1))

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        return self.image_tower.activations(normalized)


CORRESPONDENCE = DualEncoder
