"""The sound texture in torch: computed on the device of its waveforms, and differentiable.

The steps, the tables and the doubts are those of `earshot.sound.cochlea` and `earshot.sound.texture`: bands are cropped
and float32; a band that this would spoil is computed again at full length in float64. The statistics of all envelopes
are float64, so that neither a steady envelope nor TF32 changes them.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earshot.core.params import check_params
from earshot.sound.cochlea import (
    ANALYSIS_BINS,
    CHANNELS,
    COMPRESSION,
    ENVELOPE_BINS,
    ENVELOPE_SAMPLES,
    GATE,
    OuterChannels,
    cochlear_bands,
    is_doubtful,
    squares,
)
from earshot.sound.texture import CONSTANT, DEFAULTS, EPSILON, PAIRS, TEXTURE_SIZE, TextureOptions, modulation_gains
from earshot.sound.windows import WINDOW_SECONDS, check_finite, check_length, samples_of


class TextureTransform(nn.Module):
    """Sound textures: waveforms, float32 (n, samples) in [-1, 1], become float32 (n, 502), as by `sound_textures`.

    Waveforms last 1.5 to 3.75 s; shorter ones than 3.75 s are tiled. Exact silence is a vector of zeros, whose gradient
    is zero. The tables follow the waveforms to their device, which needs float64: the CPU or a CUDA device.

    Args:
        sample_rate: of the waveforms, Hz, any: the analysis resamples to 20 kHz.
        batch_size: waveforms that are computed together; without gradients, this bounds the memory.
        options: those of `sound_textures`.

    Raises:
        ValueError: the waveforms have another type, or a shape that is not (n, samples).
        UnfitSound: a ValueError too, for waveforms that are too short, too long or not finite.
        EarshotError: an option has another value than TextureOptions names.
    """

    def __init__(self, sample_rate: int, *, batch_size: int = 64, **options: Any) -> None:
        super().__init__()
        self.sample_rate, self.batch_size = sample_rate, batch_size
        self.options = check_params(TextureOptions, DEFAULTS | options, "texture")

    def forward(self, waveforms: Tensor) -> Tensor:
        if waveforms.dtype != torch.float32 or waveforms.dim() != 2:
            actual = f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            raise ValueError(f"waveforms are {actual}; a texture requires torch.float32 of shape (n, samples)")
        check_length(waveforms.shape[1], self.sample_rate)
        textures = [waveforms.new_empty(0, TEXTURE_SIZE)]  # all of them, if there are no waveforms
        for first in range(0, len(waveforms), self.batch_size):
            batch = waveforms[first : first + self.batch_size]
            check_finite(_as_numpy(_mean_square(batch)), first)
            textures.append(self._textures(batch))
        return torch.cat(textures)

    def _textures(self, waveforms: Tensor) -> Tensor:
        """The textures of a batch."""
        full = samples_of(WINDOW_SECONDS, self.sample_rate)
        if waveforms.shape[1] < full:
            waveforms = waveforms.repeat(1, -(-full // waveforms.shape[1]))[:, :full]
        envelopes = torch.fft.irfft(self._resampled(waveforms), ENVELOPE_SAMPLES, norm="forward")
        if self.options.order == "resample-then-compress":
            envelopes = _raised(envelopes, COMPRESSION)
        elif self.options.exactness == "earshot":
            envelopes = envelopes.clamp(min=0)
        return self._statistics(envelopes).float()

    def _resampled(self, waveforms: Tensor) -> Tensor:
        """Fourier series of the envelopes at 400 Hz: complex128 (n, 32, 751). Owens 2016, equation (1)."""
        spectra, floor = self._analyzed(waveforms)
        cropped, doubts = [], []
        for channel in range(CHANNELS):
            series = self._series(spectra, floor, channel)
            cropped.append(series[:, :ENVELOPE_BINS])
            doubts.append(is_doubtful(series.detach()))
        resampled, doubtful = torch.stack(cropped, 1).to(torch.complex128), _as_numpy(torch.stack(doubts, 1))
        moments = np.flatnonzero(doubtful.any(axis=1))
        if moments.size:
            spectra, floor = self._analyzed(waveforms[moments].double())
            for channel in np.flatnonzero(doubtful.any(axis=0)).tolist():
                rows = np.flatnonzero(doubtful[moments, channel])
                series = self._series(spectra[rows], floor[rows], channel, whole=True)
                resampled[moments[rows], channel] = series[:, :ENVELOPE_BINS]
        resampled[:, :, -1] *= 2  # the new Nyquist bin sums the bins of both sides of the spectrum
        return resampled

    def _analyzed(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Fourier series up to 10 kHz, (n, bins), and the power below which the gate closes, (n, 1)."""
        spectra = torch.fft.rfft(waveforms, norm="forward")[:, :ANALYSIS_BINS]
        gate = GATE if self.options.exactness == "earshot" else 0.0
        return spectra, gate**2 * _mean_square(waveforms)[:, None]

    def _series(self, spectra: Tensor, floor: Tensor, channel: int, *, whole: bool = False) -> Tensor:
        """Fourier series of a channel's envelopes to the power of .3, or of 1 if that comes later: (n, bins)."""
        band = cochlear_bands(self.options.outer_channels, whole)[channel]
        passed = spectra[:, band.first_bin : band.first_bin + band.gains.size]
        gains = _tables(self.options.outer_channels, whole, spectra.device)[channel][: passed.shape[1]]
        if not passed.shape[1]:  # a source of a low rate has no bins above its Nyquist
            return spectra.new_zeros(len(spectra), band.points // 2 + 1)
        power = squares(torch.fft.ifft(passed * gains, band.points, norm="forward")) - floor
        exponent = COMPRESSION if self.options.order == "compress-then-resample" else 1.0
        return torch.fft.rfft(_raised(power, exponent / 2), norm="forward")

    def _statistics(self, envelopes: Tensor) -> Tensor:
        """The 502 statistics of envelopes, as by `texture_statistics`: float64 (n, 32, 1500) to (n, 502)."""
        middle = slice(ENVELOPE_SAMPLES // 2 - 1, ENVELOPE_SAMPLES // 2 + 1)
        norms = torch.linalg.vector_norm(envelopes, dim=1).sort(1).values
        level = norms[:, middle].mean(1)  # the median
        envelopes = envelopes / torch.where(level > EPSILON, level, 1)[:, None, None]
        mean = envelopes.mean(2)  # (n, 32)
        power = squares(torch.fft.rfft(envelopes, norm="forward")) @ _modulation_gains(envelopes.device)  # (n, 32, 10)
        centered = envelopes - mean[:, :, None]
        covariance = centered @ centered.mT / ENVELOPE_SAMPLES  # (n, 32, 32)
        variance = covariance.diagonal(0, 1, 2)
        scale = variance if self.options.modulation_norm == "variance" else mean.square()
        deviation = _raised(variance, 0.5)
        deviation = torch.where(deviation > CONSTANT * mean, deviation, 0)
        below, above = PAIRS.T.tolist()
        product = deviation[:, below] * deviation[:, above]
        correlation = covariance[:, below, above] / torch.where(product > 0, product, 1)
        return torch.cat(
            [
                mean,
                _raised(variance / (mean.square() + EPSILON), 0.5),
                torch.where(product > 0, correlation, 0),
                _raised(power / (scale[:, :, None] + EPSILON), 0.5).flatten(1),
                level[:, None],
            ],
            1,
        )


def _as_numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _mean_square(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(1)


def _raised(values: Tensor, exponent: float) -> Tensor:
    """Values to the power of `exponent`; 0 where they are 0 or less, with a gradient of 0, where torch has infinity."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1).pow(exponent), 0)


@lru_cache
def _tables(outer_channels: OuterChannels, whole: bool, device: torch.device) -> list[Tensor]:
    """The gains of `cochlear_bands` on a device."""
    with torch.inference_mode(False):  # gradients may need these tables later
        return [torch.from_numpy(band.gains).to(device) for band in cochlear_bands(outer_channels, whole)]


@lru_cache
def _modulation_gains(device: torch.device) -> Tensor:
    """`modulation_gains` on a device: float64 (751, 10)."""
    with torch.inference_mode(False):
        return torch.from_numpy(modulation_gains()).double().to(device)
