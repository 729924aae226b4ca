"""The multisensory network of Owens & Efros (2018): 3-d convolutions over frames with early fusion of the waveform.

The layers follow the authors' released code, with these differences: max pooling to fixed lengths replaces fractional
pooling, whose positions are random; batch norm is the standard one; convolutions before a batch norm have no biases;
and images are normalized by ImageNet's mean and deviation, as for the other networks.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from earshot.networks.audio_visual_base import Correspondence, CorrespondenceArguments, gather
from earshot.networks.network import initialize
from earshot.networks.towers import scaled

RATE = 21_000  # Hz
FRAMES = 125  # 4.2 s at 29.97 frames a second
SAMPLES = 87_588  # round(125 * 21000 / 29.97)
COMPRESSION = 255.0  # of loudness

# The layers for waveforms (1) and for sequences of images (3).
KINDS: dict[int, Any] = {1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d), 3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)}

Size = int | tuple[int, ...]


class MultisensoryArguments(CorrespondenceArguments):
    """The arguments of the multisensory network."""

    frames: Annotated[int, Field(ge=2, le=1000)]
    audio_samples: Annotated[int, Field(ge=1000, le=1_000_000)]


class Multisensory(Correspondence):
    """Predicts whether a sequence of frames and a stereo waveform are synchronous.

    The audio maps are pooled to the number of frames, repeated at every position, and concatenated with the image maps;
    all later layers use both. The score is a linear function of the mean over times and positions. The same function at
    every position gives the localization map, whose mean is the score.

    Args:
        width: factor on all channels.
        image_size: side of the images in px.
        frames: of a sequence; training begins with fewer for the same sound, that is a lower frame rate.
        audio_samples: of each channel of the waveform, at 21 kHz.
    """

    arguments = MultisensoryArguments
    probe_layers = ()  # it takes no single images
    audio_rate, audio_channels = RATE, 2

    def __init__(
        self, *, width: float = 1.0, image_size: int = 224, frames: int = FRAMES, audio_samples: int = SAMPLES
    ) -> None:
        super().__init__(image_size=image_size, width=width, frames=frames, audio_samples=audio_samples)
        self.frames, self.audio_samples = frames, audio_samples
        base = scaled(64, width)
        self.sound = nn.Sequential(
            _convolved(1, 2, base, 65, 4),
            nn.MaxPool1d(4, ceil_mode=True),
            Residual(1, base, 2 * base, 15, 4),
            Residual(1, 2 * base, 2 * base, 15, 4),
            Residual(1, 2 * base, 4 * base, 15, 4),
        )
        self.audio_last = _convolved(1, 4 * base, 2 * base, 3, 1)
        self.images = nn.Sequential(
            _convolved(3, 3, base, (5, 7, 7), 2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
            Residual(3, base, base, 3, 1),
            Residual(3, base, base, 3, 2),
        )
        self.merge = nn.Sequential(
            _convolved(3, 3 * base, 8 * base, 1, 1), nn.Conv3d(8 * base, 2 * base, 1, bias=False)
        )
        self.merge_norm = nn.BatchNorm3d(2 * base)
        self.both = nn.Sequential(
            Residual(3, 2 * base, 2 * base, 3, 1),
            Residual(3, 2 * base, 2 * base, 3, 1),
            Residual(3, 2 * base, 4 * base, 3, 2),
            Residual(3, 4 * base, 4 * base, 3, 1),
            Residual(3, 4 * base, 8 * base, 3, (1, 2, 2)),
            Residual(3, 8 * base, 8 * base, 3, 1),
        )
        self.logit = nn.Linear(8 * base, 1)
        self.apply(initialize)
        nn.init.zeros_(self.logit.weight)  # at first all pairs are equally likely

    def to(self, *where, memory_format: torch.memory_format | None = None, **options) -> "Multisensory":
        """As for any module, but ignores `channels_last`, a layout of single images."""
        return super().to(*where, **options)

    def forward(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> Tensor:
        fused = self.fuse(images, sounds, image_index, audio_index)
        return self.logit(fused.mean((2, 3, 4))).float()[:, 0]

    def localization_map(self, images: Tensor, sounds: Tensor) -> Tensor:
        """The class activation map, averaged over time: float32 (pairs, height, width); its mean is the score."""
        fused = self.fuse(images, sounds).mean(2)  # (pairs, 512 w, height, width)
        return self.logit(fused.movedim(1, -1)).float()[..., 0]

    def fuse(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> Tensor:
        """The last maps: (pairs, 512 w, times, height, width), 16 x 7 x 7 positions at the paper's size."""
        images = self.images(self.normalize(self._checked(images)).transpose(1, 2))  # (n, 64 w, 32, 28, 28)
        sounds = self.audio_at(sounds, images.shape[2])  # (n, 128 w, 32)
        images, sounds = gather(images, image_index), gather(sounds, audio_index)[..., None, None]
        both = torch.cat([images, sounds.expand(-1, -1, *images.shape[2:])], dim=1)  # (pairs, 192 w, 32, 28, 28)
        kept = images.shape[1]
        short = torch.cat([both[:, :kept], both[:, -kept:]], dim=1)  # (pairs, 128 w, 32, 28, 28)
        return self.both(torch.relu(self.merge_norm(self.merge(both) + short)))

    def audio_at(self, sounds: Tensor, times: int) -> Tensor:
        """Audio features at each of `times` times: (sounds, 128 w, times)."""
        self._check_audio(sounds)
        maps = self.sound(compressed(sounds))  # (sounds, 256 w, 86)
        return self.audio_last(functional.adaptive_max_pool1d(maps, times))


class Residual(nn.Module):
    """Two convolutions and a shortcut: a 1x1 convolution if the channels differ, otherwise the identity.

    Args:
        dimensions: 1 for sounds, 3 for sequences.
        channels, wide: channels of the input and of the output.
        kernel: of both convolutions.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, dimensions: int, channels: int, wide: int, kernel: int, stride: Size) -> None:
        super().__init__()
        convolution, norm, pool = KINDS[dimensions]
        if channels == wide:
            self.short = pool(1, stride)
        else:
            self.short = nn.Sequential(convolution(channels, wide, 1, stride, bias=False), norm(wide))
        self.first = _convolved(dimensions, channels, wide, kernel, stride)
        self.second = convolution(wide, wide, kernel, padding=_middle(kernel), bias=False)
        self.norm = norm(wide)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.norm(self.second(self.first(maps)) + self.short(maps)))


def compressed(waveforms: Tensor) -> Tensor:
    """Waveforms in [-1, 1] with their loudness compressed: sign(x) log(1 + 255 |x|) / log 256."""
    return waveforms.sign() * torch.log1p(COMPRESSION * waveforms.abs()) / math.log1p(COMPRESSION)


def _convolved(dimensions: int, channels: int, wide: int, kernel: Size, stride: Size) -> nn.Sequential:
    convolution, norm, _ = KINDS[dimensions]
    return nn.Sequential(
        convolution(channels, wide, kernel, stride, padding=_middle(kernel), bias=False),
        norm(wide),
        nn.ReLU(inplace=True),
    )


def _middle(kernel: Size) -> Size:
    """The padding that centers an odd kernel: one output for every stride of the input."""
    return kernel // 2 if isinstance(kernel, int) else tuple(size // 2 for size in kernel)


CORRESPONDENCE = Multisensory
