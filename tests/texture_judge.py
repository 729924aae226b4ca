"""The reference for the fast texture: the same definition in float64, as its equations, with full transforms.

Sources are those of `earshot.sound`: McDermott and Simoncelli (2011) and their toolbox, Owens et al. (2016), sections
3.1 and A3. Nothing is imported from `earshot.sound`, so that an error there cannot be in both.
"""

from functools import lru_cache

import numpy as np

D = 3.75  # s
N = 75_000  # samples at 20 kHz
T = 1_500  # samples at 400 Hz
EPS = 2.0**-23
ROUNDING = 1e-10  # relative spread: what does not vary has 1e-13 in float64, and correlations of that are noise


def texture(
    x: np.ndarray,
    sample_rate: int,
    *,
    order: str = "compress-then-resample",
    outer_channels: str = "lowpass+highpass",
    modulation_norm: str = "variance",
    exactness: str = "earshot",
) -> np.ndarray:
    """The 502 numbers of one window x (samples,)."""
    n = int(np.floor(D * sample_rate + 0.5))
    x = np.resize(x.astype(np.float64), n)  # tiles a short window
    e = hilbert_envelopes(spectrum_at_20_khz(x), outer_channels)  # (32, N)
    if exactness == "earshot":
        e = np.sqrt(np.maximum(e**2 - 1e-10 * np.mean(x**2), 0))
    if order == "compress-then-resample":
        c = resample(e**0.3)  # (32, T)
        if exactness == "earshot":
            c = np.maximum(c, 0)
    else:
        c = np.maximum(resample(e), 0) ** 0.3

    loudness = np.median(np.linalg.norm(c, axis=0))
    if loudness > EPS:
        c = c / loudness
    mu = c.mean(axis=1)
    var = c.var(axis=1)
    spread = np.sqrt(var / (mu**2 + EPS))

    steady = np.sqrt(var) <= ROUNDING * mu
    rho = []
    for j in range(32):
        for o in (1, 2, 3, 5):
            if j + o < 32:
                constant = steady[j] or steady[j + o]
                covariance = np.mean((c[j] - mu[j]) * (c[j + o] - mu[j + o]))
                rho.append(0.0 if constant else covariance / np.sqrt(var[j] * var[j + o]))

    C = np.fft.rfft(c)  # (32, 751)
    b = np.stack([np.mean(np.fft.irfft(C * m, T) ** 2, axis=1) for m in modulation_filters()], axis=1)  # (32, 10)
    scale = var if modulation_norm == "variance" else mu**2
    modulation = np.sqrt(b / (scale[:, None] + EPS))
    return np.concatenate([mu, spread, rho, modulation.ravel(), [loudness]])


def spectrum_at_20_khz(x: np.ndarray) -> np.ndarray:
    """Bins 0 to N/2 of the window resampled to 20 kHz; zero above the Nyquist of a slower source."""
    X = np.zeros(N // 2 + 1, complex)
    native = np.fft.rfft(x)[: N // 2 + 1]
    X[: native.size] = native * N / x.size
    return X


def hilbert_envelopes(X: np.ndarray, outer_channels: str) -> np.ndarray:
    """|a_k|, a_k the analytic signal of band k: (32, N)."""
    h = np.full(N // 2 + 1, 2.0)
    h[[0, -1]] = 1.0
    return np.abs(np.fft.ifft(cochlear_filters(outer_channels) * X * h, N))


def resample(e: np.ndarray) -> np.ndarray:
    """Fourier resampling (32, N) to (32, T): bin T/2 sums both sides of the spectrum."""
    E = np.fft.rfft(e)[:, : T // 2 + 1]
    E[:, -1] *= 2
    return np.fft.irfft(E, T) * T / N


@lru_cache
def cochlear_filters(outer_channels: str) -> np.ndarray:
    """H_k on the bins 0 to N/2: (32, N/2 + 1)."""

    def erb(f: np.ndarray | float) -> np.ndarray:
        return 9.265 * np.log(1 + f / (24.7 * 9.265))

    f = np.arange(N // 2 + 1) / D
    inner = 30 if outer_channels == "lowpass+highpass" else 32
    e = np.linspace(erb(20.0), erb(10_000.0), inner + 2)
    d = e[1] - e[0]
    H = np.zeros((inner, f.size))
    for k in range(1, inner + 1):
        inside = (e[k - 1] < erb(f)) & (erb(f) < e[k + 1])
        H[k - 1, inside] = np.cos(np.pi * (erb(f[inside]) - e[k]) / (2 * d))
    if outer_channels == "band-passes":
        return H
    low = np.where(erb(f) < e[1], np.sqrt(1 - H[0] ** 2), 0)
    high = np.where(erb(f) > e[30], np.sqrt(1 - H[-1] ** 2), 0)
    return np.stack([low, *H, high])


@lru_cache
def modulation_filters() -> np.ndarray:
    """m_j on the 751 bins of an envelope: (10, 751)."""
    f = np.arange(T // 2 + 1) / D
    centers = 0.5 * 400 ** (np.arange(10) / 9)
    m = np.zeros((10, f.size))
    for j, center in enumerate(centers):
        inside = np.abs(f - center) < center
        m[j, inside] = np.cos(np.pi * (f[inside] - center) / (2 * center))
    middle = (f >= centers[3]) & (f <= centers[6])
    return m / np.sqrt(np.mean(np.sum(m[:, middle] ** 2, axis=0)))
