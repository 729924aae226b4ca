"""AVOL-Net: compares the sound with every image position (Arandjelovic & Zisserman 2018; Kim 2020, section 3.1)."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from earshot.core.params import IDEA
from earshot.networks.audio_visual_base import gather
from earshot.networks.two_towers import TowerArguments, TwoTowers, of_length_one, shift_output


class AVOLArguments(TowerArguments):
    """The arguments of AVOL-Net."""

    position_relu: Annotated[bool, IDEA]


class AVOLNet(TwoTowers):
    """Compares the sound with every position of the image; the score is the maximum of the map.

    The image keeps its map of 14 x 14; two 1x1 convolutions reduce it to 128 channels. Their dot product with the 128
    units of the sound, with a scale and a bias (a 1x1 convolution of one channel), is a map of log-odds. The papers
    take the maximum after a sigmoid, which keeps order, so the maximum of the log-odds is equivalent. Our embedding is
    the maximum of every channel of the image's map, or the sound's units, scaled to length 1.

    Args:
        position_relu: a ReLU between the two convolutions, as between the two layers for the sound; Kim's code has none
            (github.com/kyuyeonpooh/objects-that-sound, model/avolnet.py).
        sizes: as in TwoTowers.
    """

    arguments = AVOLArguments

    def __init__(self, *, position_relu: bool = True, **sizes: Any) -> None:
        super().__init__(position_relu=position_relu, **sizes)

    def build_head(self, units: int) -> None:
        between = nn.ReLU(inplace=True) if self.architecture["position_relu"] else nn.Identity()
        self.position_head, self.audio_head = (
            nn.Sequential(nn.Linear(tower.channels, units), middle, nn.Linear(units, units))
            for tower, middle in ((self.image_tower, between), (self.audio_tower, nn.ReLU(inplace=True)))
        )
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def init_head(self) -> None:
        # A positive scale makes a large product a match; a random one would be negative half of the time. The initial
        # log-odds are the mean product of the units, some tenths.
        nn.init.constant_(self.scale, 1 / self.units)

    @torch.no_grad()
    def calibrate_bias(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> None:
        # The maximum over many positions is well above 0 by chance: training would first lower all of them.
        self.bias.sub_(self(images, sounds, image_index, audio_index).mean())

    def forward(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> Tensor:
        positions, sounds = self.compared_images(images), self.compared_audio(sounds)
        return self.compare(gather(positions, image_index), gather(sounds, audio_index)[:, None, None]).amax((1, 2))

    def compared_images(self, images: Tensor) -> Tensor:
        return self.project_positions(images)

    @torch.no_grad()
    def center_features(self, images: Tensor, sounds: Tensor) -> None:
        compared = (self.compared_images(images), self.compared_audio(sounds))
        for head, values in zip((self.position_head, self.audio_head), compared, strict=True):
            shift_output(head, -values.flatten(0, -2).mean(0))

    def similarities(self, images: Tensor, sounds: Tensor) -> Tensor:
        """The mean product of the units at the strongest position."""
        with torch.autocast(images.device.type, enabled=False):
            products = torch.einsum("ihwu,su->ishw", images.float(), sounds.float())
        return products.amax((2, 3)) / sounds.shape[1]

    def log_odds(self, similarities: Tensor) -> Tensor:
        return self.scale * self.units * similarities + self.bias

    def project_image(self, channels: Tensor) -> Tensor:
        return self.position_head(channels)

    def project_audio(self, channels: Tensor) -> Tensor:
        return self.audio_head(channels)

    def compare(self, images: Tensor, sounds: Tensor) -> Tensor:
        # In float32: autocast would round a matrix product to eight bits.
        return self.scale * (images.float() * sounds.float()).sum(-1) + self.bias

    def embed_images(self, images: Tensor) -> Tensor:
        return self.probe_features(self.convolve(self.normalize(self._checked(images))))[1]

    def embed_audio(self, sounds: Tensor) -> Tensor:
        return of_length_one(self.compared_audio(sounds))

    def probe_features(self, conv5: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.position_head[:2](conv5.permute(0, 2, 3, 1))
        return hidden.amax((1, 2)), of_length_one(self.position_head[2](hidden).amax((1, 2)))


CORRESPONDENCE = AVOLNet
