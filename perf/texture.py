"""The fast texture, and that of torch, against the float64 reference: errors and speeds, on one core.

    EARSHOT_REAL_DATA=/path/to/material python -m perf.texture
    python -m perf.texture --assert          # exits with 1 if a bound does not hold

Takes four minutes. Reads the middle 3.75 s of the sounds in sound_textures_ogg, which are stationary, and in esc10,
many of which have gaps, under the folder that EARSHOT_REAL_DATA names. All run on the same windows, in turns. An error
is a root mean square over the sounds, in standard deviations between the sounds.

At the end, MFCC and spectrum stand beside their bare transforms: resampling and librosa's short-time transform, and the
Fourier transforms of the cochleagrams; and two processes that share the windows beside one, which needs two cores.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from perf.rounds import Ratio, Rounds, Speed, end, in_turns, parser_of, print_speeds, report, timed
from tests.texture_judge import texture

CORPORA = ("sound_textures_ogg", "esc10/audio")
ROUNDS = 6
GROUP_ERROR, DIMENSION_ERROR = 0.01, 0.05  # standard deviations between the sounds
OF_JUDGE, TWO_PROCESSES = 30, 1.9  # times as many windows a second as the judge, and as one process; the least
COST = 1.5  # of a descriptor, in times of its bare transforms; the most
FAST, TORCH, JUDGE = "textures, NumPy", "textures, torch", "judge, float64"


@dataclass(frozen=True)
class Comparison:
    """The measurements."""

    sounds: int
    errors: dict[str, np.ndarray]  # of a group: the error of each of its dimensions
    torch_errors: dict[str, np.ndarray]
    speeds: dict[str, Rounds]  # windows a second

    def faults(self) -> list[str]:
        """The errors that are beyond their bounds, a phrase each."""
        return [
            f"{name}: error {rms(errors):.4f}, worst dimension {errors.max():.4f}"
            for name, errors in self._errors()
            if rms(errors) >= GROUP_ERROR or errors.max() >= DIMENSION_ERROR
        ]

    def ratios(self) -> list[Ratio]:
        """The speeds beside their bounds."""
        fast, in_torch, judge = (self.speeds[name] for name in (FAST, TORCH, JUDGE))
        return [
            Ratio.of("textures / judge", fast, judge, by="processor", least=OF_JUDGE),
            Ratio.of("textures in torch / in NumPy", in_torch, fast, by="processor"),
        ]

    def table(self) -> str:
        """The errors as lines to print."""
        lines = [f"{'error / deviation':<28}{'rms':>14}{'worst':>9}"]
        lines += [f"{name:<28}{rms(errors):>14.4f}{errors.max():>9.4f}" for name, errors in self._errors()]
        return "\n".join(lines)

    def _errors(self) -> list[tuple[str, np.ndarray]]:
        """The errors of each group, NumPy's and torch's, by name."""
        return [*self.errors.items(), *((f"{group}, torch", errors) for group, errors in self.torch_errors.items())]


def compare(paths: Sequence[Path], rounds: int = ROUNDS) -> Comparison:
    """Measure on the sounds in `paths`; the judge describes a part of them in each round, the others all."""
    windows, sample_rate = middle_windows(paths)
    transform, waveforms = TextureTransform(sample_rate), torch.from_numpy(windows)
    sound_textures(windows, sample_rate)
    transform(waveforms[:1])
    texture(windows[0], sample_rate)  # all have their filters now
    parts = iter(np.array_split(windows, rounds))
    textures: dict[str, np.ndarray] = {}
    judged: list[np.ndarray] = []

    def fast() -> None:
        textures[FAST] = sound_textures(windows, sample_rate)

    def in_torch() -> None:
        textures[TORCH] = transform(waveforms).numpy()

    def judge() -> Speed:
        part = next(parts)
        return timed(lambda: judged.extend(texture(window, sample_rate) for window in part), len(part))

    kinds = {FAST: lambda: timed(fast, len(windows)), TORCH: lambda: timed(in_torch, len(windows)), JUDGE: judge}
    with threadpool_limits(1), torch.inference_mode():
        speeds = in_turns(kinds, rounds, warm_up=0)
    errors = (errors_by_group(textures[name], np.array(judged)) for name in (FAST, TORCH))
    return Comparison(len(windows), *errors, speeds)


def errors_by_group(actual: np.ndarray, exact: np.ndarray) -> dict[str, np.ndarray]:
    """The error of each dimension of a group, for textures (sounds, 502)."""
    errors = np.sqrt(np.mean((actual - exact) ** 2, axis=0)) / exact.std(axis=0)
    return {group: errors[part] for group, part in TEXTURE_GROUPS.items()}


def transforms(windows: np.ndarray, sample_rate: int, rounds: int = ROUNDS) -> dict[str, list[Speed]]:
    """Windows a second of MFCC and spectrum, and of their bare transforms. Cochleagrams are part of spectrum alone."""
    centers = np.full(BATCH, WINDOW_SECONDS / 2)
    works: dict[str, Callable[[np.ndarray], object]] = {
        "mfcc": lambda part: mfccs(part, sample_rate),
        "mfcc, bare": lambda part: bare_mfcc(part, sample_rate),
        "spectrum": lambda part: spectra(cochleagrams(part), centers[: len(part)]),
        "spectrum, bare": bare_cochleagrams,
    }
    batches = [windows[first : first + BATCH] for first in range(0, len(windows), BATCH)]

    def run(work: Callable[[np.ndarray], object]) -> None:
        for batch in batches:
            work(batch)

    with threadpool_limits(1):
        return in_turns(
            {name: partial(timed, partial(run, work), len(windows)) for name, work in works.items()}, rounds
        )


def transform_ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """What descriptors cost, in times of their bare transforms, beside the bounds."""
    return [
        Ratio.of(f"cost of {name} over transforms", speeds[f"{name}, bare"], speeds[name], by="processor", most=COST)
        for name in ("mfcc", "spectrum")
    ]


def processes(windows: np.ndarray, sample_rate: int, rounds: int = ROUNDS) -> dict[str, list[Speed]]:
    """Windows a second of one process, and of two that share the windows; both have started and have their filters."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=_keep, initargs=(windows, sample_rate)) as pool:

        def run(count: int) -> Speed:
            began = time.perf_counter()
            processor = sum(pool.map(_describe, range(count), [count] * count))
            return Speed(len(windows) / processor, len(windows) / (time.perf_counter() - began))

        return in_turns({f"processes: {count}": partial(run, count) for count in (1, 2)}, rounds)


