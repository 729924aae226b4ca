"""The fast texture, and that of torch, against the float64 reference: errors and speeds, on one core.

    EARSHOT_REAL_DATA=/path/to/material python -m perf.texture
    python -m perf.texture --assert          # exits with 1 if a bound does not hold

Takes three minutes. Reads the middle 3.75 s of the sounds in sound_textures_ogg, which are stationary, and in esc10,
many of which have gaps, under the folder that EARSHOT_REAL_DATA names. All run on the same windows, in turns. An error
is a root mean square over the sounds, in standard deviations between the sounds. Other work on the machine slows all,
so times are the best and the median of several rounds, in time of the process and on the clock.

At the end, MFCC and spectrum stand beside their bare transforms: resampling and librosa's short-time transform, and the
Fourier transforms of the cochleagrams.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
import soundfile
import torch
from threadpoolctl import threadpool_limits

from earshot.sound.cochlea import BATCH, CHANNELS, ENVELOPE_BINS, cochleagrams, cochlear_bands
from earshot.sound.descriptors.mfcc import FFT_SAMPLES, HOP, MFCC_RATE, mfccs
from earshot.sound.descriptors.spectrum import spectra
from earshot.sound.texture import TEXTURE_GROUPS, sound_textures
from earshot.sound.texture_transform import TextureTransform
from earshot.sound.windows import WINDOW_SECONDS, cut_windows, fitted_windows
from tests.texture_judge import texture

CORPORA = ("sound_textures_ogg", "esc10/audio")
ROUNDS = 6
GROUP_ERROR, DIMENSION_ERROR = 0.01, 0.05  # standard deviations between the sounds
RATIO = 22  # times as many windows a second as the judge
OVER_TRANSFORMS = 1.5


@dataclass(frozen=True)
class Speed:
    """Windows a second in each round, by the time of the process and by the clock: (rounds, 2)."""

    rates: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """The rates of the fastest round: (2,)."""
        return self.rates.max(axis=0)

    @property
    def median(self) -> np.ndarray:
        """The rates of the median round: (2,)."""
        return np.median(self.rates, axis=0)


@dataclass(frozen=True)
class Comparison:
    """The measurements."""

    sounds: int
    errors: dict[str, np.ndarray]  # of a group: the error of each of its dimensions
    torch_errors: dict[str, np.ndarray]
    fast: Speed
    torch: Speed
    judge: Speed

    def faults(self) -> list[str]:
        """The bounds that do not hold, a sentence each."""
        faults = []
        for name, errors in self._errors():
            if rms(errors) >= GROUP_ERROR or errors.max() >= DIMENSION_ERROR:
                faults.append(f"{name}: error {rms(errors):.4f}, worst dimension {errors.max():.4f}")
        if self.fast.median[0] < RATIO * self.judge.median[0]:
            faults.append(f"{self.fast.median[0] / self.judge.median[0]:.1f} times the judge, expected {RATIO}")
        return faults

    def table(self) -> str:
        """The measurements as lines to print."""
        header = f"{'windows a second, one core':<28}{'process best':>14}{'median':>9}{'clock best':>13}{'median':>9}"
        lines = [f"{self.sounds} sounds, windows of 3.75 s", "", header]
        for name, speed in (("fast", self.fast), ("torch", self.torch), ("judge, float64", self.judge)):
            lines.append(_row(name, speed.best, speed.median))
        for name, speed, other in (("fast / judge", self.fast, self.judge), ("torch / fast", self.torch, self.fast)):
            lines.append(_row(name, speed.best / other.best, speed.median / other.median, digits=2))
        lines += ["", f"{'error / deviation':<28}{'rms':>14}{'worst':>9}"]
        lines += [f"{name:<28}{rms(errors):>14.4f}{errors.max():>9.4f}" for name, errors in self._errors()]
        return "\n".join(lines)

    def _errors(self) -> list[tuple[str, np.ndarray]]:
        """The errors of each group, numpy's and torch's, by name."""
        return [*self.errors.items(), *((f"{group}, torch", errors) for group, errors in self.torch_errors.items())]


def compare(paths: Sequence[Path], rounds: int = ROUNDS) -> Comparison:
    """Measure on the sounds in `paths`; the judge describes a part of them in each round, the fast path all."""
    windows, sample_rate = middle_windows(paths)
    transform, waveforms = TextureTransform(sample_rate), torch.from_numpy(windows)
    sound_textures(windows, sample_rate)
    transform(waveforms[:1])
    texture(windows[0], sample_rate)  # all have their filters now
    judged, fast_rates, torch_rates, judge_rates = [], [], [], []
    with threadpool_limits(1), torch.inference_mode():
        for part in np.array_split(windows, rounds):
            fast, rates = _timed(lambda: sound_textures(windows, sample_rate), len(windows))
            fast_rates.append(rates)
            in_torch, rates = _timed(lambda: transform(waveforms).numpy(), len(windows))
            torch_rates.append(rates)
            vectors, rates = _timed(lambda part=part: [texture(w, sample_rate) for w in part], len(part))
            judge_rates.append(rates)
            judged += vectors
    exact = np.array(judged)
    speeds = (Speed(np.array(rates)) for rates in (fast_rates, torch_rates, judge_rates))
    return Comparison(len(windows), errors_by_group(fast, exact), errors_by_group(in_torch, exact), *speeds)


def errors_by_group(actual: np.ndarray, exact: np.ndarray) -> dict[str, np.ndarray]:
    """The error of each dimension of a group, for textures (sounds, 502)."""
    errors = np.sqrt(np.mean((actual - exact) ** 2, axis=0)) / exact.std(axis=0)
    return {group: errors[part] for group, part in TEXTURE_GROUPS.items()}


@dataclass(frozen=True)
class Cost:
    """Processor time of a descriptor and of its bare transforms on the same windows, ms a window in each round."""

    descriptor: np.ndarray
    bare: np.ndarray

    @property
    def ratio(self) -> float:
        """The median round of the descriptor over that of its transforms."""
        return float(np.median(self.descriptor) / np.median(self.bare))


def costs(windows: np.ndarray, sample_rate: int, rounds: int = ROUNDS) -> dict[str, Cost]:
    """The cost of MFCC and spectrum by name. The cochleagrams are part of spectrum alone."""
    centers = np.full(BATCH, WINDOW_SECONDS / 2)
    works = {
        "mfcc": (lambda part: mfccs(part, sample_rate), lambda part: bare_mfcc(part, sample_rate)),
        "spectrum": (lambda part: spectra(cochleagrams(part), centers[: len(part)]), bare_cochleagrams),
    }
    batches = [windows[first : first + BATCH] for first in range(0, len(windows), BATCH)]
    times: dict[str, list[list[float]]] = {name: [[], []] for name in works}
    with threadpool_limits(1):
        for _ in range(rounds + 1):
            for name, pair in works.items():
                for work, measured in zip(pair, times[name], strict=True):
                    began = time.process_time()
                    for batch in batches:
                        work(batch)
                    measured.append(1000 * (time.process_time() - began) / len(windows))
    return {name: Cost(*(np.array(measured[1:]) for measured in of_name)) for name, of_name in times.items()}


def bare_mfcc(windows: np.ndarray, sample_rate: int) -> None:
    """Resample windows and transform them, as MFCC needs it."""
    for segment in librosa.resample(windows, orig_sr=sample_rate, target_sr=MFCC_RATE):
        librosa.stft(segment, n_fft=FFT_SAMPLES, hop_length=HOP, pad_mode="reflect")


def bare_cochleagrams(windows: np.ndarray) -> None:
    """The Fourier transforms of cochleagrams, of the same sizes and kinds, on numbers that are made before."""
    scipy.fft.rfft(windows)
    for band in cochlear_bands("lowpass+highpass"):
        scipy.fft.ifft(np.ones((len(windows), band.points), np.complex64), overwrite_x=True)
        scipy.fft.rfft(np.ones((len(windows), band.points), np.float32), overwrite_x=True)
    scipy.fft.irfft(np.ones((len(windows), CHANNELS, ENVELOPE_BINS), np.complex64), overwrite_x=True)


def middle_windows(paths: Sequence[Path]) -> tuple[np.ndarray, int]:
    """The window in the middle of every sound: float32 (sounds, samples), and their rate, which is one for all."""
    windows = []
    for path in paths:
        sound, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
        cut, _ = cut_windows(sound, sample_rate, [len(sound) / sample_rate / 2])
        windows.append(fitted_windows(cut, sample_rate))
    return np.concatenate(windows), sample_rate


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def _timed(work: Callable[[], np.ndarray], windows: int) -> tuple[np.ndarray, np.ndarray]:
    process, clock = time.process_time(), time.perf_counter()
    result = work()
    return result, windows / np.array([time.process_time() - process, time.perf_counter() - clock])


def _row(name: str, best: np.ndarray, median: np.ndarray, digits: int = 1) -> str:
    numbers = f"{best[0]:>14.{digits}f}{median[0]:>9.{digits}f}{best[1]:>13.{digits}f}{median[1]:>9.{digits}f}"
    return f"{name:<28}{numbers}"


def main() -> None:
    """Print the table; with --assert, fail if a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assert", dest="demand", action="store_true", help="exit with 1 if a bound does not hold")
    demand = parser.parse_args().demand
    material = os.environ.get("EARSHOT_REAL_DATA")
    if not material:
        sys.exit("EARSHOT_REAL_DATA is not set: set it to a folder with sound_textures_ogg/ and esc10/")
    faults = []
    for corpus in CORPORA:
        comparison = compare(sorted((Path(material) / corpus).glob("*.ogg")))
        print(f"{corpus}: {comparison.table()}\n")
        faults += [f"{corpus}: {fault}" for fault in comparison.faults()]
    print(f"{'ms a window, one core':<28}{'descriptor':>14}{'bare':>9}{'ratio':>13}")
    windows, sample_rate = middle_windows(sorted((Path(material) / CORPORA[-1]).glob("*.ogg"))[:64])
    for name, cost in costs(windows, sample_rate).items():
        print(f"{name:<28}{np.median(cost.descriptor):>14.2f}{np.median(cost.bare):>9.2f}{cost.ratio:>13.2f}")
        if cost.ratio > OVER_TRANSFORMS:
            faults.append(f"{name}: {cost.ratio:.2f} times its transforms, expected {OVER_TRANSFORMS}")
    if demand and faults:
        sys.exit("does not hold: " + "; ".join(faults))


if __name__ == "__main__":
    main()
