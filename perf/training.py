"""Training through the real loader against the same steps on batches in memory, and bf16 against float32.

Beside the speed of bf16 and float32 stands the accuracy that a short training in each reaches from the same weights.

    python -m perf.training                  # on the tables of scenes and labels under this folder
    python -m perf.training --root DIR --set pretrain.batch_size=64
    python -m perf.training --assert         # exits with 1 if a bound does not hold

Takes three minutes. One network trains, with the parameters of params.yaml; its loader works in threads
beside it (EARSHOT_THREADS). The kinds take turns, so that other work on the machine meets all of them; the ratio is
that of the medians over the rounds. Time on the clock is what a user waits; time of the process tells what each costs,
with its loader, and hardly depends on other work.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from earshot.core.params import load_params
from earshot.networks.backbones import build_network
from earshot.networks.device import get_device
from earshot.networks.network import Network
from earshot.params.pretrain import PretrainParams
from earshot.training.augmentation import Augmentation, augmentation_of
from earshot.training.label_prediction import LabeledScenes, LabelTask, kind_of_labels
from earshot.training.trainer import Plan, Trainer
from perf.steps import Steps

ROUNDS, STEPS = 6, 40
EPOCHS = 5
THROUGH_LOADER, BF16 = 0.95, 1.7


def steps_of(params: PretrainParams, root: Path, layout: torch.memory_format, *, in_memory: bool) -> Steps:
    """Steps of the training as params.yaml has it, with networks and batches in a memory layout."""
    p = params.pretrain
    task = LabelTask(*training_data(params, root, layout), batch_size=p.batch_size, seed=params.seed)
    steps = Steps(task, STEPS, in_memory=in_memory)
    steps.in_memory = [(images.contiguous(memory_format=layout), labels) for images, labels in steps.in_memory]
    return steps


def training_data(
    params: PretrainParams, root: Path, layout: torch.memory_format
) -> tuple[Network, LabeledScenes, Augmentation]:
    """The network with its first weights, the tables, and how images are changed."""
    p = params.pretrain
    torch.manual_seed(params.seed)
    kind = kind_of_labels(root / "data/labels")
    sizes = {"classes": kind.outputs, "width": p.width, "image_size": p.image_size, "dropout": p.dropout}
    network = build_network(p.backbone, **sizes).to(get_device(), memory_format=layout)
    table = LabeledScenes(root / "data/scenes", root / "data/labels", "label", kind)
    return (
        network,
        table,
        augmentation_of(p),
    )


@dataclass
class Speed:
    """Images a second in each round, on the clock and by the time of the process."""

    clock: list[float]
    process: list[float]

    def row(self, name: str) -> str:
        clock, process = statistics.median(self.clock), statistics.median(self.process)
        return f"{name:<38}{clock:>9.0f}{max(self.clock):>9.0f}{process:>12.0f}{max(self.process):>9.0f}"


def measure(params: PretrainParams, root: Path) -> dict[str, Speed]:
    """Images a second of three kinds of training, in turns."""
    p = params.pretrain
    last, first = torch.channels_last, torch.contiguous_format
    kinds = {
        "through the loader": (steps_of(params, root, last, in_memory=False), p.precision),
        "batches in memory": (steps_of(params, root, last, in_memory=True), p.precision),
        "in memory, bf16, channels last": (steps_of(params, root, last, in_memory=True), "bf16"),
        "in memory, float32, channels first": (steps_of(params, root, first, in_memory=True), "float32"),
    }
    plan = replace(Plan.of(p, params.seed), epochs=1)
    speeds = {name: Speed([], []) for name in kinds}
    for _ in range(ROUNDS + 1):
        for name, (steps, precision) in kinds.items():
            clock, process = train(steps, replace(plan, precision=precision))
            speeds[name].clock.append(clock)
            speeds[name].process.append(process)
    return {name: Speed(s.clock[1:], s.process[1:]) for name, s in speeds.items()}  # the first round warms up


def accuracy(params: PretrainParams, root: Path, precision: str, layout: torch.memory_format) -> float | None:
    """Validation accuracy after a training of EPOCHS."""
    task = LabelTask(*training_data(params, root, layout), batch_size=params.pretrain.batch_size, seed=params.seed)
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(Plan.of(params.pretrain, params.seed), precision=precision, epochs=EPOCHS)
        return Trainer(task, plan, Path(folder) / "checkpoint").train("").history[-1]["val_accuracy"]


def train(steps: Steps, plan: Plan) -> tuple[float, float]:
    """Images a second of one short training, by the clock and by the time of the process."""
    started = time.process_time()
    progress = steps.train(plan)
    images = STEPS * steps.task.batch_size
    return images / progress.seconds, images / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--assert", action="store_true", dest="bound", help="exit with 1 if a bound does not hold")
    options = parser.parse_args()
    params = load_params(PretrainParams, options.params, options.set)
    torch.set_num_threads(params.pretrain.num_threads)
    speeds = measure(params, options.root)
    print(f"{'images a second':<38}{'clock':>9}{'best':>9}{'process':>12}{'best':>9}")
    print("\n".join(speed.row(name) for name, speed in speeds.items()))
    loaded, in_memory, bf16, float32 = speeds.values()
    loader = statistics.median(loaded.clock) / statistics.median(in_memory.clock)
    faster = statistics.median(bf16.process) / statistics.median(float32.process)
    print(f"\nthrough the loader / in memory, by the clock: {loader:.3f} (expected {THROUGH_LOADER})")
    print(f"bf16 / float32, by the time of the process: {faster:.2f} (expected {BF16} on a CPU)")
    for precision, layout in (("bf16", torch.channels_last), ("float32", torch.contiguous_format)):
        val_accuracy = accuracy(params, options.root, precision, layout)
        print(f"validation accuracy after {EPOCHS} epochs in {precision}: {val_accuracy}")
    if options.bound and (loader < THROUGH_LOADER or faster < BF16):
        sys.exit(1)


if __name__ == "__main__":
    main()
