"""Weights from clusters of each layer's inputs: the k-means initialization of Kraehenbuehl et al. (2016).

One forward pass over all images visits the layers in the order in which the network calls them. A convolution or linear
layer gets its weights just before it computes, from the inputs that reach it through the layers before:

1. Its inputs (patches under a convolution's filters, or the rows of a linear layer) are whitened by PCA.
2. The whitened inputs, scaled to the unit sphere, are clustered into as many clusters as the layer has outputs.
3. The centroids, mapped back through the whitening, are its weights.
4. Every output is scaled to unit variance over the images, and its bias makes its mean .1.

Our choices, where the paper gives no detail:

- Lloyd's k-means on a sample of the inputs replaces mini-batch k-means on all of them.
- Batch norm takes its statistics from the same images. Its gain is 1, and its bias, .1, replaces the bias that the
  layer before it lacks.
- Each group of a convolution is clustered separately.
- A layer with fewer inputs than outputs (such as fc6 and fc7 with hundreds of images), or with equal inputs, gets
  Gaussian weights, scaled like the others.
- The last layer, which gives the scores, does not change.

`equalize_gradients` is the paper's rescaling between layers (section 3.2), by the published code (philkr/magic_init,
calibrateGradientRatio). It suits any initial weights; Table 2b of Owens (2016) has it as "Calib." of other networks.
"""

import math
from collections.abc import Mapping
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
# Values of the largest map of all images together, 2 GB: 1,700 images for AlexNet at 227 px, 160 for VGG-16.
LARGEST_MAP = 2**29
GRADIENT_IMAGES = 160  # whose gradients are compared; the published code takes ten batches of 16
LARGEST_GRADIENT_MAP = 2**26  # values of the largest map of these together
GRADIENT_STEPS = 10  # at most, as there
TOLERANCE = 0.01  # of the logarithm of the ratio, as there
FLAT = 1e-5  # deviation of an output, as a share of its size, below which it is rounding

Layer = nn.Conv2d | nn.Linear


@torch.no_grad()
def initialize_kmeans(network: nn.Module, images: Tensor, seed: int) -> None:
    """Set the weights of all layers but the last, and the statistics of batch norms, in place.

    Dropout is off; the network then returns to its previous mode. The same seed and images give the same weights.

    Args:
        network: its forward takes the images; its layers are the Conv2d and Linear modules that it calls.
        images: training frames, uint8 (images, 3, size, size). If the maps of all are too large for the memory, a
            random part of them is used.
        seed: of the random samples and of the first centroids.
    """
    generator = torch.Generator().manual_seed(seed)
    device, training = next(network.parameters()).device, network.training
    network.eval()
    layers, largest = _called(network, images[:1].to(device))
    sample = torch.randperm(len(images), generator=generator)[: max(1, LARGEST_MAP // largest)]
    pending = set(layers[:-1])

    def set_weights(layer: Layer, inputs: tuple[Tensor]) -> None:
        if layer in pending:
            _set_weights(layer, inputs[0], generator)

    def scale(layer: Layer, inputs: tuple[Tensor], outputs: Tensor) -> None:
        if layer in pending:
            _scale(layer, outputs)
            pending.remove(layer)  # a layer that is called again keeps its first weights

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_pre_hook(_take_statistics))
            elif module in pending:
                hooks.enter_context(module.register_forward_pre_hook(set_weights))
                hooks.enter_context(module.register_forward_hook(scale))
        network(images[sample].to(device))
    network.train(training)


def equalize_gradients(network: nn.Module, images: Tensor, seed: int) -> None:
    """Scale the layers so that all learn equally fast relative to their weights, in place (Kraehenbuehl 2016, 3.2).

    A layer's ratio is the root mean square of its weights' gradients over that of its weights, for random gradients of
    the outputs. Each layer is scaled by the root of its ratio over the target, the geometric mean of all, until they
    agree. A bias follows the scale of its layer's inputs too. Without batch norm, the outputs end with a deviation
    near 1. Dropout is off, batch norms normalize by these images and keep their statistics, and the network returns to
    its previous mode; so take the statistics again.

    Args:
        network: as in `initialize_kmeans`; all layers take part, the last one too.
        images: training frames, uint8 (images, 3, size, size), two or more; the first ones are used.
        seed: of the random gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    device, training = next(network.parameters()).device, network.training
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    with torch.no_grad():
        layers, largest = _called(network, images[:1].to(device))
    images = images[: max(2, min(GRADIENT_IMAGES, LARGEST_GRADIENT_MAP // largest))].to(device)
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    layers = [*dict.fromkeys(layers)]
    sizes: dict[Layer, Tensor] = {}  # mean absolute input of each layer
    outputs = _scaled_pass(network, images, sizes, dict.fromkeys(layers, 1.0))
    for _ in range(GRADIENT_STEPS):
        drawn = torch.randn(outputs.shape, generator=generator).to(device)
        gradients = torch.autograd.grad(outputs, [layer.weight for layer in layers], drawn)
        with torch.no_grad():
            squares = [
                float(gradient.square().mean() / layer.weight.square().mean())
                for layer, gradient in zip(layers, gradients, strict=True)
            ]
            logs = {
                layer: math.log(ratio) / 2 for layer, ratio in zip(layers, squares, strict=True) if 0 < ratio < math.inf
            }
            deviation = float(outputs.std(0, correction=0).mean())
        if not logs or not 0 < deviation < math.inf:
            break
        target = (sum(logs.values()) + math.log(deviation)) / len(logs)
        if all(abs(each - target) <= TOLERANCE * abs(target) for each in logs.values()):
            break
        outputs = _scaled_pass(
            network, images, sizes, {layer: math.exp((each - target) / 2) for layer, each in logs.items()}
        )
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(training)


def _scaled_pass(
    network: nn.Module, images: Tensor, sizes: dict[Layer, Tensor], scales: Mapping[Layer, float]
) -> Tensor:
    """The outputs, with every layer scaled just before it runs, and its bias by its inputs' growth; updates `sizes`."""
    pending = set(scales)

    def scale(layer: Layer, inputs: tuple[Tensor]) -> None:
        if layer not in pending:
            return
        pending.remove(layer)
        size = inputs[0].detach().abs().mean()
        layer.weight.data.mul_(scales[layer])
        if layer.bias is not None:
            layer.bias.data.mul_(scales[layer] * size / sizes.get(layer, size))
        sizes[layer] = size

    with ExitStack() as hooks:
        for layer in scales:
            hooks.enter_context(layer.register_forward_pre_hook(scale))
        return network(images)


def _called(network: nn.Module, image: Tensor) -> tuple[list[Layer], int]:
    """The layers in call order, and the number of values of the largest map of one image."""
    layers, sizes = [], []

    def record(layer: Layer, inputs: tuple[Tensor], outputs: Tensor) -> None:
        layers.append(layer)
        sizes.append(max(inputs[0].numel(), outputs.numel()))

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, Layer):
                hooks.enter_context(module.register_forward_hook(record))
        network(image)
    return layers, max(sizes)


