"""The computations of a network that leave for other programs: waveforms or images in, embeddings or scores out.

Each is a module in real numbers with one input and one output, the spectrogram included, and the same in every format.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.embedding.network import NetworkModel
from earshot.embedding.published import PROBE_RATE, probe_image, probe_sound
from earshot.networks.network import Network
from earshot.networks.spectrogram import SAMPLES, Spectrogram
from earshot.networks.two_towers import TwoTowers

TOLERANCE = 1e-4  # of an output's values, relative to the largest


class RealSpectrogram(nn.Module):
    """`Spectrogram` in real numbers: a convolution with the cosines and sines of each frequency, under the window."""

    waves: Tensor

    def __init__(self, spectrogram: Spectrogram) -> None:
        super().__init__()
        self.kind, self.spectrogram = spectrogram.kind, spectrogram
        samples = torch.arange(self.kind.window).double()
        angles = 2 * math.pi * torch.arange(self.kind.bins)[:, None] * samples / self.kind.points
        window = torch.hann_window(self.kind.window, dtype=torch.float64)
        waves = torch.cat([angles.cos(), angles.sin()]) * window  # (2 x bins, window)
        self.register_buffer("waves", waves.float()[:, None])

    def forward(self, waveforms: Tensor) -> Tensor:
        parts = nn.functional.conv1d(waveforms[:, None], self.waves, stride=self.kind.hop).mT  # (n, windows, 2 x bins)
        power = parts[..., : self.kind.bins].square() + parts[..., self.kind.bins :].square()
        return self.spectrogram.log_of(power)


class AudioEmbedding(nn.Module):
    """Waveforms, float32 (n, 48000), to embeddings."""

    def __init__(self, network: TwoTowers) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()
        self.network.spectrogram = cast(Any, RealSpectrogram(self.network.spectrogram))

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.network.embed_audio(waveforms)


class ImageEmbedding(nn.Module):
    """Images, uint8 (n, 3, size, size), to embeddings."""

    def __init__(self, model: NetworkModel) -> None:
        super().__init__()
        self.network, self.embed = copy.deepcopy(model.network).cpu(), model.embed_images

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(self.network, images)


class Scores(nn.Module):
    """Images, uint8 (n, 3, size, size), to the scores of the labels."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


@dataclass(frozen=True)
class Exported:
    """A computation of a network.

    Args:
        name: of its file: audio, images or labels.
        module: in eval mode, on the CPU.
        inputs: an example of its input, (2, ...); the first dimension may have any size.
        input, output: their names.
        embed: the network's own function, which gives the values that are expected.
    """

    name: str
    module: nn.Module
    inputs: Tensor
    input: str
    output: str
    embed: Callable[[Tensor], Tensor]

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any]]:
        """The dimension that may have any size."""
        return ({0: torch.export.Dim("n", min=1)},)

    def difference(self, actual: np.ndarray, file: Path) -> float:
        """The largest difference from PyTorch, relative to the largest value, of what a file computes of `inputs`.

        Raises EarshotError if it is larger than TOLERANCE.
        """
        with torch.inference_mode():
            expected = self.embed(self.inputs).float().numpy()
        difference = float(np.abs(actual - expected).max() / np.abs(expected).max(initial=1e-6))
        if not difference <= TOLERANCE:
            raise EarshotError(f"{file}: differs from PyTorch by {difference:.2g}, expected at most {TOLERANCE:g}")
        return difference


def exported(model: NetworkModel) -> Iterator[Exported]:
    """The sounds' and images' embeddings, and the scores of the labels of a network of the stage pretrain."""
    network = model.network
    sounds = torch.from_numpy(np.stack([probe_sound()[:SAMPLES], probe_sound()[-SAMPLES:]]))
    image = torch.from_numpy(model.fit_image(probe_image())).permute(2, 0, 1)
    images = torch.stack([image, 255 - image]).contiguous()
    if isinstance(network, TwoTowers):
        audio = AudioEmbedding(network).eval()
        yield Exported("audio", audio, sounds, "waveforms", "embeddings", network.embed_audio)
    embedding = ImageEmbedding(model).eval()
    yield Exported("images", embedding, images, "images", "embeddings", embedding)
    if isinstance(network, Network):
        scores = Scores(network).eval()
        yield Exported("labels", scores, images, "images", "scores", scores)


def properties(model: NetworkModel) -> dict[str, str]:
    """What a file says of its origin: the version of Earshot, the fingerprint, and the rate of waveforms in Hz."""
    return {"earshot": metadata.version("earshot"), "fingerprint": model.fingerprint, "rate": str(PROBE_RATE)}
