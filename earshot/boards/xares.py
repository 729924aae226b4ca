"""X-ARES: https://github.com/jimbozhang/xares. Name the model in a file of your own:

    from earshot.boards.xares import EarshotEncoder

    class MyEncoder(EarshotEncoder):
        source = "models/correspond"

and run `python -m xares.run my_encoder.py src/tasks/*.py`. Without a source it is the sound texture.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from earshot.embedding.loading import load

TEXTURE_RATE = 20_000  # Hz, at which the texture is analyzed
HOP_MS = 100


class EarshotEncoder(torch.nn.Module):
    """An encoder as X-ARES requires it.

    Attributes:
        source: of `earshot.load`; a subclass sets it.
        sampling_rate: Hz.
        output_dim: dimensions.
        hop_size_in_ms: from one embedding to the next.
    """

    source: ClassVar[str] = "texture"

    def __init__(self, source: str | None = None) -> None:
        super().__init__()
        self.model = load(source or self.source)
        self.sampling_rate = self.model.audio_rate or TEXTURE_RATE
        self.output_dim, self.hop_size_in_ms = self.model.audio_dimensions, HOP_MS

    def forward(self, audio: Tensor) -> Tensor:
        """Embeddings, float32 (sounds, T, D), of sounds (sounds, samples) or (samples,)."""
        sounds = audio.detach().cpu().numpy().astype(np.float32)
        sounds = sounds[None] if sounds.ndim == 1 else sounds
        least = int(np.ceil(self.model.min_duration_s * self.sampling_rate))
        sounds = np.pad(sounds, ((0, 0), (0, max(least - sounds.shape[1], 0))))
        rows = [self.model.embed_audio(sound, self.sampling_rate, HOP_MS / 1000, unfit="nan")[0] for sound in sounds]
        return torch.from_numpy(np.nan_to_num(np.stack(rows))).to(audio.device)
