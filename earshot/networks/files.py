"""Networks on disk: weights as safetensors, their architecture as JSON beside them. Nothing in them can run code.

A folder of encoders holds one architecture and one or more sets of weights of it:

    encoder.json  encoder.safetensors  wrong_sound.safetensors  random.safetensors
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from earshot.networks.backbones import OWN, build_network
from earshot.networks.network import Network
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.shards import write_atomically

ENCODERS = ("encoder", "wrong_sound", "random")
ARCHITECTURE_FILE = "encoder.json"

# Type and range of each value of an architecture: a damaged or hostile file must not be able to ask for a huge network.
ARCHITECTURE_RANGES = {
    "classes": (int, 1, 100_000),
    "width": (float, 1 / 64, 4),
    "image_size": (int, 63, 1024),
    "dropout": (float, 0, 0.99),
}


def save_architecture(folder: Path, network: nn.Module) -> None:
    """Write encoder.json, from which `load_encoder` builds the network again."""
    with write_atomically(folder / ARCHITECTURE_FILE) as path:
        path.write_text(json.dumps(network.architecture, indent=2) + "\n")


def save_weights(folder: Path, name: str, network: nn.Module) -> None:
    """Write the weights and batch-norm statistics of a network as `<name>.safetensors`."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    with write_atomically(folder / f"{name}.safetensors") as path:
        path.write_bytes(save(tensors))


def load_encoder(folder: Path, name: str = "encoder") -> Network:
    """The network of a folder with the weights called `name`, on the CPU, in eval mode.

    Args:
        folder: what the stage pretrain wrote, models/pretrain for one.
        name: `encoder`, `wrong_sound` (the control) or `random` (the weights before training).

    Raises:
        EarshotError: a file is missing, damaged, or does not hold the tensors that the architecture needs.
    """
    if name not in ENCODERS:
        raise EarshotError(f"{folder}: no encoder is called {name!r}; the names are {', '.join(ENCODERS)}")
    architecture = _read_architecture(folder / ARCHITECTURE_FILE)
    with torch.device("meta"):  # no memory is taken before the file is known to fit
        network = build_network(**architecture)
    weights = _read_weights(folder / f"{name}.safetensors", network)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def _read_architecture(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error.strerror}); the stage pretrain writes it") from None
    except ValueError as error:
        raise EarshotError(f"{path}: is not JSON ({error}); run the stage pretrain again") from None
    if not isinstance(found, dict) or found.get("name") not in OWN:
        name = found.get("name") if isinstance(found, dict) else found
        raise EarshotError(f"{path}: name is {name!r:.60}; the networks are {', '.join(OWN)}")
    if set(found) != {"name", *ARCHITECTURE_RANGES}:
        raise EarshotError(f"{path}: holds {', '.join(sorted(found))}; wanted name, {', '.join(ARCHITECTURE_RANGES)}")
    for key, (kind, lowest, highest) in ARCHITECTURE_RANGES.items():
        value = found[key]
        right = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
        if not right or not lowest <= value <= highest:
            raise EarshotError(f"{path}: {key} is {value!r:.60}; wanted a {kind.__name__} from {lowest} to {highest}")
    return found


def _read_weights(path: Path, network: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, after their names, shapes and types were compared with the network's."""
    wanted = network.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            _compare(path, {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}, wanted)  # noqa: SIM118
            tensors = {key: file.get_tensor(key) for key in wanted}
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error}); the stage pretrain writes it") from None
    except SafetensorError as error:
        raise EarshotError(f"{path}: is not a whole safetensors file ({error}); run the stage pretrain again") from None
    for key, tensor in tensors.items():
        if tensor.dtype != wanted[key].dtype:
            raise EarshotError(f"{path}: {key} is {tensor.dtype}; the network wants {wanted[key].dtype}")
        if not torch.isfinite(tensor).all():
            raise EarshotError(f"{path}: {key} holds values that are not finite; run the stage pretrain again")
    return tensors


def _compare(path: Path, shapes: dict[str, tuple[int, ...]], wanted: dict[str, torch.Tensor]) -> None:
    for key, tensor in wanted.items():
        if key not in shapes:
            raise EarshotError(f"{path}: has no tensor {key}; {ARCHITECTURE_FILE} beside it describes another network")
        if shapes[key] != tuple(tensor.shape):
            found, needed = shapes[key], tuple(tensor.shape)
            raise EarshotError(f"{path}: {key} has shape {found}; the network of {ARCHITECTURE_FILE} wants {needed}")
    if extra := sorted(set(shapes) - set(wanted)):
        raise EarshotError(f"{path}: holds {extra[0]}, which the network of {ARCHITECTURE_FILE} does not have")
