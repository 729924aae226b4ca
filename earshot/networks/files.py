"""Networks on disk: weights as safetensors and the architecture as JSON; neither can run code.

A folder of encoders holds one architecture and one or more sets of weights:

    encoder.json  encoder.safetensors  wrong_sound.safetensors  random.safetensors
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.json_files import parse_json
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.backbones import build_network, find_network
from earshot.networks.correspondence import build_correspondence, find_correspondence, is_correspondence
from earshot.networks.network import ConvolutionalNetwork, ImageEncoder, Network

ENCODERS = ("encoder", "wrong_sound", "random")
ARCHITECTURE_FILE = "encoder.json"
OPTIONAL = ("num_batches_tracked", "channel_mean", "channel_deviation")  # ends of tensor names that a file may lack
PICKLES = (b"PK", b"\x80")  # first bytes of torch's own files


def save_architecture(folder: Path, network: nn.Module) -> None:
    """Write encoder.json, from which a network of any kind can be rebuilt."""
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
        folder: output of the stage pretrain or correspond, such as models/pretrain.
        name: `encoder`, `wrong_sound` (the control) or `random` (the weights before training).

    Raises:
        EarshotError: a file is missing, damaged, or does not hold the tensors that the architecture needs; or the
            network takes no single images.
    """
    network = _load(folder, name, ImageEncoder, "")
    if not network.probe_layers:
        actual = f"{network.architecture['name']} has no layers for single images"
        raise EarshotError(f"{folder / ARCHITECTURE_FILE}: {actual}; use ave, or a network of the stage pretrain")
    return network


def load_network(folder: Path, name: str = "encoder") -> Network:
    """As `load_encoder`, but a classifier of the stage pretrain, for fine-tuning.

    Raises:
        EarshotError: as `load_encoder`, and for a correspondence network, which has no fully connected layers to renew.
    """
    return _load(folder, name, Network, "is a correspondence network; use one of the stage pretrain for fine-tuning")


def load_convolutional(folder: Path, name: str = "encoder") -> ConvolutionalNetwork:
    """As `load_network`, but a network with conv5 maps.

    Raises:
        EarshotError: as `load_network`, and for a network that is not convolutional.
    """
    return _load(folder, name, ConvolutionalNetwork, "is no convolutional classifier; use one, such as alexnet")


def load_correspondence(folder: Path, name: str = "encoder") -> Correspondence:
    """As `load_encoder`, but a network of the stage correspond.

    Raises:
        EarshotError: as `load_encoder`, and for a network of another kind.
    """
    return _load(folder, name, Correspondence, "is no correspondence network; use one, such as ave")


def _load(folder: Path, name: str, kind: Any, otherwise: str) -> Any:
    """A network of that kind; an error with the text `otherwise` rejects any other before its weights are read."""
    if name not in ENCODERS:
        raise EarshotError(f"{folder}: unknown encoder {name!r}; expected one of {', '.join(ENCODERS)}")
    described, file = folder / ARCHITECTURE_FILE, folder / f"{name}.safetensors"
    architecture = read_architecture(described)
    corresponds = is_correspondence(architecture["name"])
    build, stage = (build_correspondence, "correspond") if corresponds else (build_network, "pretrain")
    try:
        with torch.device("meta"):  # allocate no memory before the file is known to fit
            network = build(**architecture)
    except EarshotError as error:
        raise EarshotError(f"{described}: {error}") from None
    if not isinstance(network, kind):
        raise EarshotError(f"{described}: {architecture['name']} {otherwise}")
    state = _read_state(file, network, f"the network of {ARCHITECTURE_FILE}", f"run the stage {stage} again")
    network.load_state_dict(state, assign=True)
    if any(values.is_meta for values in network.buffers()):  # timm computes some, and keeps them out of files
        network = build(**architecture)
        network.load_state_dict(state)
    return network.eval()


