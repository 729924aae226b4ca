"""The common base of L3-Net, AVE-Net and AVOL-Net: an image tower, an audio tower, and a head that compares them.

Sources: Arandjelovic & Zisserman, "Look, listen and learn" (ICCV 2017), section 2, for the towers; the same, "Objects
that sound" (ECCV 2018), and its account in Kim (2020), section 3.1.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.networks.audio_visual_base import Correspondence, CorrespondenceArguments, gather
from earshot.networks.network import Convolutional, initialize
from earshot.networks.overlapping import maps_of_windows
from earshot.networks.spectrogram import RATE, SAMPLES, Masks, Spectrogram
from earshot.networks.towers import EMBEDDING, Tower, global_max_pool, pooled, scaled

POOL5_SIDE = 4  # positions a side of pool5: 4 x 4 x 512 = 8192 (Arandjelovic & Zisserman 2017, section 3.4)
SHARED_HOP = SAMPLES // 4  # windows that overlap by half have borders that cost more than sharing the rest saves
SCALED_AT_ONCE = 64  # spectrograms, 13 MB


class TowerArguments(CorrespondenceArguments):
    """The arguments of a network of two towers."""

    stride: Annotated[int, Field(ge=1, le=2)]
    spectrogram: Literal["linear", "mel"]


class TwoTowers(Correspondence, Convolutional):
    """An image tower and an audio tower for one-second sounds.

    Images are normalized by ImageNet's mean and deviation, spectrograms by one mean and one deviation over all values
    of the training spectrograms (Kim 2020, section 3.3). `fit_audio_scale` sets these, and they are saved with the
    weights; before that they are 0 and 1. Probe layers: conv5 is conv4_2 after its ReLU, `max5` its global maximum,
    `pool5` the map pooled to at most 4 x 4, `fc7` the embedding and `fc6` the hidden layer before it, or without one
    the global maximum.

    Args:
        width: factor on all channels and hidden units.
        stride: of the first convolution of both towers; the papers use 1 for L3 and 2 for AVE and AVOL.
        spectrogram: input of the audio tower, `linear` (the papers') or `mel`.
        image_size: side of the images in px.
        others: further arguments of a network, for its architecture.
    """

    arguments: type[TowerArguments] = TowerArguments
    probe_layers = ("max5", "pool5", "fc6", "fc7")
    audio_mean: Tensor
    audio_std: Tensor
    audio_samples, audio_rate = SAMPLES, RATE
    own_weights: tuple[nn.Module, ...] = ()  # parts that draw their initial weights themselves

    def __init__(
        self,
        *,
        width: float = 1.0,
        stride: int = 2,
        spectrogram: str = "linear",
        image_size: int = 224,
        **others: Any,
    ) -> None:
        super().__init__(image_size=image_size, width=width, stride=stride, spectrogram=spectrogram, **others)
        self.spectrogram, self.masks = Spectrogram(spectrogram), Masks()
        self.register_buffer("audio_mean", torch.zeros(()))
        self.register_buffer("audio_std", torch.ones(()))
        self.build_image_tower(width=width, stride=stride)
        self.audio_tower = Tower(1, width=width, stride=stride)
        self.build_head(self.units)
        for part in self.children():
            if part not in self.own_weights:
                part.apply(initialize)
        if not next(self.parameters()).is_meta:
            self.init_head()

    @property
    def units(self) -> int:
        return scaled(EMBEDDING, self.architecture["width"])

    def build_image_tower(self, *, width: float, stride: int) -> None:
        """Build the image tower, which has `channels`."""
        self.image_tower = Tower(3, width=width, stride=stride)

    @abstractmethod
    def build_head(self, units: int) -> None:
        """Build the layers after the towers; `units` replaces the papers' 128."""

    @abstractmethod
    def init_head(self) -> None:
        """Set the initial weights of the last layer."""

    def convolve(self, normalized: Tensor) -> Tensor:
        return torch.relu(self.image_tower(normalized))

    def image_maps(self, images: Tensor) -> Tensor:
        return self.image_tower(self.normalize(self._checked(images)))

    def audio_maps(self, sounds: Tensor) -> Tensor:
        """As for any network; in eval mode, windows of one sound share what they have in common.

        They are recognized by overlapping in memory, as `torch.Tensor.unfold` cuts them.
        """
        if not self.training and (hop := self._overlapping_hop(sounds)):
            return self._overlapping_maps(sounds.as_strided((1, hop * (len(sounds) - 1) + SAMPLES), (1, 1)), hop)
        spectrograms = (self.spectrogram(sounds) - self.audio_mean) / self.audio_std
        return self.audio_tower(self.masks(spectrograms))

    def _overlapping_maps(self, sound: Tensor, hop: int) -> Tensor:
        """The maps of windows of a sound, (1, samples), that begin every `hop` samples."""
        spectrogram = (self.spectrogram.log_power(sound) - self.audio_mean) / self.audio_std
        kind = self.spectrogram.kind
        starts = range(0, spectrogram.shape[3] - kind.windows + 1, hop // kind.hop)
        return maps_of_windows(self.audio_tower, spectrogram, starts, kind.windows)

    def _overlapping_hop(self, sounds: Tensor) -> int:
        """Samples from one sound to the next, if all are windows of one sound that gain by sharing; or else 0."""
        if sounds.dtype != torch.float32 or sounds.dim() != 2 or sounds.shape[1] != SAMPLES or sounds.stride(1) != 1:
            return 0
        hop = sounds.stride(0)
        return hop if 0 < hop <= SHARED_HOP and hop % self.spectrogram.kind.hop == 0 else 0

    def mask_spectrograms(self, frequencies: float, windows: float) -> None:
        self.masks.frequencies, self.masks.windows = frequencies, windows

    def forward(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> Tensor:
        images, sounds = self.compared_images(images), self.compared_audio(sounds)
        return self.compare(gather(images, image_index), gather(sounds, audio_index))

    def compared_images(self, images: Tensor) -> Tensor:
        return self.project_image(self.pooled_images(images))

    def compared_audio(self, sounds: Tensor) -> Tensor:
        return self.project_audio(self.pooled_audio(sounds))

    def pooled_images(self, images: Tensor) -> Tensor:
        """What the image tower gives for whole images, (images, channels)."""
        return global_max_pool(self.image_maps(images))

    def pooled_audio(self, sounds: Tensor) -> Tensor:
        """What the audio tower gives for whole sounds, (sounds, channels)."""
        return global_max_pool(self.audio_maps(sounds))

    def localization_map(self, images: Tensor, sounds: Tensor) -> Tensor:
        """The match score at each position: float32 (pairs, height, width).

        The papers define a map for AVOL only; the other networks compare the sound with each position separately.
        """
        return self.compare(self.project_positions(images), self.compared_audio(sounds)[:, None, None])

    def project_positions(self, images: Tensor) -> Tensor:
        """The image features to compare with audio at each position of conv4_2: (images, height, width, units)."""
        return self.project_image(torch.relu(self.image_maps(images)).permute(0, 2, 3, 1))

    @abstractmethod
    def project_image(self, channels: Tensor) -> Tensor:
        """The features to compare with audio, (..., units), from the image tower's `channels` (..., channels)."""

    @abstractmethod
    def project_audio(self, channels: Tensor) -> Tensor:
        """The features to compare with images, (..., units), from the audio tower's `channels` (..., channels)."""

    @abstractmethod
    def compare(self, images: Tensor, sounds: Tensor) -> Tensor:
        """Log-odds of a match, float32 (...), of features (..., units) that broadcast with each other."""

    @torch.no_grad()
    def fit_audio_scale(self, waveforms: Tensor) -> None:
        """Set the mean and the deviation of spectrograms to those of these training sounds, (sounds, 48000).

        Raises:
            EarshotError: all values are equal, as in silence.
        """
        super().fit_audio_scale(waveforms)
        parts = waveforms.split(SCALED_AT_ONCE)
        sums = torch.zeros(2, dtype=torch.float64, device=self.audio_mean.device)
        for part in parts:
            values = self.spectrogram(part.to(sums.device)).double()
            sums += torch.stack([values.sum(), values.square().sum()])
        mean, square = sums / (len(waveforms) * values[0].numel())
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        if deviation < 1e-3:
            raise EarshotError(f"{len(waveforms)} training sounds are silent or identical; give clips with sound")
        self.audio_mean.copy_(mean)
        self.audio_std.copy_(deviation)

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        conv5 = self.convolve(normalized)  # (images, 512 w, side, side)
        max5 = conv5.amax((2, 3))
        yield "max5", max5
        yield "pool5", pooled(conv5, POOL5_SIDE, POOL5_SIDE)
        yield from zip(("fc6", "fc7"), self.probe_features(conv5), strict=True)

    def probe_features(self, conv5: Tensor) -> tuple[Tensor, Tensor]:
        """fc6 and fc7, (images, units), from conv4_2 after its ReLU."""
        max5 = conv5.amax((2, 3))
        return max5, max5


def of_length_one(embeddings: Tensor) -> Tensor:
    """Embeddings (..., units) scaled to length 1, float32."""
    return functional.normalize(embeddings.float(), dim=-1)


def shift_output(head: nn.Sequential, shift: Tensor) -> None:
    """Add a shift, (units,), to the outputs of layers that end in a linear one, in place."""
    *_, last = head.children()
    assert isinstance(last, nn.Linear)
    last.bias.add_(shift)
