"""The tasks of the training stages, and short trainings without validation, for the programs that time them."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earshot.core.errors import EarshotError
from earshot.params.correspond import CorrespondParams
from earshot.params.pretrain import PretrainParams
from earshot.training.corresponding import Corresponding
from earshot.training.pretraining import Pretraining
from earshot.training.trainer import Plan, Trainer
from perf.rounds import Ratio, Rounds, Speed

KEPT = 4  # batches in memory, which steps use in turn
FREE_CORE, ONE_CORE = 0.95, 0.9  # least speed through the loader, as a share of steps in memory
STAGES: dict[str, Any] = {"pretrain": (Pretraining, PretrainParams), "correspond": (Corresponding, CorrespondParams)}
LOADED, SHARED, IN_MEMORY = (
    "through the loader, a free core beside",
    "through the loader, one core for both",
    "in memory",
)


def task_of(stage: str, params: Any, root: Path) -> Any:
    """The task of a training stage, on the tables below a root; its network has random weights, the same each time.

    Exits where a table is missing.
    """
    kind, _ = STAGES[stage]
    torch.manual_seed(params.seed)
    try:
        training = kind(root, params.seed, getattr(params, stage), None, root / "models", root)
        return training.task("encoder", training.build())
    except EarshotError as error:
        sys.exit(str(error))


def plan_of(stage: str, params: Any) -> Plan:
    """The plan of one epoch, which `Steps` makes as long as it likes."""
    return replace(Plan.of(getattr(params, stage), params.seed), epochs=1)


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

    def train(self, plan: Plan) -> Speed:
        """Train once; images or pairs a second. The clock counts steps alone, the processors also the start."""
        began, items = time.process_time(), self.batches_per_epoch * self.task.batch_size
        with tempfile.TemporaryDirectory() as folder:
            progress = Trainer(self, plan, Path(folder) / "checkpoint").train("")
        return Speed(items / (time.process_time() - began), items / progress.seconds)


def loader_kinds(stage: str, params: Any, root: Path, steps: int) -> dict[str, Callable[[], Speed]]:
    """The same training through the loader, with a free core and with one core for both, and on batches in memory."""
    plan = plan_of(stage, params)
    loaded, kept = (Steps(task_of(stage, params, root), steps, in_memory=each) for each in (False, True))

    def shared() -> Speed:
        with one_core():
            return loaded.train(plan)

    return {LOADED: lambda: loaded.train(plan), SHARED: shared, IN_MEMORY: lambda: kept.train(plan)}


def loader_ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """The speed through the loader over that in memory, with the bounds."""
    bounds = {LOADED: FREE_CORE, SHARED: ONE_CORE}
    return [
        Ratio.of(f"{name} / memory", speeds[name], speeds[IN_MEMORY], by="clock", least=least)
        for name, least in bounds.items()
    ]


@contextmanager
def one_core() -> Iterator[None]:
    """This thread, and all that it starts, share one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
