"""Training of one network by several processes, each on its part of every batch.

Gradients are averaged over the processes, so that a step is that of the whole batch. On GPUs batch norm normalizes the
whole batch. On CPUs, for which torch has no synchronized batch norm, each process normalizes its own part, and the
statistics of the first process are kept. Outside `together` there is one process, and these functions have no effect.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from earshot.core.errors import EarshotError
from earshot.networks.device import get_device
from earshot.pipeline import torchrun

TIMEOUT = timedelta(hours=1)  # long, because the first process may still run k-means or write to a slow disk

Loss = Callable[[Any], tuple[Tensor, Tensor]]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Join the other processes that were started with this one, and wait for all of them.

    Raises:
        EarshotError: this machine has fewer GPUs than processes.
    """
    on_gpus = get_device().type == "cuda"
    if on_gpus:
        processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:
            raise EarshotError(f"{processes} processes on {gpus} GPUs; start one for each, or set EARSHOT_DEVICE=cpu")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        init_method=torchrun.rendezvous(),
        rank=torchrun.rank(),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=TIMEOUT,
    )
    yield
    dist.barrier()
    dist.destroy_process_group()


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(batch: int, parameter: str = "pretrain.batch_size", each: int = 1) -> slice:
    """This process's part of the units of a batch, such as moments or clips.

    Args:
        batch: the units of a batch.
        parameter: sets the size of a batch in items; a unit has `each` items.

    Raises:
        EarshotError: the batch cannot be split into equal parts.
    """
    size, rest = divmod(batch, count())
    if rest:
        actual = f"a batch has {batch * each} items ({parameter}, or all if there are fewer), for {count()} processes"
        raise EarshotError(f"{actual}; set {parameter} to a multiple of {each * count()}")
    return slice(rank() * size, (rank() + 1) * size)


def total(values: Tensor) -> Tensor:
    """The sum of the values over all processes."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean of the values over all processes."""
    return total(values) / count()


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes, in order; gradients flow back to the process that each row comes from."""
    return rows if count() == 1 else _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    """All rows of all processes; the gradient of a row is the sum of its gradients on all processes."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return total(gradient.contiguous().clone())[part(len(gradient))]


def agree(step: int) -> None:
    """Check that all processes are at the same step.

    Raises:
        EarshotError: they are not.
    """
    if count() > 1 and mean(torch.tensor(step, dtype=torch.float64, device=_device())).item() != step:
        actual = f"process {rank()} is at step {step}, other processes are not"
        raise EarshotError(f"{actual}; use a scratch folder that all processes share")


def same_statistics(network: nn.Module) -> None:
    """Copy the batch-norm statistics of the first process to all others, in place."""
    if count() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def shared_loss(network: nn.Module, loss: Loss) -> Loss:
    """The same loss, whose backward pass averages the gradients of the network over all processes."""
    if count() == 1:
        return loss
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(_Loss(network, loss))


class _Loss(nn.Module):
    """A loss as a module, as DistributedDataParallel requires."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.loss(batch)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
