"""Networks on disk: weights as safetensors, their architecture as JSON beside them. Nothing in them can run code.

A folder of encoders holds one architecture and one or more sets of weights of it:

    encoder.json  encoder.safetensors  wrong_sound.safetensors  random.safetensors
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.backbones import build_network, find_network
from earshot.networks.correspondence import build_correspondence, find_correspondence, is_correspondence
from earshot.networks.network import ConvolutionalNetwork, ImageEncoder, Network

ENCODERS = ("encoder", "wrong_sound", "random")
ARCHITECTURE_FILE = "encoder.json"
OPTIONAL = ("num_batches_tracked", "channel_mean", "channel_deviation")  # names' ends that weights can do without
PICKLES = (b"PK", b"\x80")  # how torch's own files begin


def save_architecture(folder: Path, network: nn.Module) -> None:
    """Write encoder.json, from which a network of any kind is built again."""
    with write_atomically(folder / ARCHITECTURE_FILE) as path:
        path.write_text(json.dumps(network.architecture, indent=2) + "\n")


def save_weights(folder: Path, name: str, network: nn.Module) -> None:
    """Write the weights and batch-norm statistics of a network as `<name>.safetensors`."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    with write_atomically(folder / f"{name}.safetensors") as path:
        path.write_bytes(save(tensors))


def load_encoder(folder: Path, name: str = "encoder") -> ImageEncoder:
    """The network of a folder with the weights called `name`, on the CPU, in eval mode.

    Args:
        folder: what the stage pretrain or correspond wrote, models/pretrain for one.
        name: `encoder`, `wrong_sound` (the control) or `random` (the weights before training).

    Raises:
        EarshotError: a file is missing, damaged, or does not hold the tensors that the architecture needs; or the
            network sees no single pictures.
    """
    network = _load(folder, name, ImageEncoder, "")
    if not network.probe_layers:
        found = f"{network.architecture['name']} has no layers for single pictures"
        raise EarshotError(f"{folder / ARCHITECTURE_FILE}: {found}; wanted ave or a network of the stage pretrain, say")
    return network


def load_network(folder: Path, name: str = "encoder") -> Network:
    """As `load_encoder`, for what is to be trained on: a classifier of the stage pretrain.

    Raises:
        EarshotError: as `load_encoder`, and for a correspondence network, which has no fully connected layers to renew.
    """
    return _load(folder, name, Network, "is a correspondence network; wanted one of the stage pretrain to train on")


def load_convolutional(folder: Path, name: str = "encoder") -> ConvolutionalNetwork:
    """As `load_network`, for what must be cut at its last maps.

    Raises:
        EarshotError: as `load_network`, and for a network that is not convolutional.
    """
    return _load(folder, name, ConvolutionalNetwork, "is no convolutional classifier; wanted one, such as alexnet")


def load_correspondence(folder: Path, name: str = "encoder") -> Correspondence:
    """As `load_encoder`, for a network of the stage correspond: its towers, what joins them, and how it hears.

    Raises:
        EarshotError: as `load_encoder`, and for a network of another kind.
    """
    return _load(folder, name, Correspondence, "is no correspondence network; wanted one, such as ave")


def _load(folder: Path, name: str, kind: Any, otherwise: str) -> Any:
    """A network of that kind; `otherwise` says of any other what is wrong with it, before its weights are read."""
    if name not in ENCODERS:
        raise EarshotError(f"{folder}: no encoder is called {name!r}; the names are {', '.join(ENCODERS)}")
    described, file = folder / ARCHITECTURE_FILE, folder / f"{name}.safetensors"
    architecture = read_architecture(described)
    corresponds = is_correspondence(architecture["name"])
    build, stage = (build_correspondence, "correspond") if corresponds else (build_network, "pretrain")
    try:
        with torch.device("meta"):  # no memory is taken before the file is known to fit
            network = build(**architecture)
    except EarshotError as error:
        raise EarshotError(f"{described}: {error}") from None
    if not isinstance(network, kind):
        raise EarshotError(f"{described}: {architecture['name']} {otherwise}")
    found = _read_state(file, network, f"the network of {ARCHITECTURE_FILE}", f"run the stage {stage} again")
    network.load_state_dict(found, assign=True)
    return network.eval()


def _read_state(file: Path, network: nn.Module, whose: str, advice: str) -> dict[str, torch.Tensor]:
    """All of a network's tensors from a file that has just these."""
    wanted = network.state_dict()
    with _opened(file, advice) as weights:
        _compare(file, _shapes(weights), wanted, whose)
        found = {key: weights.get_tensor(key) for key in wanted}
    for key, tensor in found.items():
        if tensor.dtype != wanted[key].dtype:
            raise EarshotError(f"{file}: {key} is {tensor.dtype}; the network wants {wanted[key].dtype}")
        _check_finite(file, key, tensor)
    return found


def load_correspondence_weights(network: Correspondence, file: Path) -> None:
    """Fill a correspondence network, in place, with those of one that was trained at another size of its inputs.

    So the multisensory network goes on at the full frame rate from a quarter of it (Owens & Efros 2018).

    Raises:
        EarshotError: the file is missing, damaged, or does not hold just the tensors of the network.
    """
    whose = f"correspond.network={network.architecture['name']} of this width"
    network.load_state_dict(_read_state(file, network, whose, "mend correspond.weights"))


