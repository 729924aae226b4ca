"""An encoder and its wrong-sound control, trained from one beginning: what the two stages that train have in common."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from earshot.core.files import write_atomically
from earshot.networks.device import chosen_device, used_precision
from earshot.networks.files import save_architecture, save_weights
from earshot.pipeline import torchrun
from earshot.pipeline.stage import Run
from earshot.training import distributed as processes
from earshot.training.trainer import Plan, Task, Trainer

BEGINNING = "beginning"  # folder in the scratch of the weights with which training begins
# Training batches from which batch-norm statistics of the random network, and other first values, are made, in items.
SHOWN = 1024


@dataclass(frozen=True)
class EncoderTraining(ABC):
    """What the processes that train are given.

    Args:
        scenes: the table of scenes.
        seed: of everything drawn.
        params: the stage's group of parameters; its `threads`, `epochs` and `control`, and the fields of a Plan, are
            read here.
        models: the folder of encoders that grows.
        scratch: for what is unfinished.
    """

    items: ClassVar[str] = "images"  # what a batch is made of, for its speed

    scenes: Path
    seed: int
    params: Any
    models: Path
    scratch: Path

    @abstractmethod
    def task(self, name: str, network: nn.Module) -> Task:
        """What the network called `name`, `encoder` or `wrong_sound`, is trained on."""

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """A network of this stage from a folder of encoders."""

    @abstractmethod
    def facts(self, task: Task) -> dict[str, Any]:
        """Metrics of a task beside those of its training."""

    def plan(self) -> Plan:
        """How to train."""
        named = [name for name in Plan.__dataclass_fields__ if name != "seed"]
        return Plan(seed=self.seed, **{name: getattr(self.params, name) for name in named})

    def ready(self, network: nn.Module) -> nn.Module:
        """The network on its device, and torch with as many threads as the parameters say."""
        torch.set_num_threads(self.params.threads)
        return network.to(chosen_device(), memory_format=torch.channels_last)

    def save_beginning(self, network: nn.Module) -> None:
        """Keep the weights with which training begins."""
        save_weights(self.scratch / BEGINNING, "encoder", network)
        save_architecture(self.scratch / BEGINNING, network)

    def result(self, name: str) -> Path:
        """Where the metrics and the history of a finished training stand."""
        return self.scratch / f"{name}.result.json"


def train_all(run: Run, training: EncoderTraining, names: Sequence[str], begin: Callable[[], None]) -> dict[str, Any]:
    """Train the networks of these names, beside each other or each by all processes; their results by name.

    `begin` writes the beginning.
    """
    begin()
    if torchrun.is_started():
        train_together(training, names)
    else:
        run.map_shards(partial(train, training=training, names=names), range(len(names)), title="training")
    return {name: json.loads(training.result(name).read_text()) for name in names}


def train_together(training: EncoderTraining, names: Sequence[str]) -> None:
    """Train one network after the other, each by all processes."""
    with processes.together():
        for number in range(len(names)):
            train(number, training, names)


def train(number: int, training: EncoderTraining, names: Sequence[str]) -> dict[str, int]:
    """Train one of the networks from the beginning, or from where it was interrupted, and write it."""
    name = names[number]
    task = training.task(name, training.load(training.scratch / BEGINNING))
    trainer = Trainer(task, training.plan(), training.scratch / f"{name}.checkpoint.safetensors")
    progress = trainer.train(title=name.replace("_", " "), position=number + 1)
    kept = trainer.epoch_kept()
    final = progress.history[kept - 1] if kept else {"epoch": 0, **trainer.validate()}
    if processes.rank():
        return {}
    save_weights(training.models, name, task.network)
    speed = progress.step * task.batch / progress.seconds if progress.step else None
    metrics = {
        "val_accuracy": final["val_accuracy"],
        **training.facts(task),
        "train_accuracy": final.get("train_accuracy"),
        "epochs": training.params.epochs,
        "epoch_kept": kept,
        "precision": used_precision(training.params.precision, trainer.device),
        f"{training.items}_per_second": speed,
    }
    with write_atomically(training.result(name)) as growing:
        growing.write_text(json.dumps({"metrics": metrics, "history": progress.history or [final]}))
    return {"steps": progress.step}


def write_results(run: Run, results: dict[str, Any], name: str, history: str) -> dict[str, Any]:
    """Write the encoder's metrics with the control's accuracy, and a row an epoch of both; return the metrics."""
    metrics, rows = results["encoder"]["metrics"], results["encoder"]["history"]
    if "wrong_sound" in results:
        metrics["wrong_sound_val_accuracy"] = results["wrong_sound"]["metrics"]["val_accuracy"]
        for row, control in zip(rows, results["wrong_sound"]["history"], strict=False):
            row |= {f"wrong_sound_{key}": control[key] for key in ("train_loss", "train_accuracy", "val_accuracy")}
    run.write_plot(history, rows)
    run.write_metrics(name, metrics)
    return metrics


def closing_line(metrics: dict[str, Any], compared: Sequence[str], trained_on: str, items: str) -> str:
    """Accuracy beside what it must be compared with; `trained_on` says of how much, `items` of what a batch is made."""
    names = [name for name in (*compared, "wrong_sound_val_accuracy") if name in metrics]
    beside = ", ".join(f"{_in_words(name)} {_share(metrics[name])}" for name in names)
    rate = metrics[f"{items}_per_second"]
    trained = f"{trained_on} in {metrics['precision']}" + (f", {rate:.0f} {items} a second" if rate else "")
    return f"validation accuracy {_share(metrics['val_accuracy'])} ({beside}) after {trained}"


def _in_words(name: str) -> str:
    return name.removesuffix("_val_accuracy").replace("_", " ")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