def _set_weights(layer: Layer, inputs: Tensor, generator: torch.Generator) -> None:
    groups = getattr(layer, "groups", 1)
    outputs = len(layer.weight) // groups
    sample = _draw(layer, inputs, ROWS * outputs, generator).unflatten(1, (groups, -1))  # (rows, groups, d)
    weights = [_filters(rows, outputs, generator) for rows in sample.unbind(1)]
    layer.weight.copy_(torch.cat(weights).view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.zero_()


def _draw(layer: Layer, inputs: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """At most `rows` of the inputs of a layer, (rows, d): rows of its input, or patches under its filters."""
    if isinstance(layer, nn.Linear):
        inputs = inputs.flatten(0, -2)
        return inputs[torch.randperm(len(inputs), generator=generator)[:rows].to(inputs.device)]
    geometry: Any = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    positions = functional.unfold(inputs[:1, :1], *geometry).shape[2]
    drawn = torch.randperm(len(inputs) * positions, generator=generator)[:rows].sort().values
    ends = torch.searchsorted(drawn, torch.arange(len(inputs) + 1) * positions)
    patches = []
    for number, (start, end) in enumerate(pairwise(ends.tolist())):
        selected = drawn[start:end].to(inputs.device) - number * positions
        patches.append(functional.unfold(inputs[number : number + 1], *geometry)[0, :, selected].T)
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
    """The largest principal components of centered rows (rows, d), each divided by its deviation: (d, components)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # for the random start of a subspace iteration, which hardly matters
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


def _scale(layer: Layer, outputs: Tensor) -> None:
    """Scale the outputs of a layer whose bias is zero, and the layer with them, to variance 1 and mean .1; in place."""
    channels = 1 if isinstance(layer, nn.Conv2d) else outputs.dim() - 1
    mean, deviation = _statistics(outputs, channels)
    shape = [-1 if dim == channels else 1 for dim in range(outputs.dim())]
    layer.weight.div_(deviation.view(-1, *[1] * (layer.weight.dim() - 1)))
    outputs.div_(deviation.view(shape))
    if layer.bias is not None:
        layer.bias.copy_(BIAS - mean / deviation)
        outputs.add_(layer.bias.view(shape))


def _take_statistics(norm: Any, inputs: tuple[Tensor]) -> None:
    """Set a batch norm's statistics to those of these inputs; its outputs have variance 1 and mean .1."""
    mean, deviation = _statistics(inputs[0], 1)
    if norm.track_running_stats:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(deviation**2)
    if norm.affine:
        norm.weight.fill_(1)
        norm.bias.fill_(BIAS)


def _statistics(values: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation along the dimension `channels`; the deviation is 1 for a channel that does not vary."""
    others = [dim for dim in range(values.dim()) if dim != channels]
    deviation, mean = torch.std_mean(values, others, correction=0)
    return mean, torch.where(deviation > FLAT * mean.abs(), deviation, 1.0)
