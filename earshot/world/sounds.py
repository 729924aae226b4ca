"""The sounds of the ten kinds of the sample world, which differ in their statistics over time and frequency.

Each function takes a generator for the recording (two recordings of one cause differ), a generator for the instance
(its timbre), the cause and the number of samples. It returns float32 (samples,) at any level.
"""

from functools import lru_cache

import numpy as np
from scipy import fft

from earshot.world.sources import Cause

RATE = 44_100  # samples a second
LOUDEST_PEAK = 4.0  # of a source, relative to its root mean square

Rng = np.random.Generator


@lru_cache(maxsize=4)
def frequencies(samples: int) -> np.ndarray:
    """The frequencies of a real FFT in Hz, (samples // 2 + 1,), with 1 Hz instead of 0 so that powers are finite."""
    hertz = fft.rfftfreq(samples, 1 / RATE).astype(np.float32)
    hertz[0] = 1.0
    return hertz


def band(hertz: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    """A smooth band-pass response with amplitude 1 between low and high."""
    return 1 / np.sqrt((1 + (low / hertz) ** (2 * order)) * (1 + (hertz / high) ** (2 * order)))


def noise(rng: Rng, response: np.ndarray, samples: int) -> np.ndarray:
    """Gaussian noise with the amplitude spectrum `response` (samples // 2 + 1,), unit variance."""
    spectrum = rng.standard_normal((len(response), 2), dtype=np.float32).view(np.complex64)[:, 0]
    sound = fft.irfft(spectrum * response.astype(np.float32), samples)
    return sound / sound.std()


def wander(rng: Rng, samples: int, rate: float) -> np.ndarray:
    """A slow random curve with about `rate` independent values a second, mean 0 and a deviation of about 1."""
    points = max(4, int(np.ceil(samples / RATE * rate)) + 3)
    values = rng.standard_normal(points) * 1.22  # linear interpolation removes a third of the variance
    at = rng.random() + np.arange(samples, dtype=np.float32) * np.float32(rate / RATE)
    return np.interp(at, np.arange(points), values).astype(np.float32)


def scatter(samples: int, times: np.ndarray, grains: list[np.ndarray], heights: np.ndarray) -> np.ndarray:
    """Add the grains, in turn, at times in seconds with given amplitudes; grains are cut at the end."""
    sound = np.zeros(samples, dtype=np.float32)
    for number, (time, height) in enumerate(zip(times, heights, strict=True)):
        start = int(time * RATE)
        grain = grains[number % len(grains)][: samples - start]
        sound[start : start + len(grain)] += np.float32(height) * grain
    return sound


def ringing(hertz: float, decay: float, phase: float = 0.0) -> np.ndarray:
    """A sine, frequency in Hz, that decays by e every `decay` seconds, five decays long."""
    time = np.arange(int(5 * decay * RATE), dtype=np.float32) / RATE
    return np.exp(-time / np.float32(decay)) * np.sin(np.float32(2 * np.pi * hertz) * time + np.float32(phase))


def at_random(rng: Rng, samples: int, rate: float) -> np.ndarray:
    """The times in seconds of independent events, `rate` a second."""
    seconds = samples / RATE
    return np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds)))


