"""Finds AlexNet's layers in torchvision's classifiers by one rule on the graph of their operations.

conv5   the last map: the input of the final average over positions, or of a max pool just before it
max5    the maximum of each conv5 channel
pool5   the map after the network's own max pool (VGG); otherwise after AlexNet's pool, size 3 and stride 2, if conv5
        has more than 2 positions a side; otherwise conv5
fc7     the input of the output layer: a hidden layer (VGG, MobileNetV3) or the average of conv5 (ResNet)
fc6     the input of the fully connected layer before it: a hidden layer (VGG) or the average of conv5 (MobileNetV3);
        without such a layer, the average of the last map of the stage before conv5's (ResNet)

A stage is all that is computed at one resolution; its last map is the last one that all later operations depend on.
Torchvision's own feature extractor starts at the image and keeps copies of the modules; here a part may start at conv5,
as a detector requires, and runs on the classifier itself, whose modules and weights may be replaced.
"""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise
from typing import Any

import torch
import torchvision
from torch import nn
from torch.fx import Graph, Interpreter, Node
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models.feature_extraction import LeafModuleAwareTracer
from torchvision.ops import StochasticDepth

from earshot.core.errors import EarshotError

PREFIX = "torchvision-"  # of alexnet, which is also the name of one of our networks
PROBE_SIZES = 224, 448  # px, two sizes that every convolutional classifier takes
AVERAGES = functional.adaptive_avg_pool2d, "mean"
MOST_SHRUNK = 3  # largest factor from one stage to the next; more than 2 because of Inception's odd sizes


@dataclass(frozen=True)
class Parts:
    """The parts of a classifier, each a graph with one input and one output over the classifier's own modules.

    Args:
        earlier: from normalized images to the last map of the stage before conv5's.
        later: from there to conv5.
        pool: the network's own max pool after conv5, if it has one.
        hidden: from the pooled conv5, or conv5, to fc7; two parts with fc6 between them, or one.
        fully_connected: names of the layers after conv5, the output layer last.
        dropouts: names of the dropouts after conv5.
        left_out: names of the modules on which scores do not depend: auxiliary classifiers.
        stride: px of the image from one position of conv5 to the next.
    """

    earlier: Graph
    later: Graph
    pool: Graph | None
    hidden: tuple[Graph, ...]
    fully_connected: tuple[str, ...]
    dropouts: tuple[str, ...]
    left_out: tuple[str, ...]
    stride: int


def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers as values of `pretrain.backbone`."""
    names = torchvision.models.list_models(module=torchvision.models)
    return sorted(PREFIX + name if name == "alexnet" else name for name in names)


def build_body(name: str, **arguments: Any) -> nn.Module:
    """The classifier of that name with random weights and one class; `arguments` are torchvision's."""
    with warnings.catch_warnings(), _NumbersInMemory():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet announces a new default
        return torchvision.models.get_model(name.removeprefix(PREFIX), weights=None, num_classes=1, **arguments)


@cache
def parts_of(name: str) -> Parts:
    """The parts of the classifier of that name.

    Raises:
        EarshotError: it does not average a map over positions.
    """
    body = _skeleton(name)
    graph = LeafModuleAwareTracer(leaf_modules=[StochasticDepth]).trace(body)  # depends on the mode at run time
    try:
        shapes, larger = (_shapes(body, graph, size) for size in PROBE_SIZES)
        conv5, pooled = _conv5(body, graph)
        before, later = _stage_before(graph, conv5, shapes)
    except (RuntimeError, AssertionError, StopIteration):
        advice = "use a convolutional network of torchvision, such as resnet18"
        raise EarshotError(f"pretrain.backbone is {name}, which is not convolutional; {advice}") from None
    tail = list(graph.nodes)[list(graph.nodes).index(conv5) + 1 :]
    layers = [node for node in tail if _is(body, node, nn.Linear | nn.Conv2d)]
    cuts = [pooled, *(layer.args[0] for layer in layers[-2:])]
    return Parts(
        earlier=_between(next(iter(graph.nodes)), before),
        later=later,
        pool=None if pooled is conv5 else _between(conv5, pooled),
        hidden=tuple(_between(start, end) for start, end in pairwise(cuts)),
        fully_connected=tuple(node.target for node in layers),
        dropouts=tuple(node.target for node in tail if _is(body, node, nn.Dropout)),
        left_out=_left_out(body, graph),
        stride=(PROBE_SIZES[1] - PROBE_SIZES[0]) // (larger[conv5][-1] - shapes[conv5][-1]),
    )


