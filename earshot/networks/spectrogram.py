"""Log-spectrograms of one second of sound, the input of the correspondence networks' audio towers.

`linear` has windows of 10 ms that overlap by half (Arandjelovic & Zisserman 2017, section 2.2), without padding at the
ends: with windows of 480 samples and a hop of 240, 48,000 samples give 199 windows; a 512-point transform gives 257
frequencies. `mel` has 64 mel bands in windows of 1,024 samples (21 ms) every 10 ms, as the networks of Kong et al.
(2020, "PANNs"), here up to 24 kHz: 64 x 98 values, an eighth as many.
"""

from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn

RATE = 48_000  # Hz
SECONDS = 1.0
SAMPLES = round(RATE * SECONDS)
# Lower bound of power: about the rounding noise of 16-bit sound in a bin, 180 (sum of the window's squared weights)
# * (2 / 65536)^2 / 12 = 1.4e-8. A tone of amplitude 1 has a power of 14,400.
FLOOR = 1e-8


@dataclass(frozen=True)
class Transform:
    """How a spectrogram is computed.

    Args:
        window, hop, points: samples of a window, from one window to the next, and of a Fourier transform.
        bands: mel bands; 0 for the frequencies of the Fourier transform.
    """

    window: int
    hop: int
    points: int
    bands: int = 0

    @property
    def bins(self) -> int:
        """Frequencies of the Fourier transform."""
        return self.points // 2 + 1

    @property
    def frequencies(self) -> int:
        return self.bands or self.bins

    @property
    def windows(self) -> int:
        """In one second."""
        return (SAMPLES - self.window) // self.hop + 1

    def filters(self) -> Tensor | None:
        """The share of each frequency in each mel band, (bins, bands), with equal areas, as librosa's; or None."""
        if not self.bands:
            return None
        scale = {"norm": "slaney", "mel_scale": "slaney"}
        return torchaudio.functional.melscale_fbanks(self.bins, 0.0, RATE / 2, self.bands, RATE, **scale)


LINEAR = Transform(window=480, hop=240, points=512)
MEL = Transform(window=1024, hop=480, points=1024, bands=64)
TRANSFORMS = {"linear": LINEAR, "mel": MEL}


class Spectrogram(nn.Module):
    """Natural logarithms of power: waveforms (n, 48000) become float32 (n, 1, frequencies, windows).

    They are computed on the waveforms' device; autocast leaves transforms and logarithms in float32.

    Args:
        kind: a key of TRANSFORMS.

    Raises:
        ValueError: the waveforms have another type or shape.
    """

    window: Tensor
    filters: Tensor | None

    def __init__(self, kind: str = "linear") -> None:
        super().__init__()
        self.kind = TRANSFORMS[kind]
        with torch.device("cpu"):  # on the device `meta`, torch would import its compiler for the window
            self.register_buffer("window", torch.hann_window(self.kind.window), persistent=False)
            self.register_buffer("filters", self.kind.filters(), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        if waveforms.dtype != torch.float32 or waveforms.dim() != 2 or waveforms.shape[1] != SAMPLES:
            actual = f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            raise ValueError(f"waveforms are {actual}; a spectrogram requires torch.float32 of shape (n, {SAMPLES})")
        return self.log_power(waveforms)

    def log_power(self, waveforms: Tensor) -> Tensor:
        """That of waveforms of any length, (n, samples): (n, 1, frequencies, windows)."""
        windows = waveforms.unfold(-1, self.kind.window, self.kind.hop) * self.window
        spectrum = torch.fft.rfft(windows, n=self.kind.points)  # complex (n, windows, bins)
        # In place, because new memory takes longer than the sum: 2.4 ms instead of 9.4 for 32 sounds.
        return self.log_of(spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag))

    def log_of(self, power: Tensor) -> Tensor:
        """The log-spectrogram (n, 1, frequencies, windows) of the power at each frequency, (n, windows, bins)."""
        power = power.clamp(min=FLOOR)
        if self.filters is not None:
            with torch.autocast(power.device.type, enabled=False):
                power = power @ self.filters
        return power.log().mT[:, None]


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
