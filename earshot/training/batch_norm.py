"""Batch-norm statistics of a network that is not trained: without them its activations say nothing of its weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SHOWN = 1024  # items of training batches from which statistics of a random network, and other first values, are made


def first_batches(task: Any) -> list[Any]:
    """The first training batches of a task, up to SHOWN items."""
    return list(task.batches(range(min(task.batches_per_epoch, -(-SHOWN // task.batch_size)))))


@torch.no_grad()
def estimate_batch_norm(network: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> None:
    """Set all running means and variances of a network to their averages over batches of its inputs, in place.

    Weights do not change; the network is left in eval mode.
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
