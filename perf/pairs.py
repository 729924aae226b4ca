"""Spectrograms against bare transforms of the same size, and training on pairs against the same steps in memory.

    python -m perf.pairs                     # on the scenes under this folder
    python -m perf.pairs --root DIR --set correspond.network=l3
    python -m perf.pairs --assert            # exits with 1 if a bound does not hold

Takes three minutes and two cores. One network trains, with the parameters of params.yaml; its loader works in threads
beside it (EARSHOT_THREADS), once with a core that is free and once on the same core.
"""

from pathlib import Path

import torch

from earshot.core.params import load_params
from earshot.networks.device import get_device
from earshot.networks.spectrogram import LINEAR, SAMPLES, Spectrogram
from earshot.params.correspond import CorrespondParams
from perf.rounds import Ratio, Rounds, end, in_turns, parser_of, print_speeds, report, timed
from perf.steps import loader_kinds, loader_ratios

ROUNDS, STEPS, SOUNDS = 6, 20, 64
SPECTROGRAMS = 0.2  # of the speed of their bare transforms


def measure_spectrograms() -> dict[str, list]:
    """Sounds a second."""
    device = get_device()
    sounds = torch.rand(SOUNDS, SAMPLES, device=device) - 0.5
    windows, spectrogram = torch.rand(SOUNDS * LINEAR.windows, LINEAR.points, device=device), Spectrogram().to(device)

    def transform() -> None:
        spectrogram(sounds)
        _finish()

    def bare() -> None:
        torch.fft.rfft(windows)
        _finish()

    return in_turns({"spectrograms": lambda: timed(transform, SOUNDS), "bare": lambda: timed(bare, SOUNDS)}, ROUNDS)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratios(spectrograms: dict[str, Rounds], trainings: dict[str, Rounds]) -> list[Ratio]:
    """The measurements beside their bounds."""
    name, (ours, bare) = "spectrograms / bare transforms", spectrograms.values()
    return [Ratio.of(name, ours, bare, by="clock", least=SPECTROGRAMS), *loader_ratios(trainings)]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--root", type=Path, default=Path("."))
    options = parser.parse_args(arguments)
    params = load_params(CorrespondParams, options.params, options.set)
    torch.set_num_threads(params.correspond.num_threads)
    spectrograms = measure_spectrograms()
    print_speeds("sounds a second", spectrograms)
    trainings = in_turns(loader_kinds("correspond", params, options.root, STEPS), ROUNDS)
    print_speeds("pairs a second", trainings)
    end(options, report(ratios(spectrograms, trainings)))


if __name__ == "__main__":
    main()
