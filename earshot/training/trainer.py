"""The trainer: AdamW under a OneCycle schedule, gradient clipping, mixed precision, validation, checkpoints.

It knows nothing of what is learned: a task brings the network, the batches, the loss and the validation.

Training ends with the same weights whether it was interrupted or not: batches and dropout are functions of the step's
number, and on a CPU the number of threads is a parameter, since sums depend on it.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from earshot.pipeline.errors import EarshotError
from earshot.training.chance import generator
from earshot.training.checkpoints import load_checkpoint, save_checkpoint

CHECKPOINT_SECONDS = 20.0  # between two checkpoints; changes no result
CHECK_STEPS = 50  # between looks at the loss: on a GPU each look waits for the device


class Task(Protocol):
    """What is trained.

    `network` holds everything that has weights, and `batches_per_epoch` says how long an epoch is.
    """

    network: nn.Module
    batches_per_epoch: int

    def batches(self, numbers: range) -> Iterator[Any]:
        """The training batches of these numbers, ready on the network's device."""

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Of one batch the mean loss, and the share that was right: scalars."""

    def validate(self) -> dict[str, float | None]:
        """What the history says of a network, measured on the validation split; called in eval mode."""


@dataclass(frozen=True)
class Plan:
    """How to train; the values of `pretrain` of the same names.

    Args:
        epochs: passes over the training moments.
        learning_rate: peak of the OneCycle schedule.
        weight_decay: of AdamW, for all weights.
        clip_norm: longest gradient.
        precision: `bf16` (autocast) or `float32`.
        seed: of everything drawn in a step.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    precision: str
    seed: int


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
    history: list[dict[str, float | None]] = field(default_factory=list)


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
        self.optimiser = AdamW(self.network.parameters(), weight_decay=plan.weight_decay, fused=True)
        self.schedule = OneCycleLR(self.optimiser, plan.learning_rate, total_steps=max(self.steps, 1))
        self.progress = Progress()
        if checkpoint.exists():
            self._resume()
        self._sums = torch.tensor([self.progress.loss, self.progress.right], dtype=torch.float64, device=self.device)

    def train(self, title: str, position: int = 0) -> Progress:
        """Do the steps that are left; return where training ended.

        Args:
            title, position: name of the progress bar and its line, for trainings beside one another.

        Raises:
            EarshotError: the loss is no longer a number.
        """
        first = self.progress.step
        self._mark = self._saved = time.monotonic()
        self.network.train()
        with tqdm(total=self.steps, initial=first, desc=title, position=position, leave=False, disable=None) as bar:
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
        return self.progress

    def validate(self) -> dict[str, float | None]:
        """The task's validation, without dropout and with the batch norm that was learned."""
        self.network.eval()
        with torch.inference_mode(), self._autocast():
            found = self.task.validate()
        self.network.train()
        return found

    def _step(self, batch: Any) -> float:
        """One step of the optimiser and of the schedule; the learning rate that was used."""
        torch.manual_seed(int(generator("step", self.plan.seed, self.progress.step).integers(2**63)))  # dropout
        with self._autocast():
            loss, right = self.task.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm)
        rate = self.optimiser.param_groups[0]["lr"]
        self.optimiser.step()
        self.schedule.step()
        self._sums += torch.stack([loss.detach(), right.detach()])
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
                f"pretrain.learning_rate ({self.plan.learning_rate}) or pretrain.clip_norm ({self.plan.clip_norm})"
            )

    def _save(self) -> None:
        self._take_sums()
        group = self.optimiser.param_groups[0]
        facts = asdict(self.progress) | {
            "schedule": self.schedule.state_dict(),
            "group": {"lr": group["lr"], "betas": group["betas"]},
        }
        save_checkpoint(self.checkpoint, self.network, self.optimiser, facts)
        self._saved = self._mark = time.monotonic()

    def _resume(self) -> None:
        facts = load_checkpoint(self.checkpoint, self.network, self.optimiser)
        self.schedule.load_state_dict(facts.pop("schedule"))
        self.optimiser.param_groups[0].update(facts.pop("group"))
        self.progress = Progress(**facts)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.precision == "bf16")

