"""L3-Net, AVE-Net and AVOL-Net: a tower for pictures, a tower for sounds, and three ways to compare what they give.

Sources: Arandjelovic & Zisserman, "Look, listen and learn" (ICCV 2017), section 2, for the towers and L3; the same,
"Objects that sound" (ECCV 2018), and its account in Kim (2020), section 3.1, for AVE and AVOL.
"""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.networks.audio_visual_base import Correspondence, chosen
from earshot.networks.network import initialise
from earshot.networks.spectrogram import RATE, SAMPLES, Spectrogram
from earshot.networks.towers import EMBEDDING, Tower, pooled, scaled, strongest

PROBED_SIDE = 4  # positions a side of pool5: 4 x 4 x 512 = 8192 (Arandjelovic & Zisserman 2017, section 3.4)
SCALED_AT_ONCE = 64  # spectrograms, 13 MB
# With which AVE's last layer begins, ours: log-odds are 2 (1.414 - distance). The root of 2 is the distance of
# directions that have nothing in common, near which all pairs are at first: they begin even, not pulled to one side.
AVE_STEEPNESS, AVE_EVEN = 2.0, 2**0.5


class TwoTowers(Correspondence):
    """What the three have in common: pictures and one-second sounds through a tower each.

    Pictures are normalised by ImageNet's mean and deviation, spectrograms by one mean and one deviation over all values
    of the training spectrograms (Kim 2020, section 3.3), which `fit_sound_scale` sets and weights keep; before that
    they are 0 and 1. The layers that are probed: conv5 is conv4_2 after its ReLU, `max5` its global maximum, `pool5`
    the map pooled to at most 4 x 4, `fc7` the embedding and `fc6` the hidden layer before it; where there is none, the
    global maximum.

    Args:
        width: factor on all channels and hidden units.
        stride: of the first convolution of both towers; the papers have 1 for L3 and 2 for AVE and AVOL.
        image_size: side of the pictures in px.
    """

    name: str
    sound_samples, sound_rate = SAMPLES, RATE

    def __init__(self, *, width: float = 1.0, stride: int = 2, image_size: int = 224) -> None:
        super().__init__(self.name, image_size=image_size, width=width, stride=stride)
        self.spectrogram = Spectrogram()
        self.register_buffer("sound_mean", torch.zeros(()))
        self.register_buffer("sound_deviation", torch.ones(()))
        self.picture_tower = Tower(3, width=width, stride=stride)
        self.sound_tower = Tower(1, width=width, stride=stride)
        self.join(self.picture_tower.channels, scaled(EMBEDDING, width))
        self.apply(initialise)
        self.balance()

    @abstractmethod
    def join(self, channels: int, units: int) -> None:
        """Make the layers after the towers, which give `channels`; the papers' 128 `units` are as many here."""

    @abstractmethod
    def balance(self) -> None:
        """Give the last layer its first weights."""

    def convolve(self, normalised: Tensor) -> Tensor:
        return torch.relu(self.picture_tower(normalised))

    def picture_maps(self, pictures: Tensor) -> Tensor:
        return self.picture_tower(self.normalise(self._checked(pictures)))

    def sound_maps(self, sounds: Tensor) -> Tensor:
        spectrograms = (self.spectrogram(sounds) - self.sound_mean) / self.sound_deviation
        return self.sound_tower(spectrograms)

    def forward(
        self, pictures: Tensor, sounds: Tensor, seen: Tensor | None = None, heard: Tensor | None = None
    ) -> Tensor:
        pictures = self.project_picture(strongest(self.picture_maps(pictures)))
        sounds = self.project_sound(strongest(self.sound_maps(sounds)))
        return self.compare(chosen(pictures, seen), chosen(sounds, heard))

    def sounding_map(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """What the network would say if all of the picture gave what each of its positions gives.

        The papers have a map for AVOL alone; for the others this is their own comparison, position by position.
        """
        sounds = self.project_sound(strongest(self.sound_maps(sounds)))
        return self.compare(self.project_positions(pictures), sounds[:, None, None])

    def project_positions(self, pictures: Tensor) -> Tensor:
        """What is compared with sounds at each position of conv4_2: (pictures, height, width, units)."""
        return self.project_picture(torch.relu(self.picture_maps(pictures)).permute(0, 2, 3, 1))

    @abstractmethod
    def project_picture(self, channels: Tensor) -> Tensor:
        """What of the picture tower's `channels` (..., channels) is compared with sounds: (..., units)."""

    @abstractmethod
    def project_sound(self, channels: Tensor) -> Tensor:
        """What of the sound tower's `channels` (..., channels) is compared with pictures: (..., units)."""

    @abstractmethod
    def compare(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """Log-odds that they belong together, float32 (...), of (..., units) that broadcast with each other."""

    @torch.no_grad()
    def fit_sound_scale(self, waveforms: Tensor) -> None:
        """Set the mean and the deviation of spectrograms to those of these training sounds, (sounds, 48000).

        Raises:
            EarshotError: all values are the same, as those of silence are.
        """
        super().fit_sound_scale(waveforms)
        parts = waveforms.split(SCALED_AT_ONCE)
        sums = torch.zeros(2, dtype=torch.float64, device=self.sound_mean.device)
        for part in parts:
            values = self.spectrogram(part.to(sums.device)).double()
            sums += torch.stack([values.sum(), values.square().sum()])
        mean, square = sums / (len(waveforms) * values[0].numel())
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        if deviation < 1e-3:
            raise EarshotError(f"{len(waveforms)} training sounds are all alike or silent; wanted sound to learn from")
        self.sound_mean.copy_(mean)
        self.sound_deviation.copy_(deviation)

    def activations(self, normalised: Tensor) -> Iterator[tuple[str, Tensor]]:
        conv5 = self.convolve(normalised)  # (pictures, 512 w, side, side)
        max5 = conv5.amax((2, 3))
        yield "max5", max5
        yield "pool5", pooled(conv5, PROBED_SIDE, PROBED_SIDE)
        yield from zip(("fc6", "fc7"), self.probed(conv5), strict=True)

    def probed(self, conv5: Tensor) -> tuple[Tensor, Tensor]:
        """fc6 and fc7, (pictures, units), of conv4_2 after its ReLU."""
        max5 = conv5.amax((2, 3))
        return max5, max5


class L3Net(TwoTowers):
    """Concatenates the strongest activations of both towers: 512 + 512, a hidden layer of 128, two outputs.

    An embedding is the tower's pool4, 512 units: the network does not align the two (Kim 2020, section 4.2).
    """

    name = "l3"

    def join(self, channels: int, units: int) -> None:
        self.fc1 = nn.Linear(2 * channels, units)
        self.fc2 = nn.Linear(units, 2)

    def balance(self) -> None:
        nn.init.zeros_(self.fc2.weight)  # at first all pairs are equally likely

    def project_picture(self, channels: Tensor) -> Tensor:
        return channels

    def project_sound(self, channels: Tensor) -> Tensor:
        return channels

    def compare(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        both = torch.cat(torch.broadcast_tensors(pictures, sounds), dim=-1)
        return self.fc2(torch.relu(self.fc1(both))).float().diff(dim=-1)[..., 0]

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        return strongest(self.picture_maps(pictures)).float()

    def embed_sounds(self, sounds: Tensor) -> Tensor:
        return strongest(self.sound_maps(sounds)).float()


class AVENet(TwoTowers):
    """Compares by distance: embeddings of 128 units of length 1 for either sense, and how far apart they are.

    The last layer sees one number, the distance, and gives two. Its first weights say that a small distance means a
    match: with the opposite sign, which random weights have as often as not, training would first pull apart what
    belongs together, until the sign has changed, and the loss would stay at chance for long.
    """

    name = "ave"

    def join(self, channels: int, units: int) -> None:
        self.embed_picture, self.embed_sound = (
            nn.Sequential(nn.Linear(channels, units), nn.ReLU(inplace=True), nn.Linear(units, units)) for _ in range(2)
        )
        self.fc3 = nn.Linear(1, 2)

    def balance(self) -> None:
        with torch.no_grad():
            half = torch.tensor([[1.0], [-1.0]], device=self.fc3.weight.device) * AVE_STEEPNESS / 2
            self.fc3.weight.copy_(half)
            self.fc3.bias.copy_(-AVE_EVEN * half[:, 0])

    def project_picture(self, channels: Tensor) -> Tensor:
        return _of_length_one(self.embed_picture(channels))

    def project_sound(self, channels: Tensor) -> Tensor:
        return _of_length_one(self.embed_sound(channels))

    def compare(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        distances = torch.linalg.vector_norm(pictures - sounds, dim=-1)
        # The second score minus the first, in float32: autocast would round a distance to eight bits.
        return distances * self.fc3.weight.diff(dim=0)[0, 0] + self.fc3.bias.diff()[0]

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        return self.project_picture(strongest(self.picture_maps(pictures)))

    def embed_sounds(self, sounds: Tensor) -> Tensor:
        return self.project_sound(strongest(self.sound_maps(sounds)))

    def near_means_match(self) -> bool:
        """Whether a smaller distance raises the log-odds of a match: the sign that the last layer must keep."""
        return bool(self.fc3.weight[1, 0] < self.fc3.weight[0, 0])

    def probed(self, conv5: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.embed_picture[0](conv5.amax((2, 3))))
        return hidden, _of_length_one(self.embed_picture[2](hidden))


class AVOLNet(TwoTowers):
    """Compares the sound with every position of the picture: the best one tells, and the map shows where.

    The picture keeps its map of 14 x 14: two 1x1 convolutions make 128 channels of it. Their dot product with the 128
    units of the sound, calibrated by a scale and a bias (a 1x1 convolution of one channel), is a map of log-odds. The
    papers take its sigmoid and then the maximum; that of the log-odds is the same, since a sigmoid keeps order. An
    embedding, ours, is the maximum of every channel of a picture's map, or the sound's units, scaled to length 1.
    """

    name = "avol"

    def join(self, channels: int, units: int) -> None:
        self.embed_position, self.embed_sound = (
            nn.Sequential(nn.Linear(channels, units), nn.ReLU(inplace=True), nn.Linear(units, units)) for _ in range(2)
        )
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def balance(self) -> None:
        # A large product means a match: random weights would say the opposite as often as not. At first the log-odds
        # are the mean product of the units, some tenths.
        nn.init.constant_(self.scale, 1 / self.embed_sound[2].out_features)

    @torch.no_grad()
    def even_out(
        self, pictures: Tensor, sounds: Tensor, seen: Tensor | None = None, heard: Tensor | None = None
    ) -> None:
        # Of many positions the best one is well above 0 by chance: training would first pull all of them down.
        self.bias -= self(pictures, sounds, seen, heard).mean()

    def forward(
        self, pictures: Tensor, sounds: Tensor, seen: Tensor | None = None, heard: Tensor | None = None
    ) -> Tensor:
        positions = self.project_positions(pictures)
        sounds = self.project_sound(strongest(self.sound_maps(sounds)))
        return self.compare(chosen(positions, seen), chosen(sounds, heard)[:, None, None]).amax((1, 2))

    def project_picture(self, channels: Tensor) -> Tensor:
        return self.embed_position(channels)

    def project_sound(self, channels: Tensor) -> Tensor:
        return self.embed_sound(channels)

    def compare(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        # In float32: autocast would round a matrix product to eight bits.
        return self.scale * (pictures.float() * sounds.float()).sum(-1) + self.bias

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        return self.probed(self.convolve(self.normalise(self._checked(pictures))))[1]

    def embed_sounds(self, sounds: Tensor) -> Tensor:
        return _of_length_one(self.project_sound(strongest(self.sound_maps(sounds))))

    def probed(self, conv5: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.embed_position[0](conv5.permute(0, 2, 3, 1)))
        return hidden.amax((1, 2)), _of_length_one(self.embed_position[2](hidden).amax((1, 2)))


def _of_length_one(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings.float(), dim=-1)