def _read_state(file: Path, network: nn.Module, whose: str, advice: str) -> dict[str, torch.Tensor]:
    """All of a network's tensors, from a file that holds exactly these."""
    expected = network.state_dict()
    with _opened(file, advice) as weights:
        _compare(file, _shapes(weights), expected, whose, advice)
        state = {key: weights.get_tensor(key) for key in expected}
    for key, tensor in state.items():
        if tensor.dtype != expected[key].dtype:
            actual = f"{file}: {key} is {tensor.dtype}; the network requires {expected[key].dtype}"
            raise EarshotError(f"{actual}; {advice}")
        _check_finite(file, key, tensor)
    return state


def load_correspondence_weights(network: Correspondence, file: Path) -> None:
    """Load weights of a correspondence network, in place; they may come from another input size.

    So the multisensory network trains first at a quarter of the frame rate, then at the full rate (Owens & Efros 2018).

    Raises:
        EarshotError: the file is missing, damaged, or does not hold exactly the tensors of the network.
    """
    whose = f"correspond.network={network.architecture['name']} of this width"
    advice = "set correspond.network and correspond.width to those of the weights, or name others in correspond.weights"
    network.load_state_dict(_read_state(file, network, whose, advice))


def load_weights(network: Network, file: Path) -> None:
    """Load weights into a network, in place; another program may have written them.

    Names may be ours or torchvision's, with a prefix `module.` or `network.`, and values of any precision. Auxiliary
    classifiers are skipped. An output layer for another number of classes is skipped with a warning. The last fully
    connected layers may be missing, which gives a warning too.

    Args:
        network: from `build_network`.
        file: safetensors; all names and shapes are checked before a tensor is read.

    Raises:
        EarshotError: the file is missing, damaged, a pickle, or does not hold the tensors that the network needs.
    """
    whose = "{name} of pretrain.width {width:g} and pretrain.image_size {image_size}".format(**network.architecture)
    state = network.state_dict()
    expected = {_bare(key): tensor for key, tensor in state.items()}
    with _opened(file, "correct pretrain.weights") as weights:
        names = _names_by_bare(file, weights.keys(), network)
        all_shapes = _shapes(weights)
        shapes = {bare: all_shapes[name] for bare, name in names.items()}
        skipped = _output_for_other_classes(file, shapes, expected, network)
        skipped |= _last_layers_that_lack(file, shapes, network)
        skipped |= {bare for bare in expected if bare.endswith(OPTIONAL) and bare not in shapes}
        for bare in skipped:
            del expected[bare]
            shapes.pop(bare, None)
        advice = "set pretrain.backbone, pretrain.width and pretrain.image_size to those of the weights"
        _compare(file, shapes, expected, whose, advice)
        for key, tensor in state.items():
            if (bare := _bare(key)) in expected:
                state[key] = _converted(file, names[bare], weights.get_tensor(names[bare]), tensor.dtype)
    network.load_state_dict(state)


