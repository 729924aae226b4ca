"""The sound texture: 502 statistics of cochlear envelopes over 3.75 s.

McDermott and Simoncelli (Neuron 2011) found the statistics by which people recognize sound textures. Owens et al.,
"Ambient sound provides supervision for visual learning" (ECCV 2016), sections 3.1 and A3, use these of them to
supervise image networks.
"""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import scipy.fft

from earshot.core.params import Group, check_params
from earshot.sound.cochlea import (
    BATCH,
    CHANNELS,
    ENVELOPE_BINS,
    ENVELOPE_RATE,
    ENVELOPE_SAMPLES,
    Exactness,
    Order,
    OuterChannels,
    cochleagrams,
    loudness,
)
from earshot.sound.windows import fitted_windows

ModulationNorm = Literal["variance", "squared-mean"]

CORRELATED_OFFSETS = (1, 2, 3, 5)  # Owens 2016, section A3
MODULATION_CENTERS = 0.5 * 400 ** (np.arange(10) / 9)  # Hz, 0.5 to 200
EPSILON = float(np.finfo(np.float32).eps)  # keeps the quotients of empty channels finite
CONSTANT = 1e-10  # relative spread below which a channel is constant: rounding gives a steady tone 1e-13 in float64
PAIRS = np.array([(j, j + o) for j in range(CHANNELS) for o in CORRELATED_OFFSETS if j + o < CHANNELS])  # (117, 2)

TEXTURE_SIZE = 502
TEXTURE_GROUPS = {  # Owens' four kinds of features, each scaled by its size before clustering
    "moments": slice(0, 64),
    "correlation": slice(64, 181),
    "modulation": slice(181, 501),
    "energy": slice(501, 502),
}
DEFAULTS = {  # the options of `sound_textures`
    "order": "compress-then-resample",
    "outer_channels": "lowpass+highpass",
    "modulation_norm": "variance",
    "exactness": "earshot",
}


class TextureOptions(Group):
    """Options on which the papers disagree.

    Args:
        order: Owens' section 3.1 compresses the envelopes before resampling them to 400 Hz; section A3 and Mahadev and
            Lu do so afterwards.
        outer_channels: whether the outer two of the 32 filters are a lowpass and a highpass (the published code) or
            band-passes (the papers).
        modulation_norm: divides modulation power by the channel's variance (Owens) or by its squared mean (Mahadev and
            Lu, section 3.2).
        exactness: `owens-exact` omits the gate that keeps rounding noise out of empty channels, and keeps negative
            values where resampled envelopes ring.
    """

    order: Order
    outer_channels: OuterChannels
    modulation_norm: ModulationNorm
    exactness: Exactness

    @property
    def cochlea(self) -> dict[str, Any]:
        """The options of `cochleagrams`."""
        return self.model_dump(exclude={"modulation_norm"})


def sound_textures(
    windows: np.ndarray,
    sample_rate: int,
    *,
    order: Order = "compress-then-resample",
    outer_channels: OuterChannels = "lowpass+highpass",
    modulation_norm: ModulationNorm = "variance",
    exactness: Exactness = "earshot",
) -> np.ndarray:
    """Textures of windows of 1.5 to 3.75 s: float32 (moments, samples) in [-1, 1] to float32 (moments, 502), unscaled.

    A texture holds the 32 means of the envelopes, their 32 relative spreads, 117 correlations between channels, 10
    modulation powers of each of the 32 channels, and the loudness. Exact silence is a vector of zeros.

    Raises UnfitSound (an EarshotError and a ValueError) for windows that are too short, too long, not mono or not
    finite, and EarshotError for an option with a value that TextureOptions does not allow.
    """
    options = {
        "order": order,
        "outer_channels": outer_channels,
        "modulation_norm": modulation_norm,
        "exactness": exactness,
    }
    cochlea = check_params(TextureOptions, options, "texture").cochlea
    windows = fitted_windows(windows, sample_rate)
    textures = np.empty((len(windows), TEXTURE_SIZE), np.float32)
    for first in range(0, len(windows), BATCH):
        batch = slice(first, first + BATCH)
        envelopes = cochleagrams(windows[batch], **cochlea)
        textures[batch] = texture_statistics(envelopes, modulation_norm)
    return textures


def texture_statistics(envelopes: np.ndarray, modulation_norm: ModulationNorm = "variance") -> np.ndarray:
    """The 502 statistics of envelopes; overwrites them: float32 (moments, 32, 1500) to (moments, 502)."""
    level = loudness(envelopes)
    envelopes /= np.where(level > EPSILON, level, 1)[:, None, None]
    mean = envelopes.mean(axis=2)  # (moments, 32)
    power = modulation_power(envelopes)  # (moments, 32, 10)
    envelopes -= mean[:, :, None]
    covariance = envelopes @ envelopes.transpose(0, 2, 1) / ENVELOPE_SAMPLES  # (moments, 32, 32)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    scale = variance if modulation_norm == "variance" else np.square(mean)
    return np.hstack(
        [
            mean,
            np.sqrt(variance / (np.square(mean) + EPSILON)),
            correlations(covariance, mean),
            np.sqrt(power / (scale[:, :, None] + EPSILON)).reshape(len(envelopes), -1),  # channel by channel
            level[:, None],
        ]
    )


def correlations(covariance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Pearson correlation of each pair: (moments, 32, 32) and (moments, 32) to (moments, 117).

    0 where a channel is constant up to rounding.
    """
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    deviation = np.where(deviation > CONSTANT * mean, deviation, 0)
    below, above = PAIRS.T
    product = deviation[:, below] * deviation[:, above]
    return np.divide(covariance[:, below, above], product, out=np.zeros_like(product), where=product > 0)


def modulation_power(envelopes: np.ndarray) -> np.ndarray:
    """Mean square of each envelope after each modulation filter: (moments, 32, 1500) to (moments, 32, 10).

    Sums over frequency instead of time, by Parseval's theorem. Owens 2016, equation (2).
    """
    spectrum = scipy.fft.rfft(envelopes, norm="forward")
    return (np.square(spectrum.real) + np.square(spectrum.imag)) @ modulation_gains()


@lru_cache
def modulation_gains() -> np.ndarray:
    """Power gains of the modulation filters, for both sides of the spectrum: float32 (751, 10)."""
    gains = np.square(modulation_filters())
    gains[1:-1] *= 2
    return gains.astype(np.float32)


def modulation_filters() -> np.ndarray:
    """Gains of half cosines of Q = 1 at 0.5 to 200 Hz, on the bins of an envelope: float64 (751, 10), 0 at DC."""
    frequencies = np.arange(ENVELOPE_BINS) * ENVELOPE_RATE / ENVELOPE_SAMPLES
    distance = (frequencies[:, None] - MODULATION_CENTERS) / MODULATION_CENTERS  # in half widths
    filters = np.where(np.abs(distance) < 1, np.cos(np.pi / 2 * distance), 0)
    middle = (frequencies >= MODULATION_CENTERS[3]) & (frequencies <= MODULATION_CENTERS[6])
    return filters / np.sqrt(np.square(filters[middle]).sum(axis=1).mean())
