"""Descriptors of sound as models: the texture, or the folder models/descriptor. They need no torch."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earshot.core.channels import mix_channels
from earshot.embedding.model import Model
from earshot.sound.description import Description, load_description
from earshot.sound.texture import DEFAULTS
from earshot.sound.windows import MIN_DURATION_S, WINDOW_SECONDS

TEXTURE = "texture"


class DescriptorModel(Model):
    """A descriptor of sound as a model.

    A window lies within the sound: near the ends it is shifted, because silence would change the descriptor.
    """

    window_s, min_duration_s, pads_with_silence = WINDOW_SECONDS, MIN_DURATION_S, False

    def __init__(self, description: Description) -> None:
        self.description, self.name = description, description.name
        self.audio_dimensions = description.dimensions

    @classmethod
    def texture(cls) -> "DescriptorModel":
        """The sound texture with the options of `earshot.textures`."""
        return cls(Description.of(TEXTURE, {TEXTURE: DEFAULTS}))

    @classmethod
    def load(cls, folder: Path) -> "DescriptorModel":
        """The descriptor of a run. Raises EarshotError as `load_description` does."""
        return cls(load_description(folder))

    def embed_windows(self, windows: np.ndarray, rate: int, hop: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return self.description.describe(np.stack([mix_channels(window) for window in windows]), rate)

    def _identity(self) -> Iterator[bytes]:
        own = self.description.read_from(Path()).own  # the same wherever its files are
        options = [self.name, self.description.texture.model_dump(), own.model_dump() if own else {}]
        yield json.dumps(options, sort_keys=True).encode()
        for file in self.description.files:
            yield file.read_bytes()
