"""The base class of correspondence networks: images and audio in, log-odds of a match out."""

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


def gather(rows: Tensor, indices: Tensor | None) -> Tensor:
    """The rows at these indices, or all rows, once each."""
    return rows if indices is None else rows[indices]


class CorrespondenceArguments(Group):
    """The arguments of all correspondence networks, with the ranges that encoder.json may hold.

    A network adds its own arguments; they are also parameters of the stage correspond.
    """

    width: Width
    image_size: Annotated[int, Field(ge=16, le=1024)]


class Correspondence(ImageEncoder):
    """A network that predicts whether images and sounds match.

    Scores are log-odds. The papers have two outputs and a softmax; the score is the second output minus the first.
    Binary cross-entropy of the score equals two-way cross-entropy of the outputs.

    Args:
        image_size: side of the images in px.
        arguments: the other arguments of the architecture.

    Attributes:
        architecture: the name of the network's module, and the arguments.
        audio_samples, audio_rate, audio_channels: of the waveforms, in [-1, 1]: (pairs, samples), or (pairs, channels,
            samples) for two channels.

    Raises:
        EarshotError: the images are too small for the network.
    """

    arguments: type[CorrespondenceArguments]
    audio_samples: int
    audio_rate: int
    audio_channels: int = 1

    def __init__(self, *, image_size: int, **arguments: Any) -> None:
        super().__init__(image_size)
        name = type(self).__module__.rpartition(".")[2]
        if image_size < SMALLEST_SIDE:
            actual = f"correspond.image_size is {image_size}; {name} requires {SMALLEST_SIDE} px or more"
            raise EarshotError(f"{actual}: raise it")
        self.architecture = {"name": name, "image_size": image_size, **arguments}

    @abstractmethod
    def forward(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> Tensor:
        """Log-odds that each pair matches, float32 (pairs,), of uint8 images and float32 waveforms.

        Args:
            images, sounds: one for each pair; or, with indices, each one once for all pairs that share it.
            image_index, audio_index: the index of each pair's image and sound, int64 (pairs,).
        """

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeddings of images, comparable with those of images and of audio: float32 (images, dimensions).

        Raises EarshotError if the network has no embedding.
        """
        raise self._lacks("embedding of a single modality")

    def embed_audio(self, sounds: Tensor) -> Tensor:
        """Embeddings of audio, comparable with those of audio and of images: float32 (sounds, dimensions).

        Raises EarshotError if the network has no embedding.
        """
        raise self._lacks("embedding of a single modality")

    @property
    def units(self) -> int:
        """The number of units of the features that are compared.

        Raises:
            EarshotError: the network compares nothing.
        """
        raise self._lacks_similarities()

    def compared_images(self, images: Tensor) -> Tensor:
        """The features of images that `similarities` compares with audio: (images, ..., units).

        Raises EarshotError if the network has no similarities.
        """
        raise self._lacks_similarities()

    def compared_audio(self, sounds: Tensor) -> Tensor:
        """The features of sounds that `similarities` compares with images: (sounds, units).

        Raises EarshotError if the network has no similarities.
        """
        raise self._lacks_similarities()

    def center_features(self, images: Tensor, sounds: Tensor) -> None:
        """Shift the compared features of each modality to mean 0 over these inputs, before training.

        Raises EarshotError if the network has no similarities.
        """
        raise self._lacks_similarities()

    def similarities(self, images: Tensor, sounds: Tensor) -> Tensor:
        """How similar each image is to each sound, float32 (images, sounds), from their compared features.

        Raises EarshotError if the network compares single pairs alone.
        """
        raise self._lacks_similarities()

    def log_odds(self, similarities: Tensor) -> Tensor:
        """Log-odds of a match, which rise with the similarities, in their shape.

        Raises EarshotError if the network has no similarities.
        """
        raise self._lacks_similarities()

    def image_maps(self, images: Tensor) -> Tensor:
        """conv4_2 of the image tower before its ReLU: (images, channels, height, width).

        Raises EarshotError if the network has no such tower.
        """
        raise self._lacks("image tower")

    def audio_maps(self, sounds: Tensor) -> Tensor:
        """conv4_2 of the audio tower before its ReLU: (sounds, channels, frequencies, times).

        Raises EarshotError if the network has no such tower.
        """
        raise self._lacks("audio tower")

    def localization_map(self, images: Tensor, sounds: Tensor) -> Tensor:
        """Log-odds at every position that the sound comes from there: float32 (pairs, height, width).

        Raises EarshotError if the network has no such map.
        """
        raise self._lacks("localization map")

    def mask_spectrograms(self, frequencies: float, windows: float) -> None:
        """Mask random parts of spectrograms in training, up to these shares of the frequencies and of the windows.

        Raises EarshotError if the network takes waveforms.
        """
        raise self._lacks("spectrogram to mask")

    def fit_audio_scale(self, waveforms: Tensor) -> None:
        """Set the scale of the audio input from training sounds, once, if the network has such a scale."""
        self._check_audio(waveforms)

    def calibrate_bias(
        self, images: Tensor, sounds: Tensor, image_index: Tensor | None = None, audio_index: Tensor | None = None
    ) -> None:
        """Shift the log-odds of these pairs to mean 0 before training, if random weights lean to one side."""

    def set_last_layer(self, kind: str) -> None:
        """Set the initial weights of the last layer, if the network has a choice of them (`AVENet`)."""

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        raise self._lacks("layers for single images")

    def _lacks(self, thing: str) -> EarshotError:
        return EarshotError(f"{self.architecture['name']} has no {thing}; choose another network, such as ave")

    def _lacks_similarities(self) -> EarshotError:
        lack = f"correspond.network={self.architecture['name']} compares single pairs, not all images with all sounds"
        return EarshotError(f"{lack}; set correspond.objective=match, or use ave, avol or dual_encoder")

    def _check_audio(self, waveforms: Tensor) -> None:
        expected = (self.audio_samples,) if self.audio_channels == 1 else (self.audio_channels, self.audio_samples)
        if waveforms.dtype != torch.float32 or tuple(waveforms.shape[1:]) != expected:
            actual = f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            shape = ", ".join(map(str, ("sounds", *expected)))
            raise ValueError(f"waveforms are {actual}; this network requires torch.float32 of shape ({shape})")
