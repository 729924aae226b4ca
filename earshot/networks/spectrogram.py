"""Log-spectrograms of one second of sound: what the sound towers of the correspondence networks see.

Windows of 10 ms that overlap by half (Arandjelovic & Zisserman 2017, section 2.2) with no padding at the ends: of
48,000 samples 480 a window and 240 from one to the next make 199 windows, and a 512-point transform 257 frequencies.
"""

import torch
import torchaudio
from torch import Tensor, nn

RATE = 48_000  # Hz
SECONDS = 1.0
SAMPLES = round(RATE * SECONDS)
WINDOW, HOP, POINTS = 480, 240, 512  # samples
FREQUENCIES = POINTS // 2 + 1
WINDOWS = (SAMPLES - WINDOW) // HOP + 1
# Powers below it count as it: of sound in [-1, 1] about what rounding to 16 bits leaves in a bin, 180 (the squares of
# the window's weights, summed) * (2 / 65536)^2 / 12 = 1.4e-8. A tone of amplitude 1 has a power of 14,400.
FLOOR = 1e-8


class Spectrogram(nn.Module):
    """Natural logarithms of power: waveforms (n, 48000) become float32 (n, 1, 257, 199), frequency by time.

    They are computed on the waveforms' device; autocast leaves transforms and logarithms in float32.

    Raises:
        ValueError: waveforms of another type or shape.
    """

    def __init__(self) -> None:
        super().__init__()
        # Torch puts the window into the middle of each transform of 512, whose first sample is thus 16 before the
        # window's: so many zeros before the sound let the first window begin with its first sample.
        self.transform = torchaudio.transforms.Spectrogram(
            n_fft=POINTS, win_length=WINDOW, hop_length=HOP, pad=(POINTS - WINDOW) // 2, center=False, power=None
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        if waveforms.dtype != torch.float32 or waveforms.dim() != 2 or waveforms.shape[1] != SAMPLES:
            found = f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            raise ValueError(f"waveforms are {found}; a spectrogram wants torch.float32 of shape (n, {SAMPLES})")
        spectrum = self.transform(waveforms)  # complex (n, 257, 199)
        power = spectrum.real.square() + spectrum.imag.square()  # twice as fast as torchaudio's squared modulus
        return power.clamp(min=FLOOR).log()[:, None]  # (n, 1, 257, 199)