def read_architecture(path: Path) -> dict[str, Any]:
    """The name of a network and its arguments, from its encoder.json.

    Raises EarshotError if the file cannot be read, the network is unknown, or an argument is out of range.
    """
    stage = "the stage pretrain or correspond"
    try:
        architecture = parse_json(path.read_text())
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error.strerror}); {stage} writes it") from None
    except ValueError as error:
        raise EarshotError(f"{path}: is not JSON ({error}); run {stage} again") from None
    if not isinstance(architecture, dict) or not isinstance(architecture.get("name"), str):
        name = architecture.get("name") if isinstance(architecture, dict) else architecture
        raise EarshotError(f"{path}: name is {name!r:.60}; expected that of a network, such as alexnet or ave")
    name, arguments = architecture["name"], {key: value for key, value in architecture.items() if key != "name"}
    try:
        kind = find_correspondence(name) if is_correspondence(name) else find_network(name)
        kind.arguments.model_validate(arguments)
    except EarshotError as error:
        raise EarshotError(f"{path}: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        actual = f"{key:.60} of {name} is {arguments.get(key, 'missing')!r:.60}"
        raise EarshotError(f"{path}: {actual}: {problem['msg']}; run {stage} again") from None
    return architecture


@contextmanager
def _opened(path: Path, advice: str) -> Iterator[Any]:
    """Open a safetensors file; its defects raise EarshotErrors that end in `advice`."""
    if not path.is_file():
        raise EarshotError(f"{path}: cannot be read (no such file); {advice}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error}); {advice}") from None
    except SafetensorError as error:
        raise EarshotError(f"{path}: {_describe_defect(path, error)}; {advice}") from None


def _describe_defect(path: Path, error: SafetensorError) -> str:
    with path.open("rb") as file:
        start = file.read(9)
        if start.startswith(PICKLES) and start[8:] != b"{":  # where the JSON of a safetensors file begins
            convert = "torch.load with weights_only=True and safetensors.torch.save_file convert its state dict"
            return f"is a pickle, not a complete safetensors file; on a machine you trust, {convert}"
    return f"is not a complete safetensors file ({error})"


def _shapes(weights: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118


def _compare(
    path: Path, shapes: dict[str, tuple[int, ...]], expected: dict[str, torch.Tensor], whose: str, advice: str
) -> None:
    """Raise EarshotErrors, which end in `advice`, unless names and shapes of tensors are the expected ones."""
    for key, tensor in expected.items():
        if key not in shapes:
            raise EarshotError(f"{path}: has no tensor {key}, which {whose} requires; {advice}")
        if shapes[key] != tuple(tensor.shape):
            actual = f"{path}: {key} has shape {shapes[key]}; {whose} requires {tuple(tensor.shape)}"
            raise EarshotError(f"{actual}; {advice}")
    if extra := sorted(set(shapes) - set(expected)):
        raise EarshotError(f"{path}: holds {extra[0]:.60}, which {whose} does not have; {advice}")


def _bare(name: str) -> str:
    """The tensor name that torchvision would use."""
    while (shorter := name.removeprefix("module.").removeprefix("network.").removeprefix("body.")) != name:
        name = shorter
    return name


def _names_by_bare(path: Path, names: Iterable[str], network: Network) -> dict[str, str]:
    """The names in a file by their bare names, without those of auxiliary classifiers."""
    by_bare: dict[str, str] = {}
    for name in names:
        bare = _bare(name)
        if bare in by_bare:
            raise EarshotError(f"{path}: holds both {by_bare[bare]:.60} and {name:.60}, expected one of them")
        if bare.partition(".")[0] not in network.left_out:
            by_bare[bare] = name
    return by_bare


def _output_for_other_classes(
    path: Path, shapes: dict[str, tuple[int, ...]], expected: dict[str, torch.Tensor], network: Network
) -> set[str]:
    """The bare names of the output layer's tensors if the file's layer is for another number of classes."""
    weight, bias = (f"{_bare(network.fully_connected_names[-1])}.{part}" for part in ("weight", "bias"))
    actual, own = shapes.get(weight, ()), tuple(expected[weight].shape)
    if actual[1:] != own[1:] or actual[:1] in (own[:1], ()):
        return set()
    message = f"{path}: the output layer has {actual[0]} classes, expected {own[0]}; the network keeps its own layer"
    warnings.warn(message, stacklevel=3)
    return {weight, bias}


def _last_layers_that_lack(path: Path, shapes: dict[str, tuple[int, ...]], network: Network) -> set[str]:
    """The bare names of the tensors of the last fully connected layers of which the file has none."""
    names = [_bare(name) for name in network.fully_connected_names]
    lacking = list(takewhile(lambda name: f"{name}.weight" not in shapes, reversed(names)))
    if not lacking:
        return set()
    layers = ", ".join(sorted(lacking))
    warnings.warn(f"{path}: has no weights of {layers}; the network keeps its own, which are random", stacklevel=3)
    return {f"{name}.{part}" for name in lacking for part in ("weight", "bias")}


def _converted(path: Path, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.is_floating_point() != dtype.is_floating_point:
        raise EarshotError(f"{path}: {name} is {tensor.dtype}; the network requires {dtype}")
    converted = tensor.to(dtype)
    _check_finite(path, name, converted)
    return converted


def _check_finite(path: Path, name: str, tensor: torch.Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise EarshotError(
            f"{path}: {name} holds values that are not finite; train the network again, with a lower learning rate"
        )
