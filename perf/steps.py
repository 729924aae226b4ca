"""A short training without validation, for the programs that time steps."""

import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from torch import Tensor

from earshot.training.trainer import Plan, Progress, Trainer

KEPT = 4  # batches in memory, which steps use in turn


class Steps:
    """So many steps of a task, through its feed or on batches in memory.

    Args:
        task: of a training stage.
        steps: in all.
        in_memory: whether to use the first batches again and again.
    """

    def __init__(self, task: Any, steps: int, *, in_memory: bool) -> None:
        self.task, self.network, self.batches_per_epoch = task, task.network, steps
        self.in_memory: list[Any] = list(task.batches(range(KEPT))) if in_memory else []

    def batches(self, numbers: range) -> Iterator[Any]:
        return islice(cycle(self.in_memory), len(numbers)) if self.in_memory else self.task.batches(numbers)

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.task.loss(batch)

    def train(self, plan: Plan) -> Progress:
        """Train once."""
        with tempfile.TemporaryDirectory() as folder:
            return Trainer(self, plan, Path(folder) / "checkpoint").train("")
