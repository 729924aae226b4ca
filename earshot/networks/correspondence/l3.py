"""L3-Net: concatenates the maximal activations of both towers (Arandjelovic & Zisserman 2017, section 2)."""

import torch
from torch import Tensor, nn

from earshot.networks.two_towers import TwoTowers


class L3Net(TwoTowers):
    """Concatenates the maximal activations of both towers: 512 + 512, a hidden layer of 128, two outputs.

    An embedding is the tower's pool4, 512 units; the network does not align the modalities (Kim 2020, section 4.2).
    """

    def build_head(self, units: int) -> None:
        self.fc1 = nn.Linear(self.image_tower.channels + self.audio_tower.channels, units)
        self.fc2 = nn.Linear(units, 2)

    def init_head(self) -> None:
        nn.init.zeros_(self.fc2.weight)  # at first all pairs are equally likely

    def project_image(self, channels: Tensor) -> Tensor:
        return channels

    def project_audio(self, channels: Tensor) -> Tensor:
        return channels

    def compare(self, images: Tensor, sounds: Tensor) -> Tensor:
        both = torch.cat(torch.broadcast_tensors(images, sounds), dim=-1)
        return self.fc2(torch.relu(self.fc1(both))).float().diff(dim=-1)[..., 0]

    def embed_images(self, images: Tensor) -> Tensor:
        return self.pooled_images(images).float()

    def embed_audio(self, sounds: Tensor) -> Tensor:
        return self.pooled_audio(sounds).float()


CORRESPONDENCE = L3Net
