"""The trainer: optimisers and schedules, gradient clipping, mixed precision, validation, checkpoints.

It knows nothing of what is learned: a task brings the network, the batches, the loss and the validation.

Training ends with the same weights whether it was interrupted or not: batches and dropout are functions of the step's
number, and on a CPU the number of threads is a parameter, since sums depend on it.
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
CHANGING = {"lr", "betas"}  # what a schedule changes in the optimiser
BEST = {"best": ("val_accuracy", 1), "lowest-loss": ("val_loss", -1)}  # what is measured, and whether more is better
CHECK_STEPS = 50  # between looks at the loss: on a GPU each look waits for the device


class Task(Protocol):
    """What is trained.

    `network` holds everything that has weights, of which those that require gradients are trained, and
    `batches_per_epoch` says how long an epoch is. A task may also have a method `prepare()`, called whenever the
    network was put into training mode: it keeps parts of it, frozen batch norms say, in eval mode; a method
    `validate()`, called in eval mode, which gives what the history says of the network by the validation split; and a
    method `watch(history)`, called after every epoch, which warns of what goes wrong.
    """

    network: Any
    batches_per_epoch: int

    def batches(self, numbers: range) -> Iterator[Any]:
        """The training batches of these numbers, ready on the network's device."""

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Of one batch the mean loss, and the share that was right: scalars."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to train; the values of `pretrain` of the same names.

    Args:
        epochs: passes over the training moments.
        learning_rate: peak of the OneCycle schedule, beginning of the schedule in steps.
        weight_decay: for all weights.
        clip_norm: longest gradient.
        precision: `bf16` (autocast), `float32`, or `auto`: bf16 where the device does it fast.
        seed: of everything drawn in a step.
        optimiser: `adamw`, `adam` with the decay in the gradient, or `sgd` with momentum.
        schedule: `onecycle`, or `steps`: the rate is multiplied by `drop`, `drops` times, evenly over the training.
        checkpoint_selection: the weights of the `last` epoch, of the `best`, the first with the highest val_accuracy, or of
            that of `lowest-loss`.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    grad_clip_norm: float
    precision: str
    seed: int
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    lr_steps: int = 2
    lr_gamma: float = 0.1
    checkpoint_selection: str = "last"

    @classmethod
    def of(cls, params: Any, seed: int, **fixed: Any) -> "Plan":
        """Take each field from `fixed`, or else from the parameter of the same name.

        Raises:
            AttributeError: the parameters lack a field. No default replaces it: a renamed parameter would go unnoticed.
        """
        fixed["seed"] = seed
        return cls(**fixed | {name: getattr(params, name) for name in cls.__dataclass_fields__.keys() - fixed.keys()})


@dataclass
class Progress:
    """Where a training stands: all that a checkpoint keeps beside tensors.

    Args:
        step: steps done.
        loss, right: sums over the steps of the epoch so far.
        seconds: time spent on training steps.
        history: a row an epoch.
    """

    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def best_epoch(self, keep: str) -> int | None:
        """The first epoch with the highest val_accuracy, or lowest val_loss, from 1; None where none was measured."""
        measured, sign = BEST[keep]
        rows = [row for row in self.history if row.get(measured) is not None]
        return max(rows, key=lambda row: sign * row[measured])["epoch"] if rows else None


