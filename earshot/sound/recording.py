"""Sound textures of a whole recording, for use outside the pipeline."""

from typing import Any

import numpy as np

from earshot.core.channels import mix_channels
from earshot.sound.texture import sound_textures
from earshot.sound.windows import WINDOW_SECONDS, UnfitSound, as_float32, samples_of


def textures(
    samples: np.ndarray, sample_rate: int, *, hop: float = WINDOW_SECONDS, device: str | None = None, **options: Any
) -> np.ndarray:
    """The sound textures of windows of 3.75 s of a recording: float32 (windows, 502), unscaled.

    Args:
        samples: (samples,) or (samples, channels), which `mix_channels` mixes; floats in [-1, 1] or int16.
        sample_rate: Hz, any: the analysis resamples to 20 kHz.
        hop: seconds from the start of one window to the start of the next. The windows lie inside the recording: a
            rest at the end that fills no window is left out. A recording of 1.5 to 3.75 s is one window.
        device: of torch, such as `cuda`, where `TextureTransform` computes; by default numpy does, without torch.
        options: those of `sound_textures`.

    Raises:
        UnfitSound: an EarshotError and a ValueError, for a recording below 1.5 s and for samples that are not finite.
        EarshotError: an option has another value than TextureOptions names.
    """
    sound = as_float32(np.asarray(samples))
    if sound.ndim not in (1, 2):
        raise UnfitSound(f"samples have the shape {sound.shape}: expected (samples,) or (samples, channels)")
    if sample_rate <= 0 or not hop > 0:
        raise UnfitSound(f"sample_rate is {sample_rate} Hz and hop {hop} s: expected numbers above 0")
    mono = sound if sound.ndim == 1 else mix_channels(sound)
    length, step = samples_of(WINDOW_SECONDS, sample_rate), max(samples_of(hop, sample_rate), 1)
    if device is not None:
        return _on_device(mono, sample_rate, length, step, device, options)
    if mono.size <= length:
        return sound_textures(mono[None], sample_rate, **options)
    views = np.lib.stride_tricks.sliding_window_view(mono, length)[::step]
    return sound_textures(views, sample_rate, **options)


def _on_device(
    mono: np.ndarray, sample_rate: int, length: int, step: int, device: str, options: dict[str, Any]
) -> np.ndarray:
    """Textures of windows of `length` samples, one every `step` samples, computed on a device of torch."""
    import torch

    from earshot.sound.texture_transform import TextureTransform

    with torch.inference_mode():
        sound = torch.tensor(mono, device=device)
        windows = sound.unfold(0, length, step) if mono.size > length else sound[None]
        return TextureTransform(sample_rate, **options)(windows).cpu().numpy()