def process_ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """Two processes beside one, with the bound."""
    one, two = speeds.values()
    return [Ratio.of("two processes / one", two, one, by="clock", least=TWO_PROCESSES)]


_kept: list[Any] = []  # in a process of `processes`: the windows and their rate


def _keep(*values: Any) -> None:
    _kept[:] = values


def _describe(part: int, parts: int) -> float:
    """Processor seconds of the textures of a part of the windows."""
    windows, sample_rate = _kept
    began = time.process_time()
    with threadpool_limits(1):
        sound_textures(windows[part::parts], sample_rate)
    return time.process_time() - began


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


def main() -> None:
    """Print the measurements; with --assert, fail if a bound does not hold."""
    options = parser_of(__doc__).parse_args()
    material = os.environ.get("EARSHOT_REAL_DATA")
    if not material:
        sys.exit("EARSHOT_REAL_DATA is not set: set it to a folder with sound_textures_ogg/ and esc10/")
    faults = []
    for corpus in CORPORA:
        comparison = compare(sorted((Path(material) / corpus).glob("*.ogg")))
        print(f"{corpus}: {comparison.sounds} sounds, windows of 3.75 s, one core\n\n{comparison.table()}\n")
        print_speeds("windows a second", comparison.speeds)
        faults += [f"{corpus}: {fault}" for fault in comparison.faults() + report(comparison.ratios())]
    windows, sample_rate = middle_windows(sorted((Path(material) / CORPORA[-1]).glob("*.ogg"))[:64])
    for measure, ratios in ((transforms, transform_ratios), (processes, process_ratios)):
        speeds = measure(windows, sample_rate)
        print_speeds("windows a second", speeds)
        faults += report(ratios(speeds))
    end(options, faults)


if __name__ == "__main__":
    main()
