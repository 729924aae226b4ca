"""Random changes of training sounds.

Volume, noise, shifts and mixing change the waveform, and masks the spectrogram inside the network
(`earshot.networks.spectrogram.Masks`). All random numbers of the waveform come from the caller's generator.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SoundAugmentation:
    """How strongly sounds are changed; the parameters of `correspond` of the same names. 0 changes nothing.

    Args:
        gain_jitter: the volume varies by a factor of 1 - this to 1 + this.
        noise_level: largest root mean square of white noise, as a share of the sound's own.
        time_shift_s: largest shift of the sound against its frame, in seconds, either way.
        mix_share: largest share of another sound of the batch that replaces a part of the sound, as in BYOL-A (Niizumi
            et al. 2021, section III.B), which mixes spectrograms.
        frequency_mask, time_mask: largest share of the frequencies and of the windows in a mask (SpecAugment; Park et
            al. 2019, section 2).
    """

    gain_jitter: float = 0.0
    noise_level: float = 0.0
    time_shift_s: float = 0.0
    mix_share: float = 0.0
    frequency_mask: float = 0.0
    time_mask: float = 0.0

    def stated(self) -> dict[str, float]:
        """The changes that are made, by name."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}

    def gains(self, chances: np.ndarray) -> np.ndarray:
        """Factors of the volume, from random numbers in [0, 1) of any shape."""
        return 1 + self.gain_jitter * (2 * chances - 1)

    def shifts(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray | None:
        """Shifts in seconds, of this shape; None for none."""
        return self.time_shift_s * generator.uniform(-1, 1, shape) if self.time_shift_s else None

    def change(self, sounds: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sounds (sounds, ..., samples), float32, mixed with each other and with noise."""
        each = (len(sounds), *[1] * (sounds.ndim - 1))
        if self.mix_share and len(sounds) > 1:
            shares = generator.uniform(0, self.mix_share, each).astype(np.float32)
            sounds = (1 - shares) * sounds + shares * np.roll(sounds, int(generator.integers(1, len(sounds))), 0)
        if self.noise_level:
            levels = generator.uniform(0, self.noise_level, each).astype(np.float32)
            levels *= np.sqrt(np.square(sounds).mean(axis=tuple(range(1, sounds.ndim)), keepdims=True))
            sounds = sounds + levels * generator.standard_normal(sounds.shape, dtype=np.float32)
        return sounds


def sound_augmentation_of(values: Any) -> SoundAugmentation:
    """The augmentation of the parameters of correspond."""
    return SoundAugmentation(**{each.name: getattr(values, each.name) for each in fields(SoundAugmentation)})
