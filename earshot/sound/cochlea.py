"""Cochleagrams: 32 compressed envelopes of 1500 samples at 400 Hz for each window of sound.

Windows of 3.75 s are analyzed circularly at 20 kHz. One real transform of a window at its own rate gives the 20 kHz
spectrum, because the bins of both are 1/3.75 Hz apart. A cochlear band occupies few of these bins, so its inverse
transform is shorter, on average a tenth of the 75,000 samples. It runs in float32, for several windows at once.

Sources: McDermott and Simoncelli, "Sound texture perception via statistics of the auditory periphery" (Neuron 2011)
and their toolbox for the filters; Owens et al., "Ambient sound provides supervision for visual learning" (ECCV 2016),
sections 3.1 and A3, for the envelopes.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import scipy.fft

from earshot.sound.windows import WINDOW_SECONDS, root_mean_square

Order = Literal["compress-then-resample", "resample-then-compress"]
OuterChannels = Literal["lowpass+highpass", "band-passes"]
Exactness = Literal["earshot", "owens-exact"]

CHANNELS = 32
ANALYSIS_RATE = 20_000  # Hz
ENVELOPE_RATE = 400  # Hz
ANALYSIS_SAMPLES = round(WINDOW_SECONDS * ANALYSIS_RATE)  # 75,000
ANALYSIS_BINS = ANALYSIS_SAMPLES // 2 + 1
ENVELOPE_SAMPLES = round(WINDOW_SECONDS * ENVELOPE_RATE)  # 1,500
ENVELOPE_BINS = ENVELOPE_SAMPLES // 2 + 1
LOWEST, HIGHEST = 20.0, 10_000.0  # Hz, the ends of the ERB scale of the filters
COMPRESSION = 0.3  # Owens 2016, section 3.1
GATE = 1e-5  # of the window's rms: rounding errors in an empty band stay below it
MIN_POINTS = 4500  # at least so many in a band's inverse transform; see perf/texture.py
BATCH = 16  # windows transformed together: a multiple of the lanes of SIMD, few enough for the cache


class Band(NamedTuple):
    """One cochlear filter on the bins where it is nonzero, and the length of its inverse transform."""

    first_bin: int
    gains: np.ndarray  # (bins,), the gain of the filter times that of the analytic signal
    points: int


def erb(frequency: np.ndarray | float) -> np.ndarray:
    """Convert `frequency` (Hz) to the scale of equivalent rectangular bandwidths (Glasberg and Moore 1990)."""
    return 9.265 * np.log1p(np.asarray(frequency) / (24.7 * 9.265))


def cochlear_filters(outer_channels: OuterChannels = "lowpass+highpass") -> np.ndarray:
    """Gains of the 32 filters, low to high, on the bins of a 3.75 s window at 20 kHz: float64 (32, 37501).

    The filters are half cosines on the ERB scale that overlap by half. With `lowpass+highpass` 30 of them lie between
    a lowpass and a highpass, and the squares of all sum to 1 at every bin (McDermott and Simoncelli's toolbox). With
    `band-passes` all 32 are half cosines (the wording of the papers).
    """
    frequencies = np.arange(ANALYSIS_BINS) / WINDOW_SECONDS
    half_cosines = CHANNELS if outer_channels == "band-passes" else CHANNELS - 2
    places, step = np.linspace(erb(LOWEST), erb(HIGHEST), half_cosines + 2, retstep=True)
    distance = (erb(frequencies) - places[1:-1, None]) / step  # (half cosines, bins)
    filters = np.where(np.abs(distance) < 1, np.cos(np.pi / 2 * distance), 0.0)
    if outer_channels == "band-passes":
        return filters
    lowpass = np.where(distance[0] < 0, np.sqrt(1 - filters[0] ** 2), 0.0)
    highpass = np.where(distance[-1] > 0, np.sqrt(1 - filters[-1] ** 2), 0.0)
    return np.vstack([lowpass, filters, highpass])


def channel_frequencies(outer_channels: OuterChannels) -> np.ndarray:
    """Frequencies of the 32 channels, Hz, even on the ERB scale; the outer two at 20 Hz and 10 kHz, or within."""
    places = np.linspace(erb(LOWEST), erb(HIGHEST), CHANNELS + 2 if outer_channels == "band-passes" else CHANNELS)
    places = places[1:-1] if outer_channels == "band-passes" else places
    fine = np.geomspace(LOWEST, HIGHEST, 10_000)
    return np.interp(places, erb(fine), fine)


@lru_cache
def cochlear_bands(outer_channels: OuterChannels) -> tuple[Band, ...]:
    """The 32 filters, each cropped to the bins where it is nonzero."""
    filters = cochlear_filters(outer_channels)
    filters[:, 1:-1] *= 2  # the analytic signal: bins between DC and Nyquist count twice
    bands = []
    for gains in filters:
        passed = np.flatnonzero(gains)
        gains = gains[passed[0] : passed[-1] + 1].astype(np.float32)
        bands.append(Band(int(passed[0]), gains, even_fast_length(max(2 * gains.size, MIN_POINTS))))
    return tuple(bands)


def even_fast_length(least: int) -> int:
    """The smallest even length of at least `least` whose only prime factors are 2, 3 and 5."""
    length = scipy.fft.next_fast_len(least, real=True)
    while length % 2:
        length = scipy.fft.next_fast_len(length + 1, real=True)
    return length


def cochleagrams(
    windows: np.ndarray,
    *,
    order: Order = "compress-then-resample",
    outer_channels: OuterChannels = "lowpass+highpass",
    exactness: Exactness = "earshot",
) -> np.ndarray:
    """Compressed envelopes of windows, not divided by loudness: float32 (moments, 32, 1500); sample i is at i/400 s.

    windows: float32 (moments, samples) of exactly 3.75 s, as `fitted_windows` returns them. Owens 2016, equation (1).
    """
    spectra = analysis_spectra(windows)
    gate = GATE * root_mean_square(windows) if exactness == "earshot" else np.zeros(len(windows), np.float32)
    exponent = COMPRESSION if order == "compress-then-resample" else 1.0
    resampled = np.zeros((len(windows), CHANNELS, ENVELOPE_BINS), np.complex64)
    for channel, band in enumerate(cochlear_bands(outer_channels)):
        if band.first_bin < spectra.shape[1]:  # a source of a low rate has no bins above its Nyquist
            power = np.maximum(band_power(spectra, band) - np.square(gate)[:, None], 0)  # (moments, points)
            resampled[:, channel] = envelope_spectra(raised(power, exponent / 2))
    envelopes = scipy.fft.irfft(resampled, ENVELOPE_SAMPLES, norm="forward", overwrite_x=True)
    if order == "resample-then-compress":
        return raised(np.maximum(envelopes, 0), COMPRESSION)
    return np.maximum(envelopes, 0, out=envelopes) if exactness == "earshot" else envelopes


def analysis_spectra(windows: np.ndarray) -> np.ndarray:
    """Fourier series of the windows up to 10 kHz, or to the Nyquist of a slower source: complex64 (moments, bins)."""
    return scipy.fft.rfft(windows, norm="forward")[:, :ANALYSIS_BINS]


def band_power(spectra: np.ndarray, band: Band) -> np.ndarray:
    """Squared Hilbert envelope of one band: (moments, bins) to float32 (moments, points).

    The band is shifted to bin 0, which changes the phase of the analytic signal but not its magnitude.
    """
    passed = spectra[:, band.first_bin : band.first_bin + band.gains.size]
    cropped = np.zeros((len(spectra), band.points), np.complex64)
    np.multiply(passed, band.gains[: passed.shape[1]], out=cropped[:, : passed.shape[1]])
    analytic = scipy.fft.ifft(cropped, norm="forward", overwrite_x=True)
    return np.square(np.abs(analytic))


def raised(values: np.ndarray, exponent: float) -> np.ndarray:
    """Values >= 0 to the power of `exponent`, computed in base 2 and float32: twice as fast as `np.power`."""
    with np.errstate(divide="ignore"):  # zero becomes 2 to the minus infinity, which is zero again
        logarithm = np.log2(values)
    logarithm *= np.float32(exponent)
    return np.exp2(logarithm, out=logarithm)


def envelope_spectra(envelopes: np.ndarray) -> np.ndarray:
    """Fourier series of envelopes resampled to 400 Hz: (moments, points) to complex64 (moments, 751).

    The new Nyquist bin sums the bins of both sides of the spectrum.
    """
    spectra = scipy.fft.rfft(envelopes, norm="forward")[:, :ENVELOPE_BINS]
    spectra[:, -1] *= 2
    return spectra


def loudness(envelopes: np.ndarray) -> np.ndarray:
    """Median over time of the norm across channels: (moments, 32, 1500) to (moments,). Owens 2016, section 3.1."""
    return np.median(np.sqrt(np.einsum("mct,mct->mt", envelopes, envelopes)), axis=1)
