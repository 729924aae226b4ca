"""The state of a training in one file: tensors as safetensors, the rest as JSON in its header.

It holds no random state, because every step draws from a generator seeded by the step's number.
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
    """Write named states of a network, the optimizer's moments and `metadata` (JSON) to `path`, atomically."""
    tensors = {f"{state}.{name}": tensor for state, values in states.items() for name, tensor in values.items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state[parameter].items():
            tensors[f"optimizer.{number}.{name}"] = tensor
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with write_atomically(path) as temporary_path:
        save_file(packed, temporary_path, metadata={"metadata": json.dumps(metadata)})


def load_checkpoint(path: Path, states: Sequence[str], optimizer: Optimizer) -> tuple[dict[str, State], dict[str, Any]]:
    """The states of these names and the metadata of a checkpoint; the optimizer's state is restored in place."""
    metadata = read_metadata(path)
    loaded: dict[str, State] = {state: {} for state in states}
    parameters = _parameters(optimizer)
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            kind, _, name = key.partition(".")
            if kind in loaded:
                loaded[kind][name] = file.get_tensor(key)
            else:
                number, name = name.split(".")
                parameter = parameters[int(number)]
                optimizer.state[parameter][name] = _as_parameter(file.get_tensor(key), parameter)
    return loaded, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint, without its tensors.

    Raises:
        EarshotError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["metadata"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise EarshotError(f"{path}: is no complete checkpoint ({error}); remove it to train from the start") from None


def _as_parameter(tensor: Tensor, parameter: Tensor) -> Tensor:
    """On the parameter's device and in its memory layout, as the fused optimizer requires."""
    if tensor.ndim == 0:
        return tensor.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