def load_weights(network: Network, file: Path) -> None:
    """Fill a network, in place, with weights that another program may have written.

    Names may be ours or torchvision's, after `module.` or `network.`, and numbers of any precision. Auxiliary
    classifiers are passed over. An output layer for other classes is too: the network's own stays, with a warning.

    Args:
        network: as `build_network` makes it.
        file: safetensors; none of its tensors is read before all names and shapes are known to fit.

    Raises:
        EarshotError: the file is missing, damaged, a pickle, or does not hold the tensors that the network needs.
    """
    whose = "{name} of pretrain.width {width:g} and pretrain.image_size {image_size}".format(**network.architecture)
    state = network.state_dict()
    wanted = {_bare(key): tensor for key, tensor in state.items()}
    with _opened(file, "mend pretrain.weights") as weights:
        names = _names_by_bare(file, weights.keys(), network)
        found = _shapes(weights)
        shapes = {bare: found[name] for bare, name in names.items()}
        left = _output_for_other_classes(file, shapes, wanted, network)
        left |= {bare for bare in wanted if bare.endswith(OPTIONAL) and bare not in shapes}
        for bare in left:
            del wanted[bare]
            shapes.pop(bare, None)
        _compare(file, shapes, wanted, whose)
        for key, tensor in state.items():
            if (bare := _bare(key)) in wanted:
                state[key] = _converted(file, names[bare], weights.get_tensor(names[bare]), tensor.dtype)
    network.load_state_dict(state)


def read_architecture(path: Path) -> dict[str, Any]:
    """The name of a network and its arguments, from its encoder.json.

    Raises EarshotError where it cannot be read, or names or asks for what no network is.
    """
    wrote = "the stage pretrain or correspond"
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error.strerror}); {wrote} writes it") from None
    except ValueError as error:
        raise EarshotError(f"{path}: is not JSON ({error}); run {wrote} again") from None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        name = found.get("name") if isinstance(found, dict) else found
        raise EarshotError(f"{path}: name is {name!r:.60}; wanted a network's, such as alexnet or ave")
    name, arguments = found["name"], {key: value for key, value in found.items() if key != "name"}
    try:
        kind = find_correspondence(name) if is_correspondence(name) else find_network(name)
        kind.arguments.model_validate(arguments)
    except EarshotError as error:
        raise EarshotError(f"{path}: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        held = f"{key:.60} of {name} is {arguments.get(key, 'missing')!r:.60}"
        raise EarshotError(f"{path}: {held}: {problem['msg']}; run {wrote} again") from None
    return found


@contextmanager
def _opened(path: Path, advice: str) -> Iterator[Any]:
    """A safetensors file to read from; its faults become EarshotErrors that end in `advice`."""
    if not path.is_file():
        raise EarshotError(f"{path}: cannot be read (no such file); {advice}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error}); {advice}") from None
    except SafetensorError as error:
        raise EarshotError(f"{path}: {_what_it_is(path, error)}; {advice}") from None


def _what_it_is(path: Path, error: SafetensorError) -> str:
    with path.open("rb") as file:
        start = file.read(9)
        if start.startswith(PICKLES) and start[8:] != b"{":  # where the JSON of a safetensors file begins
            convert = "torch.load with weights_only=True and safetensors.torch.save_file make one of its state dict"
            return f"is a pickle, not a whole safetensors file; elsewhere, {convert}"
    return f"is not a whole safetensors file ({error})"


def _shapes(weights: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118


def _compare(path: Path, shapes: dict[str, tuple[int, ...]], wanted: dict[str, torch.Tensor], whose: str) -> None:
    for key, tensor in wanted.items():
        if key not in shapes:
            raise EarshotError(f"{path}: has no tensor {key}, which {whose} wants")
        if shapes[key] != tuple(tensor.shape):
            raise EarshotError(f"{path}: {key} has shape {shapes[key]}; {whose} wants {tuple(tensor.shape)}")
    if extra := sorted(set(shapes) - set(wanted)):
        raise EarshotError(f"{path}: holds {extra[0]:.60}, which {whose} does not have")


def _bare(name: str) -> str:
    """The name of a tensor as torchvision would have it."""
    while (shorter := name.removeprefix("module.").removeprefix("network.").removeprefix("body.")) != name:
        name = shorter
    return name


def _names_by_bare(path: Path, names: Iterable[str], network: Network) -> dict[str, str]:
    """The names in a file by their bare ones, without those of auxiliary classifiers."""
    found: dict[str, str] = {}
    for name in names:
        bare = _bare(name)
        if bare in found:
            raise EarshotError(f"{path}: holds both {found[bare]:.60} and {name:.60}, wanted one of them")
        if bare.partition(".")[0] not in network.left_out:
            found[bare] = name
    return found


def _output_for_other_classes(
    path: Path, shapes: dict[str, tuple[int, ...]], wanted: dict[str, torch.Tensor], network: Network
) -> set[str]:
    """The bare names of the output layer's tensors if the file has it for another number of classes."""
    weight, bias = (f"{_bare(network.fully_connected_names[-1])}.{part}" for part in ("weight", "bias"))
    found, own = shapes.get(weight, ()), tuple(wanted[weight].shape)
    if found[1:] != own[1:] or found[:1] in (own[:1], ()):
        return set()
    told = f"{path}: its output layer has {found[0]} classes, wanted {own[0]}; the network's own stays as it is"
    warnings.warn(told, stacklevel=3)
    return {weight, bias}


def _converted(path: Path, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.is_floating_point() != dtype.is_floating_point:
        raise EarshotError(f"{path}: {name} is {tensor.dtype}; the network wants {dtype}")
    converted = tensor.to(dtype)
    _check_finite(path, name, converted)
    return converted


def _check_finite(path: Path, name: str, tensor: torch.Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise EarshotError(
            f"{path}: {name} holds values that are not finite; wanted a network that was trained to the end"
        )
