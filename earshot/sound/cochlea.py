"""Cochleagrams: 32 compressed envelopes of 1500 samples at 400 Hz for each window of sound.

Windows of 3.75 s are analyzed circularly at 20 kHz. One real transform of a window at its own rate gives the 20 kHz
spectrum, because the bins of both are 1/3.75 Hz apart. A cochlear band occupies few of these bins, so its inverse
transform is shorter, on average a tenth of the 75,000 samples. It runs in float32, for several windows at once.

The square of an envelope is exact there. The gate and the power .3 give it a spectrum without end, and what lies beyond
the shorter length aliases. This is harmless in noise, but not where harmonics beat, where sound is sparse, or where an
envelope hardly varies. The spectrum of the envelope shows this, and such bands are computed again at the full length in
float64.

Sources: McDermott and Simoncelli, "Sound texture perception via statistics of the auditory periphery" (Neuron 2011)
and their toolbox for the filters; Owens et al., "Ambient sound provides supervision for visual learning" (ECCV 2016),
sections 3.1 and A3, for the envelopes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

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
FOLDING_BINS = 2 * ENVELOPE_BINS  # of a short transform: these alias to the bins of an envelope
LOWEST, HIGHEST = 20.0, 10_000.0  # Hz, the ends of the ERB scale of the filters
COMPRESSION = 0.3  # Owens 2016, section 3.1
GATE = 1e-5  # of the window's rms: rounding errors in an empty band stay below it
MIN_POINTS = 4500  # at least so many in a band's inverse transform; see perf/texture.py
# Bounds of the upper half of an envelope's spectrum, see `is_doubtful`. They were set on 479 real and 236 synthetic
# sounds; of the real ones, a band in a thousand is computed again.
FOLDING_TO_VARIANCE, LARGEST_TO_VARIANCE, LARGEST_TO_MEAN = 0.38, 0.005, 0.0012
STEADY = 1e-4  # relative spread, over the square root of 2
BATCH = 16  # windows transformed together: a multiple of the lanes of SIMD, few enough for the cache


class Band(NamedTuple):
    """One cochlear filter on the bins where it is nonzero, and the length of its inverse transform."""

    first_bin: int
    gains: np.ndarray  # (bins,), the gain of the filter times that of the analytic signal; float32, float64 if whole
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
def cochlear_bands(outer_channels: OuterChannels, whole: bool = False) -> tuple[Band, ...]:
    """The 32 filters on the bins where they are nonzero: float32 for short transforms, float64 if `whole`."""
    filters = cochlear_filters(outer_channels)
    filters[:, 1:-1] *= 2  # the analytic signal: bins between DC and Nyquist count twice
    bands = []
    for gains in filters:
        passed = np.flatnonzero(gains)
        gains = gains[passed[0] : passed[-1] + 1].astype(np.float64 if whole else np.float32)
        points = ANALYSIS_SAMPLES if whole else even_fast_length(max(2 * gains.size, MIN_POINTS))
        bands.append(Band(int(passed[0]), gains, points))
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

    The result is float64 if float32 would round away the variation of a very steady envelope.

    windows: float32 (moments, samples) of exactly 3.75 s, as `fitted_windows` returns them. Owens 2016, equation (1).
    """
    exponent = COMPRESSION if order == "compress-then-resample" else 1.0
    gate = GATE if exactness == "earshot" else 0.0
    resampled, doubtful = resampled_series(windows, cochlear_bands(outer_channels), gate, exponent)
    again: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
    for moment in np.flatnonzero(doubtful.any(axis=1)):
        channels = tuple(np.flatnonzero(doubtful[moment]).tolist())
        bands = [cochlear_bands(outer_channels, whole=True)[channel] for channel in channels]
        window = windows[[moment]].astype(np.float64)
        again[int(moment), channels] = resampled_series(window, bands, gate, exponent)[0][0]
    if any(is_steady(series).any() for series in again.values()):
        resampled = resampled.astype(np.complex128)
    for (number, numbers), series in again.items():
        resampled[number, numbers] = series
    envelopes = scipy.fft.irfft(resampled, ENVELOPE_SAMPLES, norm="forward", overwrite_x=True)
    if order == "resample-then-compress":
        return raised(np.maximum(envelopes, 0), COMPRESSION)
    return np.maximum(envelopes, 0, out=envelopes) if exactness == "earshot" else envelopes