def periodic(wave: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Repeat one period of a wave at a pitch in Hz that varies from sample to sample."""
    phase = np.cumsum(pitch / RATE, dtype=np.float64)
    return wave[(phase % 1.0 * len(wave)).astype(np.int32)]


def one_period(rng: Rng, weights: np.ndarray, points: int = 1024) -> np.ndarray:
    """One period of a wave with harmonics of the given weights and random phases."""
    spectrum = np.zeros(points // 2 + 1, dtype=np.complex64)
    spectrum[1 : len(weights) + 1] = weights * np.exp(2j * np.pi * rng.random(len(weights)))
    wave = fft.irfft(spectrum)
    return (wave / wave.std()).astype(np.float32)


def surf(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Breakers: a low roar that swells slowly and hisses at its height."""
    hertz = frequencies(samples)
    time = np.arange(samples, dtype=np.float32) / RATE
    period = 5.5 - 3.0 * cause.pace
    turn = 2 * np.pi * (time / period + 0.1 * wander(rng, samples, 0.5)) + rng.uniform(0, 6.3)
    swell = (0.5 + 0.5 * np.sin(turn)) ** (1 + 1.5 * cause.force) + 0.05
    low = noise(rng, band(hertz, 60, 900 - 500 * cause.size), samples)
    hiss = noise(rng, band(hertz, 1200, timbre.uniform(4000, 7000)), samples)
    return low * swell + (0.3 + 0.5 * cause.force) * hiss * swell**2


def rain(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Drops: very many short high clicks, denser with force, in a steady hiss."""
    hertz = frequencies(samples)
    drops = np.zeros(samples, dtype=np.float32)
    times = rng.integers(0, samples, int(samples / RATE * 60 * 10 ** (1.0 * cause.force)))
    drops[times] = rng.standard_gamma(0.4, len(times)).astype(np.float32)
    pitch = timbre.uniform(3500, 6500) * (1.2 - 0.4 * cause.size)
    grain = ringing(pitch, 0.0012)
    clicks = fft.irfft(fft.rfft(drops) * fft.rfft(grain, samples), samples)
    return clicks / clicks.std() + (0.3 + 0.3 * cause.force) * noise(rng, band(hertz, 2500, 9000), samples)


def fire(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Crackle: rare broadband snaps of very different amplitudes over a fluttering low roar."""
    hertz = frequencies(samples)
    times = at_random(rng, samples, 2 + 22 * cause.pace)
    grains = []
    for _ in range(6):
        burst = rng.standard_normal(int(0.02 * RATE)).astype(np.float32)
        decay = timbre.uniform(0.001, 0.005)
        grains.append(burst * np.exp(-np.arange(len(burst), dtype=np.float32) / np.float32(decay * RATE)))
    snaps = scatter(samples, times, grains, rng.lognormal(0, 0.9, len(times)))
    roar = noise(rng, band(hertz, 40, 350 - 150 * cause.size), samples) * np.exp(0.5 * wander(rng, samples, 9))
    return snaps + (0.03 + 0.15 * cause.force) * roar + 0.012 * noise(rng, band(hertz, 800, 5000), samples)


def grass(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Rustle: a band of middle and high noise in irregular gusts, its two halves not quite in step."""
    hertz = frequencies(samples)
    center = timbre.uniform(1800, 3500)
    gust = wander(rng, samples, 0.8 + 1.5 * cause.pace)
    depth = 0.5 + 0.7 * cause.force
    lower = noise(rng, band(hertz, center * 0.4, center), samples)
    upper = noise(rng, band(hertz, center, center * 2.2), samples)
    flutter = 0.35 * wander(rng, samples, 14)
    return lower * np.exp(depth * gust) + 0.8 * upper * np.exp(
        depth * (0.7 * gust + 0.7 * wander(rng, samples, 3)) + flutter
    )


def car(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """An engine: a dense harmonic tone, lower for a large vehicle, whose pitch drifts, with the hiss of tires."""
    hertz = frequencies(samples)
    pitch = (85 - 35 * cause.size) * np.exp(0.08 * wander(rng, samples, 0.6)) * (1 + 0.15 * cause.pace)
    order = np.arange(1, 60)
    weights = order**-0.7 * np.exp(0.35 * timbre.standard_normal(len(order)))
    engine = periodic(one_period(timbre, weights), pitch)
    tires = noise(rng, band(hertz, 300, 1800), samples)
    return engine * (1 + 0.15 * wander(rng, samples, 20)) + (0.2 + 0.25 * cause.force) * tires


def bird(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Song: phrases of quick gliding whistles, higher for a small bird, with pauses between."""
    pitch = 4800 - 1900 * cause.size
    beat = 1 / (5 + 9 * cause.pace)
    glide = timbre.uniform(-0.5, 0.5, 3)
    grains = []
    for number in range(3):
        points = int(beat * timbre.uniform(0.45, 0.75) * RATE)
        along = np.linspace(0, 1, points, dtype=np.float32)
        sweep = pitch * timbre.uniform(0.85, 1.2) * np.exp(glide[number] * (along - 0.5))
        grains.append((np.sin(2 * np.pi * np.cumsum(sweep / RATE)) * np.sin(np.pi * along) ** 2).astype(np.float32))
    starts: list[float] = []
    at, seconds = rng.uniform(0, 0.6), samples / RATE
    while at < seconds:
        notes = int(rng.integers(3, 5 + round(8 * cause.force)))
        starts.extend(at + beat * np.arange(notes))
        at += beat * notes + rng.uniform(0.15, 0.8)
    times = np.array([time for time in starts if time < seconds - 0.01])
    return scatter(samples, times, grains, rng.uniform(0.6, 1.0, len(times)))


def crowd(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Babble: voices that start and stop with their syllables, more of them with force."""
    coarse = samples // 4  # voices stay below 5 kHz, so a quarter of the rate suffices
    total = np.zeros(coarse, dtype=np.float32)
    for _ in range(4 + round(6 * cause.force)):
        pitch = 4 * (210 - 100 * cause.size) * np.exp(0.25 * timbre.standard_normal() + 0.1 * wander(rng, coarse, 8))
        harmonics = np.arange(1, 36) * pitch.mean() / 4
        formants = rng.uniform([350, 1000, 2300], [800, 2000, 3200])
        weights = sum(
            gain / (1 + ((harmonics - formant) / 120) ** 2)
            for gain, formant in zip((1, 0.6, 0.35), formants, strict=True)
        )
        syllables = np.maximum(wander(rng, coarse, 4 * (7 + 5 * cause.pace)), 0)
        total += periodic(one_period(rng, weights), pitch) * syllables
    breath = noise(rng, band(frequencies(samples), 2000, 6000), samples)
    voices = fft.irfft(fft.rfft(total), samples)
    return voices / voices.std() + 0.08 * breath * np.exp(0.6 * wander(rng, samples, 8))


def bell(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Strokes: inharmonic partials that start together and decay slowly, high ones first; lower for a large bell."""
    prime = 460 * 0.8**cause.size
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 3.01, 4.1, 5.4]) * timbre.uniform(0.99, 1.01, 9)
    decays = (0.55 + 0.25 * cause.size) / ratios**0.5
    stroke = np.zeros(int(5 * decays.max() * RATE) + 1, dtype=np.float32)
    for ratio, decay, height in zip(ratios, decays, timbre.uniform(0.6, 1.0, 9), strict=True):
        partial = ringing(prime * ratio, decay)
        stroke[: len(partial)] += np.float32(height) * partial
    gap = 1 / (1.4 + 0.8 * cause.pace)
    times = np.arange(rng.uniform(0, gap), samples / RATE - 0.01, gap)
    times = np.clip(times + rng.normal(0, 0.03, len(times)), 0, samples / RATE - 0.01)
    return scatter(samples, times, [stroke], rng.uniform(0.7, 1.0, len(times)) * (0.8 + 0.2 * cause.force))


def gears(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Clatter: a regular train of short metallic clicks, which repeats the pattern of one turn, over a faint hum."""
    grain = sum(
        height * ringing(pitch, 0.004)[: int(0.02 * RATE)]
        for pitch, height in zip(
            timbre.uniform([900, 2100, 4200], [1200, 2700, 5400]) * (1.1 - 0.2 * cause.size),
            (1.0, 0.8, 0.6),
            strict=True,
        )
    )
    rate = 10 + 8 * cause.pace
    times = np.arange(rng.uniform(0, 1 / rate), samples / RATE - 0.01, 1 / rate)
    turn = timbre.uniform(0.5, 1.0, 8 + round(6 * cause.pace))
    heights = turn[np.arange(len(times)) % len(turn)] * rng.uniform(0.9, 1.1, len(times))
    hum = periodic(
        one_period(timbre, np.arange(1, 9) ** -1.0), np.full(samples, 60 + 40 * cause.pace, dtype=np.float32)
    )
    return scatter(samples, times, [np.asarray(grain)], heights) + (0.03 + 0.03 * cause.force) * hum


def rotor(rng: Rng, timbre: Rng, cause: Cause, samples: int) -> np.ndarray:
    """Chop: low noise that swells smoothly and regularly as the blades pass."""
    hertz = frequencies(samples)
    beat = (5 + 9 * cause.pace) * np.exp(0.03 * wander(rng, samples, 0.7))
    phase = 2 * np.pi * np.cumsum(beat / RATE, dtype=np.float64)
    envelope = (0.5 + 0.5 * np.cos(phase)).astype(np.float32) ** timbre.uniform(1.5, 3.0) + 0.05
    wash = noise(rng, band(hertz, 50, 700 - 350 * cause.size), samples)
    swish = noise(rng, band(hertz, 700, 3000), samples)
    return wash * envelope + (0.1 + 0.25 * cause.force) * swish * envelope


SOUNDS = {kind.__name__: kind for kind in (surf, rain, fire, grass, car, bird, crowd, bell, gears, rotor)}


def sound_of(rng: Rng, cause: Cause, samples: int) -> np.ndarray:
    """The sound of a cause alone, float32 (samples,) at RATE.

    It has unit power and softly limited peaks, so that neither the level nor the peaks reveal the kind.
    """
    sound = SOUNDS[cause.kind](rng, np.random.default_rng(cause.instance), cause, samples)
    limited = np.tanh(of_unit_power(sound) / np.float32(LOUDEST_PEAK))
    return of_unit_power(limited)


def of_unit_power(sound: np.ndarray) -> np.ndarray:
    """The sound scaled to a root mean square of 1."""
    return sound / np.sqrt(np.mean(sound**2) + 1e-12)
