"""Training through the real loader against the same steps on batches in memory, and bf16 against float32.

Beside the speed of bf16 and float32 stands the accuracy that a short training in each reaches from the same weights.

    python -m perf.training                  # on the tables of scenes and labels under this folder
    python -m perf.training --root DIR --set pretrain.batch_size=64
    python -m perf.training --assert         # exits with 1 if a bound does not hold

Takes four minutes and two cores. One network trains, with the parameters of params.yaml; its loader works in threads
beside it (EARSHOT_THREADS), once with a core that is free and once on the same core. Time on the clock is what a user
waits; time of the process tells what each costs, with its loader, and hardly depends on other work.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from earshot.core.params import load_params
from earshot.params.pretrain import PretrainParams
from earshot.training.trainer import Trainer
from perf.rounds import Ratio, Rounds, Speed, end, in_turns, parser_of, print_speeds, report
from perf.steps import Steps, loader_kinds, loader_ratios, plan_of, task_of

ROUNDS, STEPS = 6, 40
EPOCHS = 5
FASTER = 1.7  # bf16, on a CPU that computes in it
# The layout of networks and batches that suits each precision.
LAYOUTS = {"bf16": torch.channels_last, "float32": torch.contiguous_format}


def precision_kinds(params: PretrainParams, root: Path) -> dict[str, Callable[[], Speed]]:
    """The same training on batches in memory, in each precision."""

    def kind(precision: str, layout: torch.memory_format) -> Callable[[], Speed]:
        task = task_of("pretrain", params, root)
        task.network.to(memory_format=layout)
        steps = Steps(task, STEPS, in_memory=True)
        steps.in_memory = [(images.contiguous(memory_format=layout), labels) for images, labels in steps.in_memory]
        plan = replace(plan_of("pretrain", params), precision=precision)
        return lambda: steps.train(plan)

    return {precision: kind(precision, layout) for precision, layout in LAYOUTS.items()}


def accuracy(params: PretrainParams, root: Path, precision: str) -> float | None:
    """Validation accuracy after a training of EPOCHS."""
    task = task_of("pretrain", params, root)
    task.network.to(memory_format=LAYOUTS[precision])
    plan = replace(plan_of("pretrain", params), precision=precision, epochs=EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        return Trainer(task, plan, Path(folder) / "checkpoint").train("").history[-1]["val_accuracy"]


def ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """The measurements beside their bounds."""
    faster = Ratio.of("bf16 / float32", speeds["bf16"], speeds["float32"], by="processor", least=FASTER)
    return [*loader_ratios(speeds), faster]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--root", type=Path, default=Path("."))
    options = parser.parse_args(arguments)
    params = load_params(PretrainParams, options.params, options.set)
    kinds = loader_kinds("pretrain", params, options.root, STEPS) | precision_kinds(params, options.root)
    speeds = in_turns(kinds, ROUNDS)
    print_speeds("images a second", speeds)
    faults = report(ratios(speeds))
    for precision in LAYOUTS:
        reached = accuracy(params, options.root, precision)
        print(f"validation accuracy after {EPOCHS} epochs in {precision}: {reached}")
    end(options, faults)


if __name__ == "__main__":
    main()
