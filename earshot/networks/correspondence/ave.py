"""AVE-Net: the distance of two embeddings (Arandjelovic & Zisserman 2018; Kim 2020, section 3.1)."""

import torch
from torch import Tensor, nn

from earshot.networks.two_towers import TwoTowers, of_length_one, shift_output

SMALLEST_SQUARE = 1e-6  # of a distance; the root has no gradient at 0
# Initial weights of the last layer: the steepness of the log-odds, and the distance at which they are 0.
LAST_LAYERS = {
    # Orthogonal embeddings are the root of 2 apart, and all pairs are near that at first: log-odds begin near 0.
    "ours": (2.0, 2**0.5),
    # 1.4 (1.714 - distance): weights -.7 and .7, biases 1.2 and -1.2 (github.com/kyuyeonpooh/objects-that-sound,
    # model/avenet.py of commit 8a60535; the improvement of Kim 2020, section 3.4).
    "kim": (1.4, 12 / 7),
}


class AVENet(TwoTowers):
    """Compares by distance: both modalities have embeddings of 128 units and length 1.

    The last layer maps the distance to two scores. Its initial weights make a small distance a match, unless
    `set_last_layer` draws them. Random weights have the opposite sign half of the time: training would first push
    matching pairs apart until the sign changes, and the loss would stay at chance for long.
    """

    def build_head(self, units: int) -> None:
        self.image_head, self.audio_head = (
            nn.Sequential(nn.Linear(tower.channels, units), nn.ReLU(inplace=True), nn.Linear(units, units))
            for tower in (self.image_tower, self.audio_tower)
        )
        self.fc3 = nn.Linear(1, 2)

    def init_head(self) -> None:
        self.set_last_layer("ours")

    @torch.no_grad()
    def set_last_layer(self, kind: str) -> None:
        """Set the initial weights of the last layer: one of LAST_LAYERS, or `random`, which is torch's own."""
        if kind == "random":
            self.fc3.reset_parameters()
            return
        steepness, even = LAST_LAYERS[kind]
        half = torch.tensor([[1.0], [-1.0]], device=self.fc3.weight.device) * steepness / 2
        self.fc3.weight.copy_(half)
        self.fc3.bias.copy_(-even * half[:, 0])

    def project_image(self, channels: Tensor) -> Tensor:
        return of_length_one(self.image_head(channels))

    def project_audio(self, channels: Tensor) -> Tensor:
        return of_length_one(self.audio_head(channels))

    def compare(self, images: Tensor, sounds: Tensor) -> Tensor:
        return self._score(torch.linalg.vector_norm(images - sounds, dim=-1))

    @torch.no_grad()
    def center_features(self, images: Tensor, sounds: Tensor) -> None:
        pooled = (self.pooled_images(images), self.pooled_audio(sounds))
        for head, values in zip((self.image_head, self.audio_head), pooled, strict=True):
            shift_output(head, -head(values).mean(0))

    def similarities(self, images: Tensor, sounds: Tensor) -> Tensor:
        """Their cosines."""
        with torch.autocast(images.device.type, enabled=False):
            return images @ sounds.T

    def log_odds(self, similarities: Tensor) -> Tensor:
        return self._score((2 - 2 * similarities).clamp(min=SMALLEST_SQUARE).sqrt())

    def _score(self, distances: Tensor) -> Tensor:
        # The second score minus the first, in float32: autocast would round a distance to eight bits.
        return distances * self.fc3.weight.diff(dim=0)[0, 0] + self.fc3.bias.diff()[0]

    def embed_images(self, images: Tensor) -> Tensor:
        return self.compared_images(images)

    def embed_audio(self, sounds: Tensor) -> Tensor:
        return self.compared_audio(sounds)

    def sign_is_correct(self) -> bool:
        """Whether a smaller distance raises the log-odds of a match; the last layer must keep this sign."""
        return bool(self.fc3.weight[1, 0] < self.fc3.weight[0, 0])

    def probe_features(self, conv5: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.image_head[0](conv5.amax((2, 3))))
        return hidden, of_length_one(self.image_head[2](hidden))


CORRESPONDENCE = AVENet
