"""Batch-norm statistics of an untrained network, which its activations require."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SAMPLED_ITEMS = 1024  # training items that give a random network its statistics and other initial values
SAMPLED_BYTES = 2 << 30  # of them in memory; only sequences of large frames have more


def first_batches(task: Any) -> list[Any]:
    """The first training batches of a task, up to SAMPLED_ITEMS items, or up to SAMPLED_BYTES if those are fewer."""
    numbers = range(min(task.batches_per_epoch, -(-SAMPLED_ITEMS // task.batch_size)))
    batches: list[Any] = []
    size = 0
    for batch in task.batches(numbers):
        batches.append(batch)
        size += sum(part.nbytes for part in batch if isinstance(part, Tensor))
        if size >= SAMPLED_BYTES:
            break
    return batches


@torch.no_grad()
def estimate_batch_norm(network: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> None:
    """Set all running means and variances of a network to their averages over batches of inputs, in place.

    Weights do not change. The network ends in eval mode.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of all batches
    network.train()
    for inputs in batches:
        network(*inputs)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
