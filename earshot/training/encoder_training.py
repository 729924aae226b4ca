"""Training of an encoder and its wrong-sound control from the same initial weights.

A stage that trains defines a subclass of EncoderTraining, and calls `train_encoders` and `train_beside`.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from earshot.core.files import write_atomically
from earshot.networks.device import on_device, seed_generators, used_precision
from earshot.networks.files import save_architecture, save_weights
from earshot.params.training import Training
from earshot.pipeline import torchrun
from earshot.pipeline.stage import StageContext
from earshot.training import distributed as processes
from earshot.training.augmentation import Augmentation, augmentation_of
from earshot.training.batch_norm import estimate_batch_norm, first_batches
from earshot.training.trainer import Plan, Task, Trainer

BEGINNING = "beginning"  # folder of the initial weights in the scratch folder
COMPARED = ("chance", "majority", "wrong_sound_val_accuracy")  # metrics beside the accuracy in the closing line
LEARNED, WRONG_SOUND = "learned", "wrong sound"  # words of the closing line
HELD_OUT = ("val_accuracy", "test_accuracy")  # metrics of the control beside those of the encoder

P = TypeVar("P", bound=Training)


class EncoderTask(Task, Protocol):
    """A task that trains an encoder.

    Attributes:
        encoder: the part of the trained network to write.
        batch_size: items per batch.
        validated: clips of the validation split.
    """

    encoder: Any
    batch_size: int
    validated: int

    def alarms(self, history: Sequence[dict[str, Any]]) -> dict[str, str]:
        """What is wrong with a training after these epochs, in words, by a short name; empty if nothing is."""


@dataclass(frozen=True)
class EncoderTraining(ABC, Generic[P]):
    """The arguments of the training processes.

    Args:
        root: the folder with data/.
        seed: of all random draws.
        params: the stage's group of parameters.
        weights: a file of initial weights.
        models: output folder of the encoders.
        scratch: folder for unfinished work.

    Attributes:
        items: the noun for a batch's items, for the speed.
        examples: the noun for an epoch's examples; the metric `<examples>_trained_on` counts them.
        advice: what to try if the encoder has not learned.
    """

    items: ClassVar[str]
    examples: ClassVar[str]
    advice: ClassVar[str]

    root: Path
    seed: int
    params: P
    weights: Path | None
    models: Path
    scratch: Path

    @property
    def remark(self) -> str:
        """What the closing line must add, such as which part was not trained."""
        return ""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with random weights."""

    @abstractmethod
    def task(self, name: str, network: Any) -> "EncoderTask":
        """The task of the network `name`, `encoder` or `wrong_sound`; `ready` moves the network to its device."""

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """The network's inputs in a batch of the task."""

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """A network of this stage from a folder of encoders."""

    @abstractmethod
    def metadata(self, task: Any) -> dict[str, Any]:
        """Further metrics of a task: `chance`, `<examples>_trained_on` and others."""

    def names(self) -> list[str]:
        """The networks to train: the encoder, and the control if requested."""
        return ["encoder", "wrong_sound"] if self.params.control and self.params.epochs else ["encoder"]

    def fit(self, network: Any, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Set what depends on training data in the random network, in place; `batches` are its inputs."""
        estimate_batch_norm(network, batches)

    def begin(self, network: Any, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Set the initial weights in the random network, in place."""

    def describe(self) -> None:
        """Write further files of the folder of encoders."""

    def augmentation(self) -> Augmentation:
        """The random changes of images."""
        return augmentation_of(self.params)

    def ready(self, network: Any) -> Any:
        """Move the network to its device, and set torch's number of threads."""
        torch.set_num_threads(self.params.num_threads)
        return on_device(network)

    def result(self, name: str) -> Path:
        """The file with the metrics and the history of a finished training."""
        return self.scratch / f"{name}.result.json"


def train_encoders(run: StageContext[Any], kind: type[EncoderTraining[Any]]) -> str:
    """The main function of a training stage: write the networks and their metrics; return the closing line."""
    training = _training(run, kind)
    write_beginning(training)
    names = training.names()
    if torchrun.is_started():
        train_together(training, names)
    else:
        run.map_shards(partial(train, training=training, names=names), range(len(names)), title="training")
    run.publish(run.stage.writes[0])
    results = {name: json.loads(training.result(name).read_text()) for name in names}
    return write_results(run, training, results)


def train_beside(run: StageContext[Any], kind: type[EncoderTraining[Any]]) -> None:
    """The main function of the other processes of a distributed training."""
    training = _training(run, kind)
    train_together(training, training.names())


def _training(run: StageContext[Any], kind: type[EncoderTraining[Any]]) -> EncoderTraining[Any]:
    params = getattr(run.params, run.stage.name)
    models, weights = run.out(run.stage.writes[0]), run.optional_path(params.weights)
    return kind(run.root, run.params.seed, params, weights, models, run.scratch)


def write_beginning(training: EncoderTraining[Any]) -> None:
    """Write the random network, with its statistics of training data, and the network with the initial weights."""
    seed_generators(training.seed)
    network = training.build()
    batches = [training.inputs(batch) for batch in first_batches(training.task("encoder", network))]
    training.fit(network, batches)
    _save(training.models, "random", network)
    training.describe()
    training.begin(network, batches)
    _save(training.scratch / BEGINNING, "encoder", network)


def _save(folder: Path, name: str, network: nn.Module) -> None:
    save_weights(folder, name, network)
    save_architecture(folder, network)


def train_together(training: EncoderTraining[Any], names: Sequence[str]) -> None:
    """Train the networks one after another, each with all processes."""
    with processes.together():
        for number in range(len(names)):
            train(number, training, names)


def train(number: int, training: EncoderTraining[Any], names: Sequence[str]) -> dict[str, int]:
    """Train one of the networks, or resume its training, and write it."""
    name = names[number]
    task = training.task(name, training.load(training.scratch / BEGINNING))
    plan = Plan.of(training.params, training.seed)
    trainer = Trainer(task, plan, training.scratch / f"{name}.checkpoint.safetensors")
    progress = trainer.train(title=name.replace("_", " "), position=number + 1)
    kept = trainer.epoch_kept()
    final = progress.history[kept - 1] if kept else {"epoch": 0, **trainer.validate()}
    tested = trainer.test()
    if processes.rank():
        return {}
    save_weights(training.models, name, task.encoder)
    metrics = {
        "val_accuracy": final["val_accuracy"],
        **training.metadata(task),
        **tested,
        "train_accuracy": final.get("train_accuracy"),
        "epochs": training.params.epochs,
        "epoch_kept": kept,
        "precision": used_precision(training.params.precision, trainer.device),
    }
    speed = progress.step * task.batch_size / progress.seconds if progress.step else None
    result = {
        "metrics": metrics,
        "history": progress.history or [final],
        "speed": speed,
        "validated": task.validated,
        "alarms": list(task.alarms(progress.history[:kept]).values()),
    }
    with write_atomically(training.result(name)) as temporary_path:
        temporary_path.write_text(json.dumps(result))
    return {"steps": progress.step}


def write_results(run: StageContext[Any], training: EncoderTraining[Any], results: dict[str, Any]) -> str:
    """Write the encoder's metrics with the control's accuracy, and a row per epoch of both; return the closing line."""
    metrics, rows, speed = (results["encoder"][key] for key in ("metrics", "history", "speed"))
    if "wrong_sound" in results:
        measured = results["wrong_sound"]["metrics"]
        metrics |= {f"wrong_sound_{key}": measured[key] for key in HELD_OUT if key in measured}
        for row, control in zip(rows, results["wrong_sound"]["history"], strict=False):
            row |= {f"wrong_sound_{key}": control[key] for key in ("train_loss", "train_accuracy", "val_accuracy")}
    run.write_plot(run.stage.plots[0], rows)
    run.write_metrics(run.stage.metrics[0], metrics)
    with write_atomically(run.scratch_root / "timings" / f"{run.stage.name}.json") as temporary_path:
        temporary_path.write_text(json.dumps({f"{training.items}_per_second": speed}) + "\n")
    line = closing_line(metrics, training.items, training.examples, speed)
    result = verdict(metrics, results["encoder"]["validated"])
    if result and result != LEARNED:
        result += f"; {training.advice}"
    alarms = "".join(f"; ALARM: {alarm}" for alarm in results["encoder"]["alarms"])
    return line + (f": {result}" if result else "") + training.remark + alarms


def verdict(metrics: dict[str, Any], clips: int) -> str:
    """`learned` if the validation accuracy is more than two standard errors above each of its controls.

    Otherwise the controls that it is not above; empty if nothing was trained or measured. Moments of one clip resemble
    each other, so the standard errors are those of as many items as there are validation `clips`.
    """
    own = metrics["val_accuracy"]
    if own is None or not metrics["epochs"]:
        return ""
    beside = {word: metrics[name] for name, word in _compared(metrics).items() if metrics[name] is not None}
    variances = {word: value * (1 - value) if word == WRONG_SOUND else 0 for word, value in beside.items()}
    margins = {word: 2 * math.sqrt((own * (1 - own) + variances[word]) / max(clips, 1)) for word in beside}
    below = [word for word, value in beside.items() if own <= value + margins[word]]
    return f"not above {', '.join(below)} by two standard errors ({clips:,} validation clips)" if below else LEARNED


def closing_line(metrics: dict[str, Any], items: str, examples: str, speed: float | None) -> str:
    """The accuracy beside its controls, the amount of training, the precision and the speed."""
    compared = (f"{word} {_share(metrics[name])}" for name, word in _compared(metrics).items())
    trained_on = f"{metrics['epochs']} epochs on {metrics[f'{examples}_trained_on']:,} {examples}"
    trained = f"{trained_on} in {metrics['precision']}" + (f", {speed:.0f} {items} a second" if speed else "")
    return f"validation accuracy {_share(metrics['val_accuracy'])} ({', '.join(compared)}) after {trained}"


def _compared(metrics: dict[str, Any]) -> dict[str, str]:
    """The metrics beside the accuracy, in words."""
    return {name: name.removesuffix("_val_accuracy").replace("_", " ") for name in COMPARED if name in metrics}


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
