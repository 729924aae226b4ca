"""Where a training stands, in one file: tensors as safetensors, the rest as JSON in its header.

Randomness needs no place in it: every step draws from a generator seeded by the step's own number.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically

State = dict[str, Tensor]


def save_checkpoint(path: Path, states: dict[str, State], optimizer: Optimizer, metadata: dict[str, Any]) -> None:
    """Write named states of a network, the optimiser's moments and `facts` (JSON) to `path`, whole or not at all."""
    tensors = {f"{state}.{name}": tensor for state, found in states.items() for name, tensor in found.items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state[parameter].items():
            tensors[f"optimiser.{number}.{name}"] = tensor
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with write_atomically(path) as temporary_path:
        save_file(packed, temporary_path, metadata={"metadata": json.dumps(metadata)})


def load_checkpoint(path: Path, states: Sequence[str], optimizer: Optimizer) -> tuple[dict[str, State], dict[str, Any]]:
    """The states of these names and the facts of a checkpoint; the optimiser is brought to where it was, in place."""
    metadata = read_metadata(path)
    found: dict[str, State] = {state: {} for state in states}
    parameters = _parameters(optimizer)
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            kind, _, name = key.partition(".")
            if kind in found:
                found[kind][name] = file.get_tensor(key)
            else:
                number, name = name.split(".")
                parameter = parameters[int(number)]
                optimizer.state[parameter][name] = _as_held(file.get_tensor(key), parameter)
    return found, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint, without its tensors.

    Raises:
        EarshotError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["metadata"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise EarshotError(f"{path}: is no whole checkpoint ({error}); remove it to train from the start") from None


def _as_held(tensor: Tensor, parameter: Tensor) -> Tensor:
    """On the parameter's device and in its memory layout: the fused optimiser walks both side by side."""
    if tensor.ndim == 0:
        return tensor.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
