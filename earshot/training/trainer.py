"""The trainer: optimizers and schedules, gradient clipping, mixed precision, validation, checkpoints.

It works for any task, which defines the network, the batches, the loss and the validation.

An interrupted training ends with the same weights as one without interruption: batches and dropout are functions of the
step's number, and on a CPU the number of threads is a parameter, because sums depend on it.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.core.rng import generator
from earshot.networks.device import autocast
from earshot.training import distributed as processes
from earshot.training.checkpoints import load_checkpoint, save_checkpoint

CHECKPOINT_SECONDS = 20.0  # between two checkpoints; changes no result
MOMENTUM = 0.9  # of SGD, as AlexNet was trained (Krizhevsky 2012, section 5)
CHANGING = {"lr", "betas"}  # optimizer settings that a schedule changes
BEST = {"best": ("val_accuracy", 1), "lowest-loss": ("val_loss", -1)}  # the metric, and 1 if higher is better
ROUNDING = 1e-9  # a third of 300 steps is 100, though not in floating point
CHECK_STEPS = 50  # between reads of the loss: on a GPU each read waits for the device


class Task(Protocol):
    """What a Trainer trains.

    `network` holds all weights; those that require gradients are trained. A task may also define six methods:
    `prepare()` runs whenever the network enters training mode, and may keep parts such as frozen batch norms in eval
    mode; `validate()` runs in eval mode and returns the validation scores of the history; `test()` does so once, after
    training; `watch(history)` runs after every epoch and may warn; `state()` returns further tensors for the
    checkpoint, and `restore(state)` takes them back.
    """

    network: Any
    batches_per_epoch: int

    def batches(self, numbers: range) -> Iterator[Any]:
        """The training batches of these numbers, on the network's device."""

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The mean loss and the accuracy of a batch: scalars."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to train; the parameters of `pretrain` of the same names.

    Args:
        epochs: passes over the training moments.
        learning_rate: the peak of the schedule `onecycle`, the start of `steps`.
        weight_decay: of all weights.
        grad_clip_norm: largest norm of the gradient.
        precision: `bf16` (autocast), `float32`, or `auto`: bf16 if the device is fast in it.
        seed: of all random draws in a step.
        optimizer: `adamw`, `adam` with the decay in the gradient, or `sgd` with momentum.
        schedule: `onecycle`, or `steps`: the rate is multiplied by `lr_gamma` every `lr_step_epochs` epochs, a number
            that need not be whole; 0 keeps the rate. Caffe's policy `step` and torch's StepLR count so.
        checkpoint_selection: keep the weights of the `last` epoch, of the `best` (the first with the highest
            val_accuracy), or of `lowest-loss`.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    grad_clip_norm: float
    precision: str
    seed: int
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    lr_step_epochs: float = 0.0
    lr_gamma: float = 0.1
    checkpoint_selection: str = "last"

    @classmethod
    def of(cls, params: Any, seed: int, **fixed: Any) -> "Plan":
        """Take each field from `fixed`, or else from the parameter of the same name.

        Raises:
            AttributeError: the parameters lack a field. There is no default, which would hide a renamed parameter.
        """
        fixed["seed"] = seed
        return cls(**fixed | {name: getattr(params, name) for name in cls.__dataclass_fields__.keys() - fixed.keys()})


@dataclass
class Progress:
    """The state of a training that a checkpoint keeps beside tensors.

    Args:
        step: number of completed steps.
        loss, right: sums over the steps of the epoch so far.
        seconds: time spent on training steps.
        history: a row per epoch.
    """

    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def best_epoch(self, selection: str) -> int | None:
        """The first epoch with the highest val_accuracy, or lowest val_loss, from 1; None without validation scores."""
        measured, sign = BEST[selection]
        rows = [row for row in self.history if row.get(measured) is not None]
        return max(rows, key=lambda row: sign * row[measured])["epoch"] if rows else None