def resampled_series(
    windows: np.ndarray, bands: Sequence[Band], gate: float, exponent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fourier series of the bands' envelopes to the power of `exponent`, at 400 Hz: complex (moments, bands, 751).

    Also returns which are doubtful, bool (moments, bands), see `is_doubtful`. The new Nyquist bin sums the bins of both
    sides of the spectrum.
    """
    spectra = analysis_spectra(windows)
    floor = np.square(windows.dtype.type(gate) * root_mean_square(windows))[:, None]
    resampled = np.zeros((len(windows), len(bands), ENVELOPE_BINS), spectra.dtype)
    doubtful = np.zeros(resampled.shape[:2], bool)
    for number, band in enumerate(bands):
        if band.first_bin < spectra.shape[1]:  # a source of a low rate has no bins above its Nyquist
            power = band_power(spectra, band)  # (moments, points)
            power -= floor
            envelopes = raised(np.maximum(power, 0, out=power), exponent / 2)
            series = scipy.fft.rfft(envelopes, norm="forward")
            resampled[:, number] = series[:, :ENVELOPE_BINS]
            doubtful[:, number] = is_doubtful(series)
    resampled[:, :, -1] *= 2
    return resampled, doubtful


def is_doubtful(series: Any) -> Any:
    """Whether aliasing or rounding spoils the 751 bins of an envelope: (moments, bins) to bool (moments,).

    Arrays of numpy, or tensors of torch, which give tensors.

    What aliases lies beyond the end of `series`, an octave above its upper half, and is smaller: an envelope that
    touches zero falls by 8 dB an octave. So the upper half bounds it. Noise is flat there: its largest stretch of the
    width that aliases gives the variance that is added. Beating harmonics are single lines: one may alias to the mean,
    and a few to bins of little variance. A sparse envelope is uncertain by as much as its upper bins hold.
    """
    upper = squares(series[:, series.shape[1] // 2 :])
    stretches = max(1, upper.shape[1] // FOLDING_BINS)
    width = upper.shape[1] // stretches
    folding = upper[:, : stretches * width].reshape(len(series), stretches, width).sum(axis=2) * (FOLDING_BINS / width)
    mean, variance = mean_and_variance(series)
    above = (upper > (LARGEST_TO_VARIANCE * variance)[:, None]) | (upper > (LARGEST_TO_MEAN * mean)[:, None])
    folds = folding > (FOLDING_TO_VARIANCE * variance)[:, None]
    return folds.any(axis=1) | above.any(axis=1) | is_steady(series)


def is_steady(series: Any) -> Any:
    """Whether float32 keeps less than three digits of the variation of envelopes: (rows, bins) to (rows,)."""
    mean, variance = mean_and_variance(series)
    return variance < STEADY**2 * mean


def mean_and_variance(series: Any) -> tuple[Any, Any]:
    """The squared mean of envelopes and half their variance up to 200 Hz: (rows, bins) to (rows,) twice."""
    power = squares(series[:, :ENVELOPE_BINS])
    return power[:, 0], power[:, 1:].sum(axis=1)


def squares(values: Any) -> Any:
    """Squared magnitudes of complex values."""
    return values.real**2 + values.imag**2


def analysis_spectra(windows: np.ndarray) -> np.ndarray:
    """Fourier series of the windows up to 10 kHz, or to the Nyquist of a slower source: complex (moments, bins)."""
    return scipy.fft.rfft(windows, norm="forward")[:, :ANALYSIS_BINS]


def band_power(spectra: np.ndarray, band: Band) -> np.ndarray:
    """Squared Hilbert envelope of one band: (moments, bins) to (moments, points).

    The band is shifted to bin 0, which changes the phase of the analytic signal but not its magnitude.
    """
    passed = spectra[:, band.first_bin : band.first_bin + band.gains.size]
    cropped = np.zeros((len(spectra), band.points), spectra.dtype)
    np.multiply(passed, band.gains[: passed.shape[1]], out=cropped[:, : passed.shape[1]])
    return squares(scipy.fft.ifft(cropped, norm="forward", overwrite_x=True))


def raised(values: np.ndarray, exponent: float) -> np.ndarray:
    """Values >= 0 to the power of `exponent`, by logarithms: in float32 three times as fast as `np.power`."""
    with np.errstate(divide="ignore"):  # zero becomes e to the minus infinity, which is zero again
        logarithm = np.log(values)
    logarithm *= values.dtype.type(exponent)
    return np.exp(logarithm, out=logarithm)


def loudness(envelopes: np.ndarray) -> np.ndarray:
    """Median over time of the norm across channels: (moments, 32, 1500) to (moments,). Owens 2016, section 3.1."""
    return np.median(np.sqrt(np.einsum("mct,mct->mt", envelopes, envelopes)), axis=1)
