"""Log-spectrograms of one second of sound, the input of the correspondence networks' audio towers.

Windows of 10 ms overlap by half (Arandjelovic & Zisserman 2017, section 2.2), without padding at the ends. With windows
of 480 samples and a hop of 240, 48,000 samples give 199 windows; a 512-point transform gives 257 frequencies.
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
# Lower bound of power: about the rounding noise of 16-bit sound in a bin, 180 (sum of the window's squared weights)
# * (2 / 65536)^2 / 12 = 1.4e-8. A tone of amplitude 1 has a power of 14,400.
FLOOR = 1e-8


class Spectrogram(nn.Module):
    """Natural logarithms of power: waveforms (n, 48000) become float32 (n, 1, 257, 199), frequency by time.

    They are computed on the waveforms' device; autocast leaves transforms and logarithms in float32.

    Raises:
        ValueError: the waveforms have another type or shape.
    """

    def __init__(self) -> None:
        super().__init__()
        # Torch centers the window in each transform of 512, which thus begins 16 samples before the window: 16 zeros
        # before the sound align the first window with the first sample.
        with torch.device("cpu"):  # on the device `meta`, torch would import its compiler for the window
            self.transform = torchaudio.transforms.Spectrogram(
                n_fft=POINTS, win_length=WINDOW, hop_length=HOP, pad=(POINTS - WINDOW) // 2, center=False, power=None
            )

    def forward(self, waveforms: Tensor) -> Tensor:
        if waveforms.dtype != torch.float32 or waveforms.dim() != 2 or waveforms.shape[1] != SAMPLES:
            actual = f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            raise ValueError(f"waveforms are {actual}; a spectrogram requires torch.float32 of shape (n, {SAMPLES})")
        return self.log_power(waveforms)

    def log_power(self, waveforms: Tensor) -> Tensor:
        """That of waveforms of any length, (n, samples): (n, 1, 257, windows)."""
        spectrum = self.transform(waveforms)  # complex (n, 257, windows)
        power = spectrum.real.square() + spectrum.imag.square()  # twice as fast as torchaudio's squared modulus
        return power.clamp(min=FLOOR).log()[:, None]


class Masks(nn.Module):
    """In training mode, sets a random band of frequencies and a random stretch of windows of each spectrogram to 0.

    0 is the mean of normalized spectrograms. A mask's size is uniform from 0 to its largest, and so is its place (Park
    et al. 2019, "SpecAugment", section 2, with one mask of each kind). Torch's generator draws them.

    Attributes:
        frequencies, windows: the largest share of the frequencies, and of the windows, in a mask; 0 for none.
    """

    frequencies = windows = 0.0

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Normalized spectrograms (n, 1, frequencies, windows), masked."""
        if self.training:
            for dim, share in ((2, self.frequencies), (3, self.windows)):
                if share:
                    spectrograms = spectrograms.masked_fill(_band(spectrograms, dim, share), 0)
        return spectrograms


def _band(spectrograms: Tensor, dim: int, share: float) -> Tensor:
    """A random band of each spectrogram along a dimension, as bool (n, 1, ...) that broadcasts with them."""
    size = spectrograms.shape[dim]
    chances = torch.rand(2, len(spectrograms), 1, device=spectrograms.device)
    widths = (chances[0] * (int(share * size) + 1)).floor()
    starts = (chances[1] * (size - widths + 1)).floor()
    places = torch.arange(size, device=spectrograms.device)
    band = (places >= starts) & (places < starts + widths)  # (n, size)
    return band[:, None, :, None] if dim == 2 else band[:, None, None, :]