class Trainer:
    """One training; it resumes from its checkpoint if there is one.

    Args:
        task: what to train; its network is trained in place.
        plan: how to train it.
        checkpoint: the file that keeps the state.
    """

    def __init__(self, task: Task, plan: Plan, checkpoint: Path) -> None:
        self.task, self.plan, self.checkpoint = task, plan, checkpoint
        self.network = task.network
        self.device = next(self.network.parameters()).device
        self.steps = plan.epochs * task.batches_per_epoch
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(plan, self.parameters)
        self.schedule = _schedule(plan, self.optimizer, task.batches_per_epoch)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}  # the state of the network after the best epoch so far
        if checkpoint.exists():
            self._resume()
        processes.agree(self.progress.step)
        self._loss = processes.shared_loss(self.network, task.loss)
        self._sums = torch.tensor([self.progress.loss, self.progress.right], dtype=torch.float64, device=self.device)

    def train(self, title: str, position: int = 0) -> Progress:
        """Run the remaining steps and load the weights to keep into the network; return the final progress.

        Args:
            title, position: name and line of the progress bar, for parallel trainings.

        Raises:
            EarshotError: the loss is not finite.
        """
        first = self.progress.step
        self._mark = self._saved = time.monotonic()
        self._train_mode()
        quiet = True if processes.rank() else None
        display: dict[str, Any] = {"desc": title, "position": position, "leave": False, "disable": quiet}
        with _no_denormals(), tqdm(total=self.steps, initial=first, **display) as bar:
            for batch in self.task.batches(range(first, self.steps)):
                rate = self._step(batch)
                bar.update()
                if self.progress.step % self.task.batches_per_epoch == 0:
                    self._end_epoch(rate)
                    bar.set_postfix(loss=self.progress.history[-1]["train_loss"])
                elif self.progress.step % CHECK_STEPS == 0:
                    self._take_sums()
                if time.monotonic() - self._saved > CHECKPOINT_SECONDS or self.progress.step == self.steps:
                    self._save()
        if self.best:
            self.network.load_state_dict(self.best)
        return self.progress

    def epoch_kept(self) -> int:
        """The epoch whose weights the network has after training, from 1; 0 without training."""
        best = (
            self.progress.best_epoch(self.plan.checkpoint_selection) if self.plan.checkpoint_selection in BEST else None
        )
        return best or len(self.progress.history)

    def validate(self) -> dict[str, float | None]:
        """The task's validation scores, in eval mode."""
        return self._measure("validate")

    def test(self) -> dict[str, float | None]:
        """The task's scores on its test split, in eval mode; nothing chooses by them."""
        return self._measure("test")

    def _measure(self, method: str) -> dict[str, float | None]:
        self.network.eval()
        processes.same_statistics(self.network)
        with torch.inference_mode(), self._autocast():
            scores: dict[str, float | None] = getattr(self.task, method, dict)()
        self._train_mode()
        return scores

    def _train_mode(self) -> None:
        self.network.train()
        if prepare := getattr(self.task, "prepare", None):
            prepare()

    def _step(self, batch: Any) -> float:
        """One step of the optimizer and of the schedule; returns the learning rate of the step."""
        drawn = generator("step", self.plan.seed, self.progress.step, processes.rank())
        torch.manual_seed(int(drawn.integers(2**63)))  # dropout
        with self._autocast():
            loss, right = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.plan.grad_clip_norm)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        self._sums += processes.mean(torch.stack([loss.detach(), right.detach()]))
        self.progress.step += 1
        return rate

    def _end_epoch(self, rate: float) -> None:
        self._take_sums()
        steps = self.task.batches_per_epoch
        row = {
            "epoch": self.progress.step // steps,
            "train_loss": self.progress.loss / steps,
            "train_accuracy": self.progress.right / steps,
            **self.validate(),
            "learning_rate": rate,
        }
        self.progress.history.append(row)
        if watch := getattr(self.task, "watch", None):
            watch(self.progress.history)
        if (
            self.plan.checkpoint_selection in BEST
            and self.progress.best_epoch(self.plan.checkpoint_selection) == row["epoch"]
        ):
            self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.progress.loss = self.progress.right = 0.0
        self._sums.zero_()
        self._mark = time.monotonic()  # training time excludes validation

    def _take_sums(self) -> None:
        """Update the sums and the time; raise EarshotError if the loss is not finite."""
        self.progress.loss, self.progress.right = self._sums.tolist()
        now = time.monotonic()
        self.progress.seconds += now - self._mark
        self._mark = now
        if not math.isfinite(self.progress.loss):
            raise EarshotError(
                f"step {self.progress.step} of {self.steps}: the loss is {self.progress.loss}, expected a number; "
                f"lower learning_rate ({self.plan.learning_rate}) or grad_clip_norm ({self.plan.grad_clip_norm})"
            )

    def _save(self) -> None:
        self._take_sums()
        if processes.rank() == 0:
            self._write()
        self._saved = self._mark = time.monotonic()

    def _write(self) -> None:
        group = self.optimizer.param_groups[0]
        metadata = asdict(self.progress) | {
            "schedule": self.schedule.state_dict(),
            "group": {key: group[key] for key in CHANGING & group.keys()},
        }
        states = {"network": self.network.state_dict(), "best": self.best, "task": getattr(self.task, "state", dict)()}
        save_checkpoint(self.checkpoint, states, self.optimizer, metadata)

    def _resume(self) -> None:
        states, metadata = load_checkpoint(self.checkpoint, ("network", "best", "task"), self.optimizer)
        self.network.load_state_dict(states["network"])
        self.best = states["best"]
        if states["task"]:
            task: Any = self.task
            task.restore({name: tensor.to(self.device) for name, tensor in states["task"].items()})
        self.schedule.load_state_dict(metadata.pop("schedule"))
        self.optimizer.param_groups[0].update(metadata.pop("group"))
        self.progress = Progress(**metadata)

    def _autocast(self) -> torch.autocast:
        return autocast(self.plan.precision, self.device)


@contextlib.contextmanager
def _no_denormals() -> Iterator[None]:
    """Flush denormal numbers, such as squares of tiny gradients, to zero; with them a CPU step takes a third longer."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _optimizer(plan: Plan, parameters: list[nn.Parameter]) -> Optimizer:
    if plan.optimizer == "sgd":
        return SGD(parameters, plan.learning_rate, momentum=MOMENTUM, weight_decay=plan.weight_decay, fused=True)
    kind = {"adam": Adam, "adamw": AdamW}[plan.optimizer]
    return kind(parameters, plan.learning_rate, weight_decay=plan.weight_decay, fused=True)


def _schedule(plan: Plan, optimizer: Optimizer, batches_per_epoch: int) -> LRScheduler:
    if plan.schedule == "steps":
        return LambdaLR(
            optimizer, lambda step: plan.lr_gamma ** lr_steps_before(step, plan.lr_step_epochs * batches_per_epoch)
        )
    cycled = plan.optimizer != "sgd"  # OneCycle also varies beta 1; the momentum of SGD is constant
    steps = max(plan.epochs * batches_per_epoch, 1)
    return OneCycleLR(optimizer, plan.learning_rate, total_steps=steps, cycle_momentum=cycled)


def lr_steps_before(step: int, interval: float) -> int:
    """How often the rate has dropped before step `step`, from 0, with a drop every `interval` steps; 0 for none."""
    return int(step / interval + ROUNDING) if interval else 0
