"""What positions see: against the closed formula, and against NaN put into every single row."""

import numpy as np
import pytest
import torch
from torch import nn

from earshot.core.errors import EarshotError
from earshot.explanation.layers import Layer
from earshot.explanation.receptive_fields import Fields, measure_fields, scaled
from earshot.networks.backbones import build_network
from earshot.networks.backbones.alexnet import POOL, POOL_STRIDE, AlexNet
from earshot.networks.backbones.caffenet import CaffeNet
from earshot.networks.correspondence import build_correspondence


def by_formula(layers):
    """First px, stride and size of what is seen through layers of (kernel, stride, padding)."""
    first, jump, size = 0, 1, 1
    for kernel, stride, padding in layers:
        first, size, jump = first - padding * jump, size + (kernel - 1) * jump, jump * stride
    return Fields(first, jump, size)


def alexnet_layers(network):
    layers = []
    for step in network.plan:
        layers.append((step.kernel, step.stride, step.padding))
        if step.pooled:
            layers.append((POOL, POOL_STRIDE, 0))
    return layers


@pytest.mark.parametrize("kind", [AlexNet, CaffeNet])
@pytest.mark.parametrize("image_size", [112, 227])  # of smaller pictures every position sees nearly all
def test_conv5_of_alexnet_sees_163_px_at_stride_16(kind, image_size):
    network = kind(classes=2, width=0.05, image_size=image_size).eval()
    rows, columns = measure_fields(Layer(network, "conv5").of)
    assert rows == columns == by_formula(alexnet_layers(network)[:-1])
    assert (rows.stride, rows.size) == (16, 163)
    pooled, _ = measure_fields(Layer(network, "last_pool").of)
    assert pooled == by_formula(alexnet_layers(network)) and pooled.size == 195


@pytest.mark.parametrize(("stride", "size"), [(1, 68), (2, 133)])
def test_towers_see_what_their_docstring_says(stride, size):
    network = build_correspondence("ave", width=1 / 16, image_size=32, stride=stride).eval()
    image_fields, audio_fields = measure_fields(network.convolve), measure_fields(network.audio_tower, channels=1)
    assert image_fields == audio_fields and image_fields[0] == image_fields[1]
    assert (image_fields[0].stride, image_fields[0].size) == (8 * stride, size)


@pytest.mark.slow
def test_conv5_of_resnet18_sees_435_px():
    network = build_network("resnet18", classes=2, width=1, image_size=64, dropout=0.1).eval()
    assert measure_fields(Layer(network, "conv5").of) == (Fields(-217, 32, 435), Fields(-217, 32, 435))


STACK = nn.Sequential(
    nn.Conv2d(3, 2, (5, 3), stride=(2, 1), padding=(2, 0)),
    nn.BatchNorm2d(2),
    nn.ReLU(),
    nn.MaxPool2d(3, 2),
    nn.Conv2d(2, 2, 3, padding=1),
).eval()


def test_the_fields_are_those_of_nan_in_every_single_row_and_at_borders_not_smaller():
    side = 30
    fields = measure_fields(STACK)
    with torch.no_grad():
        for axis, along in zip((2, 3), fields, strict=True):
            positions = STACK(torch.zeros(1, 3, side, side)).shape[axis]
            visible = np.zeros((positions, side), bool)
            for px in range(side):
                image = torch.zeros(1, 3, side, side)
                image.narrow(axis, px, 1).fill_(torch.nan)
                visible[:, px] = STACK(image).isnan().any(1).any(4 - axis)[0].numpy()
            inside = 0
            for position in range(positions):
                start = along.first + position * along.stride
                computed, true = list(along.extent(position, side)), np.flatnonzero(visible[position]).tolist()
                if start >= 0 and start + along.size <= side:
                    inside += 1
                    assert computed == true
                else:
                    assert computed[: len(true)] == true and len(computed) - len(true) < along.stride
            assert inside > 2
    assert fields[0].stride == 4 and fields[1].stride == 2


def test_fields_may_have_gaps_between_them():
    assert measure_fields(nn.Conv2d(3, 1, 1, stride=4))[0] == Fields(0, 4, 1)


class Excited(nn.Module):
    """Scales a map by its mean, as squeeze and excitation does."""

    def forward(self, images):
        return images * images.mean((2, 3), keepdim=True)


def test_a_layer_that_sees_everything_has_no_size():
    fields, _ = measure_fields(nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), Excited()))
    assert fields.size is None
    assert fields.extent(3, 17) == range(17)
    np.testing.assert_allclose(fields.centers(4, 32), [4, 12, 20, 28])


def test_maps_are_scaled_between_the_middles_of_the_fields():
    fields = Fields(first=-1, stride=4, size=6)  # middles at the edges 2, 6 and 10 of 12 px
    np.testing.assert_allclose(fields.centers(3, 12), [2, 6, 10])
    rows = fields.scaling(3, 12, 12)
    column = torch.tensor([[0.0], [4.0], [0.0]])
    result = scaled(column, rows, torch.ones(1, 1))[:, 0]
    np.testing.assert_allclose(result, [0, 0, 0.5, 1.5, 2.5, 3.5, 3.5, 2.5, 1.5, 0.5, 0, 0])
    half = scaled(column, fields.scaling(3, 12, 6), torch.ones(1, 1))[:, 0]  # middles at 1, 3 ... 11
    np.testing.assert_allclose(half, [0, 1, 3, 3, 1, 0])


def test_circles_follow_what_was_measured_of_alexnet_and_are_never_wider_than_fields():
    published = {19: 17.8, 67: 37.4, 99: 52.1, 131: 60.0, 195: 72.0}  # Zhou 2015, Table 1, Places-CNN
    for size, actual in published.items():
        assert Fields(0, 1, size).actual == pytest.approx(actual, rel=0.05)
    assert Fields(0, 1, 5).actual == 5


@pytest.fixture
def network():
    torch.manual_seed(0)
    return AlexNet(classes=2, width=0.05, image_size=64).eval()


def test_a_module_gives_its_own_map_before_the_next_changes_it_in_place(network):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    convolution = Layer(network, "convolutions.0")
    expected = network.convolutions[0](network.normalize(images))
    torch.testing.assert_close(convolution(images), expected)
    assert (Layer(network, "convolutions.1")(images) < 0).any()  # a ReLU in place follows this batch norm
    torch.testing.assert_close(Layer(network, "convolutions")(images), Layer(network, "conv5")(images))
    assert convolution.units == expected.shape[1]


@pytest.mark.parametrize(("name", "reason"), [("conv9", "is not in the network"), ("fc6.1", "gives no maps")])
def test_a_layer_without_maps_is_refused_and_others_are_named(network, name, reason):
    with pytest.raises(EarshotError, match=f"layer '{name}' {reason}.*expected conv5 or a module such as convolutions"):
        Layer(network, name)
