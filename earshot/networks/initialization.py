"""Weights from clusters of what each layer is shown: the k-means initialisation of Kraehenbuehl et al. (2016).

One forward pass over all the pictures visits the layers in the order in which the network calls them. A convolution or
linear layer is given its weights in the moment before it computes, from the inputs that have reached it through the
layers before:

1. Its inputs, the patches that a convolution's filters see or the rows of a linear layer, are whitened by PCA.
2. The whitened inputs, scaled to the unit sphere, are clustered into as many clusters as the layer has outputs.
3. The centroids, mapped back through the whitening, are its weights.
4. Every output is scaled to unit variance over the pictures, and its bias makes its mean .1.

Ours, where the paper is silent:

- Lloyd's k-means on a sample of the inputs stands for mini-batch k-means on all of them.
- Batch norm takes its statistics from the same pictures. Its gain is 1, and its bias, .1, replaces the bias that the
  layer before it lacks.
- The groups of a convolution are clustered each by itself.
- A layer with fewer inputs than outputs, as fc6 and fc7 with hundreds of pictures, or with inputs that are all equal,
  has Gaussian weights, scaled like the others.
- The layer called last, which gives the scores, is left as it is.

The paper's rescaling between layers, which equalises their gradients, is left out: behind a batch norm the scale of a
layer's weights changes nothing of its output.
"""

from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

RIDGE = 1e-3  # added to the variances of the principal components, as a share of an input's mean variance
SMALLEST = 1e-6  # variance of a component, as a share of the same, below which it is rounding
BIAS = 0.1  # mean of every output before its ReLU
ROWS = 50  # inputs that are clustered, for each centroid
ITERATIONS = 15
# Values of the largest map of all pictures together, 2 GB: 1,700 pictures for AlexNet at 227 px, 160 for VGG-16.
LARGEST_MAP = 2**29
FLAT = 1e-5  # deviation of an output, as a share of its size, below which it is rounding

Layer = nn.Conv2d | nn.Linear


@torch.no_grad()
def initialize_kmeans(network: nn.Module, images: Tensor, seed: int) -> None:
    """Give all layers of a network but the last their weights, and batch norms their statistics, in place.

    Dropout is off meanwhile; the network is left in the mode in which it came. The same seed and pictures give the same
    weights.

    Args:
        network: any whose forward takes the pictures; its layers are the Conv2d and Linear modules that this calls.
        pictures: training frames as the network takes them, uint8 (pictures, 3, size, size). Where the maps of all are
            too large for the memory, a random part of them is used.
        seed: of the parts that are drawn, and of the first centroids.
    """
    generator = torch.Generator().manual_seed(seed)
    device, training = next(network.parameters()).device, network.training
    network.eval()
    layers, largest = _called(network, images[:1].to(device))
    chosen = torch.randperm(len(images), generator=generator)[: max(1, LARGEST_MAP // largest)]
    waiting = set(layers[:-1])

    def give(layer: Layer, given: tuple[Tensor]) -> None:
        if layer in waiting:
            _give_weights(layer, given[0], generator)

    def scale(layer: Layer, given: tuple[Tensor], made: Tensor) -> None:
        if layer in waiting:
            _scale(layer, made)
            waiting.remove(layer)  # a layer that is called again keeps the weights of the first time

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_pre_hook(_take_statistics))
            elif module in waiting:
                hooks.enter_context(module.register_forward_pre_hook(give))
                hooks.enter_context(module.register_forward_hook(scale))
        network(images[chosen].to(device))
    network.train(training)


def _called(network: nn.Module, image: Tensor) -> tuple[list[Layer], int]:
    """The layers in the order in which they are called, and the values of the largest map of one picture."""
    layers, sizes = [], []

    def note(layer: Layer, given: tuple[Tensor], made: Tensor) -> None:
        layers.append(layer)
        sizes.append(max(given[0].numel(), made.numel()))

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, Layer):
                hooks.enter_context(module.register_forward_hook(note))
        network(image)
    return layers, max(sizes)