def _conv5(body: nn.Module, graph: Graph) -> tuple[Node, Node]:
    """The nodes of conv5 and of its max pool; without a max pool, conv5 twice."""
    nodes = list(graph.nodes)
    output = next(node for node in reversed(nodes) if _is(body, node, nn.Linear | nn.Conv2d))
    average = next(node for node in reversed(nodes) if _is(body, node, nn.AdaptiveAvgPool2d) or node.target in AVERAGES)
    pooled = min(output, average, key=nodes.index).args[0]  # SqueezeNet averages its scores
    while _is(body, pooled, nn.Dropout):
        pooled = pooled.args[0]
    return (pooled.args[0] if _is(body, pooled, nn.MaxPool2d) else pooled), pooled


def _stage_before(graph: Graph, conv5: Node, shapes: dict[Node, tuple[int, ...]]) -> tuple[Node, Graph]:
    """The last map of the stage before conv5's, and the graph from there to conv5."""
    nodes = list(graph.nodes)
    side = shapes[conv5][-1]
    for node in reversed(nodes[: nodes.index(conv5)]):
        shape = shapes.get(node, ())
        if len(shape) == 4 and shape[2] == shape[3] and side < shape[3] <= MOST_SHRUNK * side:
            with suppress(LookupError):
                return node, _between(node, conv5)
    raise StopIteration


def _between(start: Node, end: Node) -> Graph:
    """The graph that computes `end` from `start` alone; raises LookupError if `end` depends on more."""
    part = Graph()
    copies = {start: part.placeholder("given")}
    for node in start.graph.nodes:
        if node.op not in ("placeholder", "output") and node is not start and copies.keys() >= {*node.all_input_nodes}:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    part.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return part


def _left_out(body: nn.Module, graph: Graph) -> tuple[str, ...]:
    used = {str(node.target).partition(".")[0] for node in graph.nodes if node.op in ("call_module", "get_attr")}
    return tuple(name for name, _ in body.named_children() if name not in used)


def _is(body: nn.Module, node: Node, kind: Any) -> bool:
    return node.op == "call_module" and isinstance(body.get_submodule(str(node.target)), kind)


@cache
def pooled_side(name: str, image_size: int) -> int:
    """Positions along one side of the maps that the part `hidden` reads, for an image of `image_size` px.

    Raises:
        EarshotError: the image is too small.
    """
    if side := _side(name, image_size):
        return side
    smallest = next(size for size in count(image_size) if _side(name, size))
    actual = f"pretrain.image_size is {image_size}; {name} requires {smallest} px or more"
    raise EarshotError(f"{actual}: raise it, or set another pretrain.backbone")


def _side(name: str, image_size: int) -> int:
    parts = parts_of(name)
    values = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        for part in (parts.earlier, parts.later, parts.pool):
            values = Interpreter(_skeleton(name), graph=part).run(values) if part else values
    except RuntimeError:  # a map is smaller than a kernel
        return 0
    return values.shape[3]


@cache
def _skeleton(name: str) -> nn.Module:
    """The classifier without memory for its weights, to compute shapes."""
    with torch.device("meta"):
        return build_body(name).eval()


def _shapes(body: nn.Module, graph: Graph, size: int) -> dict[Node, tuple[int, ...]]:
    """The shape of every value that a network computes for one image."""
    whole = Interpreter(body, garbage_collect_values=False, graph=graph)
    whole.run(torch.empty(1, 3, size, size, device="meta"))
    return {node: tuple(getattr(value, "shape", ())) for node, value in whole.env.items()}


class _NumbersInMemory(TorchFunctionMode):
    """Keeps plain tensors on the CPU: on the device `meta`, RegNet could not read the widths that it computes."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return function(*args, **kwargs)
