"""HEAR: https://hearbenchmark.com, for hear-validator and heareval.

    hear-validator earshot.boards.hear --model models/correspond
    python -m heareval.embeddings.runner earshot.boards.hear --model models/correspond --tasks-dir tasks

The model is the source of `earshot.load`; without one it is the sound texture. Sounds are mono in [-1, 1].
"""

import numpy as np
import torch
from torch import Tensor

from earshot.embedding.loading import load
from earshot.embedding.model import Model

TEXTURE_RATE = 22_050  # Hz, the lowest of HEAR's rates that holds what the texture analyzes, up to 10 kHz
TIMESTAMP_HOP_S = 0.05  # at most 50 ms are advised
SCENE_HOP_S = 0.5


class HearModel(torch.nn.Module):
    """A model with the attributes that HEAR requires.

    Attributes:
        sample_rate: Hz.
        scene_embedding_size, timestamp_embedding_size: dimensions.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.sample_rate = model.audio_rate or TEXTURE_RATE
        self.scene_embedding_size = self.timestamp_embedding_size = model.audio_dimensions

    def embed(self, audio: Tensor, hop_s: float) -> tuple[Tensor, Tensor]:
        """Embeddings, float32 (sounds, T, D), and times in ms, float32 (sounds, T), of sounds (sounds, samples).

        Silence is a sound too, and what is too short is continued by silence.
        """
        if audio.dim() != 2:
            raise ValueError(f"audio has the shape {tuple(audio.shape)}, expected (sounds, samples)")
        rows, milliseconds = [], []
        for sound in audio.detach().cpu().numpy().astype(np.float32):
            embeddings, times = self.model.embed_audio(self._long_enough(sound), self.sample_rate, hop_s, unfit="nan")
            rows.append(np.nan_to_num(embeddings))
            milliseconds.append(1000 * times)
        embedded = torch.from_numpy(np.stack(rows)).to(audio.device)
        return embedded, torch.from_numpy(np.stack(milliseconds)).float().to(audio.device)

    def _long_enough(self, sound: np.ndarray) -> np.ndarray:
        least = int(np.ceil(self.model.min_duration_s * self.sample_rate))
        return np.pad(sound, (0, max(least - len(sound), 0)))


def load_model(model_file_path: str = "") -> HearModel:
    """The model to evaluate. Raises EarshotError as `earshot.load` does."""
    return HearModel(load(model_file_path or "texture"))


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings every 50 ms: float32 (sounds, T, D), and times in ms, float32 (sounds, T)."""
    return model.embed(audio, TIMESTAMP_HOP_S)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """The mean embedding of each sound: float32 (sounds, D)."""
    return model.embed(audio, SCENE_HOP_S)[0].mean(dim=1)
