"""Gradient ascent: activations rise, images depend on unit and seed alone, and a unit without gradient stays plain."""

import numpy as np
import pytest
import torch

from earshot.explanation.ascent import UNITS, ascend, pixels
from earshot.explanation.layers import Layer, maps_of
from earshot.explanation.selectivity import activations
from earshot.networks.backbones import build_network

pytestmark = pytest.mark.usefixtures("one_process")
STEPS, SIDE, SILENT = 24, 64, 3


@pytest.fixture(scope="module")
def layer():
    """conv5 of a small AlexNet with random weights, in which one unit never responds."""
    torch.manual_seed(0)
    network = build_network("alexnet", classes=2, width=0.125, image_size=SIDE, dropout=0.0).eval()
    norm = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
    with torch.no_grad():
        norm.weight[SILENT], norm.bias[SILENT] = 0, -1
    return Layer(network, "conv5")


@pytest.mark.parametrize("rank_by", ["maximum", "mean"])
def test_the_activation_that_ranks_frames_rises(layer, rank_by):
    ascents = list(ascend(layer, [0, 1, 2], rank_by, STEPS, seed=0))
    images = torch.stack([each.image for each in ascents])
    assert images.dtype == torch.uint8 and images.shape == (3, 3, SIDE, SIDE)
    measured = activations(maps_of({"": layer}, images)[""], rank_by)
    for unit, each in enumerate(ascents):
        assert each.end > max(2 * each.start, 0)
        assert each.end == pytest.approx(float(measured[unit, unit]), rel=0.02)  # of the image as it is stored


def test_an_image_depends_on_unit_and_seed_and_not_on_its_batch(layer):
    units = list(range(UNITS + 2))
    once, again = (list(ascend(layer, units, "maximum", STEPS, seed=0)) for _ in range(2))
    other_order = list(ascend(layer, units[::-1], "maximum", STEPS, seed=0))[::-1]
    alone = [next(ascend(layer, [unit], "maximum", STEPS, seed=0)) for unit in (0, UNITS)]
    for one, *others in ((*each,) for each in zip(once, again, other_order, strict=True)):
        assert all(torch.equal(one.image, each.image) and one.end == each.end for each in others)
    assert torch.equal(alone[0].image, once[0].image) and torch.equal(alone[1].image, once[UNITS].image)
    assert not torch.equal(next(ascend(layer, [0], "maximum", STEPS, seed=1)).image, once[0].image)


def test_a_unit_without_gradient_has_an_image_of_one_color(layer):
    silent = next(ascend(layer, [SILENT], "maximum", STEPS, seed=0))
    assert (silent.start, silent.end) == (0, 0)
    assert (silent.image == silent.image[:, :1, :1]).all() and silent.image[:, 0, 0].tolist() == [124, 116, 104]


def test_pixels_are_the_reverse_of_normalized_images(layer):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 5, 5), dtype=np.uint8))
    assert torch.equal(pixels(layer.network, layer.network.normalize(images)), images)


def test_units_of_a_layer_before_its_relu_rise_too(layer):
    name = next(name for name, module in layer.network.named_modules() if isinstance(module, torch.nn.BatchNorm2d))
    for rank_by in ("maximum", "mean"):
        (ascent,) = ascend(Layer(layer.network, name), [0], rank_by, STEPS, seed=0)
        assert ascent.end > ascent.start