def _give_weights(layer: Layer, given: Tensor, generator: torch.Generator) -> None:
    groups = getattr(layer, "groups", 1)
    outputs = len(layer.weight) // groups
    inputs = _draw(layer, given, ROWS * outputs, generator).unflatten(1, (groups, -1))  # (rows, groups, d)
    weights = [_filters(rows, outputs, generator) for rows in inputs.unbind(1)]
    layer.weight.copy_(torch.cat(weights).view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.zero_()


def _draw(layer: Layer, given: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """At most `rows` of the inputs of a layer, (rows, d): rows of its input, or the patches that its filters see."""
    if isinstance(layer, nn.Linear):
        given = given.flatten(0, -2)
        return given[torch.randperm(len(given), generator=generator)[:rows].to(given.device)]
    geometry: Any = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    positions = functional.unfold(given[:1, :1], *geometry).shape[2]
    drawn = torch.randperm(len(given) * positions, generator=generator)[:rows].sort().values
    ends = torch.searchsorted(drawn, torch.arange(len(given) + 1) * positions)
    patches = []
    for number, (start, end) in enumerate(pairwise(ends.tolist())):
        there = drawn[start:end].to(given.device) - number * positions
        patches.append(functional.unfold(given[number : number + 1], *geometry)[0, :, there].T)
    return torch.cat(patches)


def _filters(rows: Tensor, outputs: int, generator: torch.Generator) -> Tensor:
    """Centroids of the whitened rows (rows, d), mapped back: (outputs, d)."""
    gaussian = torch.randn(outputs, rows.shape[1], generator=generator).to(rows.device) / rows.shape[1] ** 0.5
    if len(rows) < outputs:
        return gaussian
    centered = rows - rows.mean(0)
    whitening = _whitening(centered, outputs)  # (d, components)
    if not whitening.shape[1]:
        return gaussian
    white = functional.normalize(centered @ whitening)
    centroids = _cluster(white.cpu().numpy(), outputs, int(torch.randint(2**31 - 1, (), generator=generator)))
    filters = torch.from_numpy(centroids).to(rows.device) @ whitening.T
    return torch.where(filters.any(dim=1, keepdim=True), filters, gaussian)


def _whitening(centered: Tensor, components: int) -> Tensor:
    """The largest principal components of centred rows (rows, d), each divided by its deviation: (d, components)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the random start of a subspace iteration that ends near the components from any
        _, values, vectors = torch.svd_lowrank(centered, q=min(components, *centered.shape))
    variances, unit = values**2 / len(centered), centered.pow(2).mean()
    kept = variances > (SMALLEST * unit).clamp(min=torch.finfo(unit.dtype).tiny)
    return vectors[:, kept] / (variances[kept] + RIDGE * unit).sqrt()


def _cluster(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    kmeans: Any = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    kmeans.train(rows)
    return kmeans.centroids


def _scale(layer: Layer, made: Tensor) -> None:
    """Scale the outputs that a layer without bias has just made, and the layer with them, to variance 1 and mean .1."""
    channels = 1 if isinstance(layer, nn.Conv2d) else made.dim() - 1
    mean, deviation = _statistics(made, channels)
    shape = [-1 if dim == channels else 1 for dim in range(made.dim())]
    layer.weight.div_(deviation.view(-1, *[1] * (layer.weight.dim() - 1)))
    made.div_(deviation.view(shape))
    if layer.bias is not None:
        layer.bias.copy_(BIAS - mean / deviation)
        made.add_(layer.bias.view(shape))


def _take_statistics(norm: Any, given: tuple[Tensor]) -> None:
    """Batch norm as it would be after many batches of these inputs; outputs of variance 1 and mean .1."""
    mean, deviation = _statistics(given[0], 1)
    if norm.track_running_stats:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(deviation**2)
    if norm.affine:
        norm.weight.fill_(1)
        norm.bias.fill_(BIAS)


def _statistics(values: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, the dimension `channels`; 1 for the deviation of one that does not vary."""
    others = [dim for dim in range(values.dim()) if dim != channels]
    deviation, mean = torch.std_mean(values, others, correction=0)
    return mean, torch.where(deviation > FLAT * mean.abs(), deviation, 1.0)
