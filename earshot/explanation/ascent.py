"""Images that gradient ascent finds for units: what activates a unit strongly, although no image of a corpus shows it.

An image starts as faint noise on ImageNet's mean color, nearly gray. Each step changes it along the gradient of the
unit's activation (Erhan 2009). Three things keep patterns of single pixels away, which activate units and show nothing:
the image is shifted at random before each step (Olah 2017, "Feature Visualization"), decays towards the mean color, and
is blurred every few steps (Yosinski 2015, "Understanding Neural Networks Through Deep Visualization", section 3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from earshot.core.rng import generator
from earshot.explanation.layers import Layer, maps_of
from earshot.explanation.selectivity import Rank, activations
from earshot.networks.network import ImageEncoder

UNITS = 16  # in a batch
NOISE = 0.05  # deviation of the first image, in deviations of ImageNet's pixels
STEP = 0.3  # root mean square of the change of a step, in the same unit
DECAY = 0.02  # of the difference from the mean color, in each step
BLUR, BLUR_EVERY = 1.0, 4  # deviation of the blur in px, and steps from one to the next
SHIFT = 32  # an image is shifted by at most one in so many of its px
# A unit that does not respond to noise has no gradient after its ReLU. In the first steps ReLUs therefore have this
# gradient below zero too (Olah 2017 does so in the first 16 steps).
LEAK, LEAKING = 0.1, 16
RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


@dataclass(frozen=True)
class Ascent:
    """What gradient ascent found for a unit.

    Args:
        image: uint8 (3, image_size, image_size); the plain mean color if the unit does not respond to what was found.
        start, end: the unit's activation by the first image and by what was found.
    """

    image: Tensor
    start: float
    end: float


def ascend(layer: Layer, units: Sequence[int], rank_by: Rank, steps: int, seed: int) -> Iterator[Ascent]:
    """Images that activate each unit strongly; an image depends on its unit and the seed alone.

    Args:
        rank_by: the activation that ascends, the same that ranks frames.
    """
    network = layer.network
    side, device = network.image_size, network.channel_mean.device
    noise = torch.from_numpy(generator("ascent", seed).normal(0, NOISE, (1, 3, side, side))).float().to(device)
    first, plain = pixels(network, noise), pixels(network, torch.zeros_like(noise))[0]
    batches = [list(units[start : start + UNITS]) for start in range(0, len(units), UNITS)]
    for batch in tqdm(batches, desc="gradient ascent", unit="batch", leave=False, disable=None):
        full = torch.tensor(batch + batch[-1:] * (UNITS - len(batch)), device=device)  # sums depend on the size
        last = pixels(network, _ascend(layer, full, network.normalize(first), rank_by, steps, seed))
        start, end = (
            activations(maps_of({"": layer}, images)[""], rank_by).float().expand(UNITS, -1).gather(1, full[:, None])
            for images in (first, last)
        )
        for image, before, after in zip(last[: len(batch)], start[:, 0].tolist(), end[:, 0].tolist(), strict=False):
            yield Ascent((image if after > 0 else plain).cpu(), before, after)


def pixels(network: ImageEncoder, normalized: Tensor) -> Tensor:
    """Normalized images as uint8, rounded; the reverse of `ImageEncoder.normalize`."""
    return (normalized * network.channel_deviation + network.channel_mean).round().clamp(0, 255).to(torch.uint8)


def _ascend(layer: Layer, units: Tensor, start: Tensor, rank_by: Rank, steps: int, seed: int) -> Tensor:
    """The last of `steps` normalized images for each unit, all from the same start (1, 3, side, side)."""
    from torchvision.transforms.functional import gaussian_blur  # takes as long to import as torch

    images = start.repeat(len(units), 1, 1, 1)
    darkest, brightest = (layer.network.normalize(torch.full_like(start, level)) for level in (0, 255))
    largest = max(start.shape[3] // SHIFT, 1)
    for step in range(steps):
        shift = generator("ascent shift", seed, step).integers(-largest, largest + 1, 2).tolist()  # rows, columns
        gradient = _gradient(layer, units, images.roll(shift, (2, 3)), rank_by, leaking=step < LEAKING)
        gradient = gradient.roll([-px for px in shift], (2, 3))
        size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
        images = (images + STEP * gradient / size.clamp(min=torch.finfo(size.dtype).tiny)) * (1 - DECAY)
        images = torch.minimum(torch.maximum(images, darkest), brightest)
        if step % BLUR_EVERY == BLUR_EVERY - 1:
            images = gaussian_blur(images, [5, 5], BLUR)
    return images


def _gradient(layer: Layer, units: Tensor, images: Tensor, rank_by: Rank, leaking: bool) -> Tensor:
    """The gradient of the activation of one unit an image with respect to the image, as large as `images`."""
    images.requires_grad_()
    with _LeakingReLUs(LEAK if leaking else 0):
        maps = layer.of(images)[torch.arange(len(units)), units]  # (units, height, width)
        (gradient,) = torch.autograd.grad(activations(maps[:, None], rank_by).sum(), images)
    return gradient


class _LeakingReLUs(TorchFunctionMode):
    """ReLUs keep their values, and have a gradient of `leak` below zero."""

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.leak = leak

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.leak and function in RELUS:
            values = args[0]
            return torch.where(values > 0, values, self.leak * (values - values.detach()))
        return function(*args, **kwargs or {})