class Trainer:
    """One training, from its last checkpoint, where there is one, to its end.

    Args:
        task: what to train; its network is trained in place.
        plan: how to.
        checkpoint: the file that holds the state between runs.
    """

    def __init__(self, task: Task, plan: Plan, checkpoint: Path) -> None:
        self.task, self.plan, self.checkpoint = task, plan, checkpoint
        self.network = task.network
        self.device = next(self.network.parameters()).device
        self.steps = plan.epochs * task.batches_per_epoch
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(plan, self.parameters)
        self.schedule = _schedule(plan, self.optimizer, max(self.steps, 1))
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}  # the state of the network after the best epoch so far
        if checkpoint.exists():
            self._resume()
        processes.agree(self.progress.step)
        self._loss = processes.shared_loss(self.network, task.loss)
        self._sums = torch.tensor([self.progress.loss, self.progress.right], dtype=torch.float64, device=self.device)

    def train(self, title: str, position: int = 0) -> Progress:
        """Do the steps that are left and give the network the weights to keep; return where training ended.

        Args:
            title, position: name of the progress bar and its line, for trainings beside one another.

        Raises:
            EarshotError: the loss is no longer a number.
        """
        first = self.progress.step
        self._mark = self._saved = time.monotonic()
        self._train_mode()
        quiet = True if processes.rank() else None
        shown: dict[str, Any] = {"desc": title, "position": position, "leave": False, "disable": quiet}
        with _no_denormals(), tqdm(total=self.steps, initial=first, **shown) as bar:
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
        """The epoch whose weights the network has after training, from 1; 0 where none was done."""
        best = (
            self.progress.best_epoch(self.plan.checkpoint_selection) if self.plan.checkpoint_selection in BEST else None
        )
        return best or len(self.progress.history)

    def validate(self) -> dict[str, float | None]:
        """The task's validation, without dropout and with the batch norm that was learned."""
        self.network.eval()
        processes.same_statistics(self.network)
        with torch.inference_mode(), self._autocast():
            found: dict[str, float | None] = getattr(self.task, "validate", dict)()
        self._train_mode()
        return found

    def _train_mode(self) -> None:
        self.network.train()
        if prepare := getattr(self.task, "prepare", None):
            prepare()

    def _step(self, batch: Any) -> float:
        """One step of the optimiser and of the schedule; the learning rate that was used."""
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
        self._mark = time.monotonic()  # validation is not training time

    def _take_sums(self) -> None:
        """Bring the sums and the time up to date; the alarm for a loss that is no number."""
        self.progress.loss, self.progress.right = self._sums.tolist()
        now = time.monotonic()
        self.progress.seconds += now - self._mark
        self._mark = now
        if not math.isfinite(self.progress.loss):
            raise EarshotError(
                f"step {self.progress.step} of {self.steps}: the loss is {self.progress.loss}, wanted a number; lower "
                f"learning_rate ({self.plan.learning_rate}) or clip_norm ({self.plan.grad_clip_norm})"
            )

    def _save(self) -> None:
        self._take_sums()
        if processes.rank():
            return
        group = self.optimizer.param_groups[0]
        metadata = asdict(self.progress) | {
            "schedule": self.schedule.state_dict(),
            "group": {key: group[key] for key in CHANGING & group.keys()},
        }
        save_checkpoint(
            self.checkpoint, {"network": self.network.state_dict(), "best": self.best}, self.optimizer, metadata
        )
        self._saved = self._mark = time.monotonic()

    def _resume(self) -> None:
        states, metadata = load_checkpoint(self.checkpoint, ("network", "best"), self.optimizer)
        self.network.load_state_dict(states["network"])
        self.best = states["best"]
        self.schedule.load_state_dict(metadata.pop("schedule"))
        self.optimizer.param_groups[0].update(metadata.pop("group"))
        self.progress = Progress(**metadata)

    def _autocast(self) -> torch.autocast:
        return autocast(self.plan.precision, self.device)


@contextlib.contextmanager
def _no_denormals() -> Iterator[None]:
    """Squares of vanishing gradients are zero: with denormal numbers a step takes a third longer on a CPU."""
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


def _schedule(plan: Plan, optimizer: Optimizer, steps: int) -> LRScheduler:
    if plan.schedule == "steps":
        return LambdaLR(
            optimizer, lambda step: plan.lr_gamma ** min((plan.lr_steps + 1) * step // steps, plan.lr_steps)
        )
    cycled = plan.optimizer != "sgd"  # OneCycle turns beta 1 too; the momentum of SGD stays
    return OneCycleLR(optimizer, plan.learning_rate, total_steps=steps, cycle_momentum=cycled)
