"""Several processes that train one network together, each on its part of every batch.

Gradients are averaged over the processes, so that the step is that of the whole batch. Batch norm sees the whole batch
on GPUs; on CPUs, for which torch has no synchronised batch norm, each process normalises its own part, and the
statistics of the first are kept. Outside `together` there is one process, and every function here does next to nothing.
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

PATIENCE = timedelta(hours=1)  # for a process that is late: the first one may first cluster, or write to a slow disk

Loss = Callable[[Any], tuple[Tensor, Tensor]]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Train with the other processes that torchrun started, once all have come here.

    Raises:
        EarshotError: there are fewer GPUs than processes on this machine.
    """
    on_gpus = get_device().type == "cuda"
    if on_gpus:
        processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:
            raise EarshotError(f"{processes} processes on {gpus} GPUs; start one for each, or set EARSHOT_DEVICE=cpu")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=PATIENCE)
    yield
    dist.barrier()
    dist.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(batch: int) -> slice:
    """The part of a batch of so many pictures that this process has.

    Raises:
        EarshotError: the parts would not be equal.
    """
    each, rest = divmod(batch, count())
    if rest:
        found = f"pretrain.batch_size is {batch} (or there are so many moments), for {count()} processes"
        raise EarshotError(f"{found}; wanted a multiple of {count()}")
    return slice(rank() * each, (rank() + 1) * each)


def total(values: Tensor) -> Tensor:
    """The sum of the values over all processes."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean of the values over all processes."""
    return total(values) / count()


def agree(step: int) -> None:
    """Make sure that all processes stand at the same step.

    Raises:
        EarshotError: they do not.
    """
    if count() > 1 and mean(torch.tensor(step, dtype=torch.float64, device=_device())).item() != step:
        found = f"process {rank()} stands at step {step}, others elsewhere"
        raise EarshotError(f"{found}; the folder of unfinished work must be one that all processes share")


def same_statistics(network: nn.Module) -> None:
    """Give all processes the batch-norm statistics of the first, in place."""
    if count() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def shared_loss(network: nn.Module, loss: Loss) -> Loss:
    """`loss`, after whose backward pass the gradients of the network are the means over all processes."""
    if count() == 1:
        return loss
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(_Loss(network, loss))


class _Loss(nn.Module):
    """A loss as a module, since it is a module's forward and backward passes that are shared."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.loss(batch)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
