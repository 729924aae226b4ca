"""What every correspondence network is to the rest: pictures and sounds in, log-odds that they belong together out."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from earshot.core.errors import EarshotError
from earshot.core.params import Group
from earshot.networks.network import ImageEncoder, Width
from earshot.networks.towers import SMALLEST_SIDE


def gather(rows: Tensor, numbers: Tensor | None) -> Tensor:
    """The rows of these numbers, or all, once each."""
    return rows if numbers is None else rows[numbers]


class CorrespondenceArguments(Group):
    """The arguments that all correspondence networks have, in the ranges in which encoder.json may have them.

    A network adds its own, which are parameters of the stage correspond too.
    """

    width: Width
    image_size: Annotated[int, Field(ge=16, le=1024)]


class Correspondence(ImageEncoder):
    """A network that tells whether pictures and sounds belong together.

    Scores are log-odds: where the papers have two outputs and a softmax, the second minus the first, for which binary
    cross-entropy is what two-way cross-entropy is for the two.

    Args:
        image_size: side of the pictures in px.
        arguments: all others of the architecture.

    Attributes:
        architecture: the name, which is that of the network's module, and the arguments.
        sound_samples, sound_rate, sound_channels: of the waveforms, in [-1, 1]: (pairs, samples), or (pairs, channels,
            samples) where there are two.

    Raises:
        EarshotError: pictures so small that nothing of them is left.
    """

    arguments: type[CorrespondenceArguments]
    audio_samples: int
    audio_rate: int
    audio_channels: int = 1

    def __init__(self, *, image_size: int, **arguments: Any) -> None:
        super().__init__(image_size)
        name = type(self).__module__.rpartition(".")[2]
        if image_size < SMALLEST_SIDE:
            raise EarshotError(f"correspond.image_size is {image_size}; {name} wants {SMALLEST_SIDE} px or more")
        self.architecture = {"name": name, "image_size": image_size, **arguments}

    @abstractmethod
    def forward(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> Tensor:
        """Log-odds that each pair belongs together, float32 (pairs,), of uint8 pictures and float32 waveforms.

        Args:
            pictures, sounds: of the pairs, one each; or each once, for several pairs that share them.
            image_index, audio_index: then the number of each pair's picture and sound, int64 (pairs,).
        """

    def embed_images(self, images: Tensor) -> Tensor:
        """What pictures are compared by, with pictures and with sounds: float32 (pictures, dimensions).

        Raises EarshotError where the network has no embedding.
        """
        raise self._lacks("embedding of one sense alone")

    def embed_audio(self, sounds: Tensor) -> Tensor:
        """What sounds are compared by, with sounds and with pictures: float32 (sounds, dimensions).

        Raises EarshotError where the network has no embedding.
        """
        raise self._lacks("embedding of one sense alone")

    def image_maps(self, images: Tensor) -> Tensor:
        """conv4_2 of the picture tower before its ReLU: (pictures, channels, height, width).

        Raises EarshotError where the network has no such tower.
        """
        raise self._lacks("tower of pictures")

    def audio_maps(self, sounds: Tensor) -> Tensor:
        """conv4_2 of the sound tower before its ReLU: (sounds, channels, frequencies, times).

        Raises EarshotError where the network has no such tower.
        """
        raise self._lacks("tower of spectrograms")

    def localization_map(self, images: Tensor, sounds: Tensor) -> Tensor:
        """Where the sound comes from, as log-odds at every position: float32 (pairs, height, width).

        Raises EarshotError where the network has no such map.
        """
        raise self._lacks("map of where a sound comes from")

    def fit_audio_scale(self, waveforms: Tensor) -> None:
        """Set the scale of what the network hears from training sounds, once, where it depends on them."""
        self._check_audio(waveforms)

    def calibrate_bias(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> None:
        """Make the log-odds of such pairs even before training, where weights as drawn lean to one side."""

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        raise self._lacks("layers for single pictures")

    def _lacks(self, thing: str) -> EarshotError:
        return EarshotError(f"{self.architecture['name']} has no {thing}; wanted another network, such as ave")

    def _check_audio(self, waveforms: Tensor) -> None:
        wanted = (self.audio_samples,) if self.audio_channels == 1 else (self.audio_channels, self.audio_samples)
        if waveforms.dtype != torch.float32 or tuple(waveforms.shape[1:]) != wanted:
            found = f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            shape = ", ".join(map(str, ("sounds", *wanted)))
            raise ValueError(f"waveforms are {found}; this network wants torch.float32 of shape ({shape})")
