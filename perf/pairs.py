"""Spectrograms against bare transforms of the same size, and training on pairs against the same steps in memory.

    python -m perf.pairs                     # on the scenes under this folder
    python -m perf.pairs --root DIR --set correspond.network=l3
    python -m perf.pairs --assert            # exits with 1 if a bound does not hold

Takes two minutes. One network trains, with the parameters of params.yaml; its loader works in threads beside it
(EARSHOT_THREADS). What is compared takes turns, so that other work on the machine meets both; a ratio is that of the
medians over the rounds.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from earshot.core.params import load_params
from earshot.networks.correspondence import build_correspondence
from earshot.networks.device import get_device
from earshot.networks.spectrogram import LINEAR, SAMPLES, Spectrogram
from earshot.params.correspond import CorrespondBaseParams, CorrespondParams
from earshot.scenes.clips import Sampling
from earshot.training.augmentation import augmentation_of
from earshot.training.correspondence import CorrespondenceTask
from earshot.training.objectives import build_objective
from earshot.training.sound_augmentation import sound_augmentation_of
from earshot.training.trainer import Plan
from perf.steps import Steps

ROUNDS, STEPS, SOUNDS = 6, 20, 64
SPECTROGRAMS, THROUGH_LOADER = 0.2, 0.8


def task_of(params: CorrespondBaseParams, root: Path) -> CorrespondenceTask:
    """The task of a training as params.yaml has it."""
    p = params.correspond
    torch.manual_seed(params.seed)
    network = build_correspondence(p.network, **p.model_dump()).to(get_device(), memory_format=torch.channels_last)
    sampling = Sampling(positives=p.positives, negatives=p.negatives, grid_s=p.grid_s, min_shift_s=p.min_shift_s)
    augmentation = augmentation_of(p)
    scenes = root / "data" / "scenes"
    return CorrespondenceTask(
        network,
        scenes,
        build_objective(p.objective, **p.model_dump()),
        sampling,
        augmentation,
        sound=sound_augmentation_of(p),
        batch_size=p.batch_size,
        seed=params.seed,
    )


def train(steps: Steps, params: CorrespondBaseParams) -> float:
    """Pairs a second of one short training."""
    plan = replace(Plan.of(params.correspond, params.seed), epochs=1)
    return STEPS * steps.task.batch_size / steps.train(plan).seconds


def timed(work: Callable[[], object]) -> float:
    """Sounds a second of one call for SOUNDS of them."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return SOUNDS / (time.perf_counter() - started)


def in_turns(kinds: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each measures in every round but the first, which warms up."""
    rates_by_name: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS + 1):
        for name, measure in kinds.items():
            rates_by_name[name].append(measure())
    return {name: rates[1:] for name, rates in rates_by_name.items()}


def compare(title: str, kinds: Mapping[str, Callable[[], float]], bound: float) -> bool:
    """Measure both, print them, and say whether the first reaches its share of the second."""
    rates_by_name = in_turns(kinds)
    print(f"{title:<30}{'median':>10}{'best':>10}")
    for name, rates in rates_by_name.items():
        print(f"{name:<30}{statistics.median(rates):>10.0f}{max(rates):>10.0f}")
    one, other = (statistics.median(rates) for rates in rates_by_name.values())
    print(f"{' / '.join(rates_by_name)}: {one / other:.3f} (expected {bound})\n")
    return one / other >= bound


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--assert", action="store_true", dest="bound", help="exit with 1 if a bound does not hold")
    options = parser.parse_args()
    params, device = load_params(CorrespondParams, options.params, options.set), get_device()
    torch.set_num_threads(params.correspond.num_threads)
    sounds = torch.rand(SOUNDS, SAMPLES, device=device) - 0.5
    windows, spectrogram = torch.rand(SOUNDS * LINEAR.windows, LINEAR.points, device=device), Spectrogram().to(device)
    transforms = {
        "spectrograms": lambda: timed(lambda: spectrogram(sounds)),
        "bare transforms": lambda: timed(lambda: torch.fft.rfft(windows)),
    }
    loaded, kept = (Steps(task_of(params, options.root), STEPS, in_memory=each) for each in (False, True))
    trainings = {"through the loader": lambda: train(loaded, params), "in memory": lambda: train(kept, params)}
    holds = [
        compare("sounds a second", transforms, SPECTROGRAMS),
        compare("pairs a second", trainings, THROUGH_LOADER),
    ]
    if options.bound and not all(holds):
        sys.exit(1)


if __name__ == "__main__":
    main()
