"""k-means initialization: outputs of unit variance, filters that match the images, and no image that breaks it."""

import math

import faiss
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from earshot.networks.initialization import BIAS, equalize_gradients, initialize_kmeans


@pytest.fixture(autouse=True)
def one_thread():
    """Small sums are slower with many threads, especially on a busy machine."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1), faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0]), faiss.omp_set_num_threads(before[1])


def small_network(classes: int = 5) -> nn.Module:
    """A convolution with batch norm, one in two groups without, a hidden and an output layer; uint8 or float in."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(48, 16),
        nn.ReLU(inplace=True),
        nn.Linear(16, classes),
    )
    network.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 64 - 2,))
    return network


def noisy_images(count: int = 40, size: int = 32) -> torch.Tensor:
    """Smooth shapes under a little noise: neighboring pixels agree, as in photographs."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    return (255 * (smooth + 0.05 * torch.randn(smooth.shape, generator=generator))).clamp(0, 255).byte()


def stripes(angle: float, size: int = 32) -> torch.Tensor:
    """Sine gratings of one orientation and twelve phases, (12, size, size) from -1 to 1."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    across = x * math.cos(angle) + y * math.sin(angle)
    phases = torch.linspace(0, 2 * math.pi, 12)[:, None, None]
    return torch.sin(2 * math.pi * across / 6 + phases)


def striped_images(angle: float) -> torch.Tensor:
    waves = stripes(angle)
    noise = 0.05 * torch.randn(waves.shape, generator=torch.Generator().manual_seed(4))
    return (127.5 + 100 * (waves + noise))[:, None].expand(-1, 3, -1, -1).byte()


def outputs(network: nn.Module, images: torch.Tensor, kind: type[nn.Module]) -> list[torch.Tensor]:
    """The outputs of all modules of a kind in eval mode, channels first: (channels, values)."""
    maps = []

    def note(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        maps.append(output.transpose(0, 1).flatten(1).clone())

    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, kind)]
    with torch.inference_mode():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    return maps


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().float() for tensor in network.state_dict().values()])


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.Conv2d, nn.Linear])
def test_every_output_has_unit_variance_and_the_mean_of_the_bias_on_the_images(kind):
    network, images = small_network(), noisy_images()
    initialize_kmeans(network, images, seed=0)
    maps = outputs(network, images, kind)
    for values in maps[:-1] if kind is nn.Linear else maps:  # the last linear layer is the network's own
        assert values.std(1, correction=0) == pytest.approx(torch.ones(len(values)), abs=1e-3)
    for values in maps[1:] if kind is nn.Conv2d else maps[:1]:  # the first convolution leaves its mean to batch norm
        assert values.mean(1) == pytest.approx(torch.full((len(values),), BIAS), abs=1e-3)


def test_first_filters_are_selective_for_the_orientations_of_their_images():
    stripes = [striped_images(number * math.pi / 6) for number in range(6)]

    def selectivity(network: nn.Module) -> float:
        """A filter's deviation on the orientation that it answers most, over its mean deviation: mean of all."""
        deviations = torch.stack([outputs(network, images, nn.Conv2d)[0].std(1) for images in stripes])
        return float((deviations.amax(0) / deviations.mean(0)).mean())

    network = small_network()
    random = selectivity(network)
    initialize_kmeans(network, torch.cat(stripes), seed=0)
    print(random, selectivity(network))
    assert selectivity(network) > 1.2 * random


def test_a_seed_gives_its_weights_whatever_they_were_and_another_seed_others():
    first, again, other = small_network(), small_network(), small_network()
    images = noisy_images()
    for values in again.parameters():
        values.data[: len(values) // 2] += 1
    again[-1].load_state_dict(first[-1].state_dict())
    for network, seed in ((first, 1), (again, 1), (other, 2)):
        initialize_kmeans(network, images, seed)
    assert torch.equal(weights(first), weights(again))
    assert not torch.allclose(weights(first), weights(other), atol=0.1)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network = small_network()
    torch.manual_seed(5)
    initialize_kmeans(network, noisy_images(8), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_the_output_layer_and_the_mode_stay_as_they_were():
    network = small_network().train()
    before = {name: tensor.clone() for name, tensor in network[-1].state_dict().items()}
    initialize_kmeans(network, noisy_images(), seed=0)
    assert network.training and all(torch.equal(network[-1].state_dict()[name], before[name]) for name in before)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(12, 3, 32, 32, dtype=torch.uint8),
        noisy_images(1).expand(12, -1, -1, -1),
        noisy_images(1),
        torch.cat([torch.zeros(11, 3, 32, 32, dtype=torch.uint8), noisy_images(1)]),
    ],
    ids=["black", "all equal", "one image", "one that is not black"],
)
def test_weights_and_features_are_finite_and_bounded_whatever_the_images(images):
    network = small_network()
    initialize_kmeans(network, images, seed=0)
    assert torch.isfinite(weights(network)).all()
    with torch.inference_mode():
        scores = network.eval()(noisy_images())
    assert scores.abs().max() < 1e4


def test_groups_of_a_convolution_are_fitted_each_to_its_own_channels():
    """Filters of stripes that change along one axis do not change along the other."""
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 14 * 14, 2))
    upright, lying = stripes(0, size=16), stripes(math.pi / 2, size=16)
    initialize_kmeans(network, torch.stack([upright, -upright, lying, -lying], dim=1), seed=0)
    first, second = network[0].weight.detach().split(4)
    assert first.std(2).max() < 0.01 * first.std(3).max()
    assert second.std(3).max() < 0.01 * second.std(2).max()


def test_fewer_images_than_hidden_units_give_units_that_differ():
    network = small_network()
    initialize_kmeans(network, noisy_images(6), seed=0)
    hidden = functional.normalize(network[9].weight.detach())
    likeness = (hidden @ hidden.T).fill_diagonal_(0)
    assert likeness.max() < 0.99


@pytest.mark.parametrize("name", ["resnet18", pytest.param("vgg11", marks=pytest.mark.slow)])
def test_torchvisions_networks(name):
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(num_classes=4, weights=None)
    images = (noisy_images(6, 48).float() - 127) / 64
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    initialize_kmeans(network, images, seed=0)
    after = dict(network.named_parameters())
    last = [name for name in after if name.startswith(("fc.", "classifier.6."))]
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    gains = {name for name, values in before.items() if name.endswith("weight") and values.dim() == 1}  # 1 before
    assert changed == set(after) - set(last) - gains
    for values in outputs(network, images, nn.Conv2d):
        assert values.std(1, correction=0) == pytest.approx(torch.ones(len(values)), abs=1e-2)


def ratios(network: nn.Module, images: torch.Tensor) -> list[float]:
    """The root mean square of each layer's gradients over that of its weights, for random gradients of the outputs."""
    outputs = network.eval()(images)
    outputs.backward(torch.randn(outputs.shape, generator=torch.Generator().manual_seed(9)))
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [float((weight.grad.square().mean() / weight.detach().square().mean()).sqrt()) for weight in weights]


def test_two_numbers_in_a_row_become_equal_and_their_product_unit():
    """y = a b x with one weight each: the ratios are |b x| / |a| and |a x| / |b|, which agree where a = b."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(8)
        network[1].weight.fill_(-0.125 * 4)
    images = torch.randn(150, 1, generator=torch.Generator().manual_seed(0))
    equalize_gradients(network, images, seed=0)
    first, second = network[0].weight.item(), network[1].weight.item()
    assert first == pytest.approx(-second, rel=0.05)
    assert first * -second * images.std(correction=0).item() == pytest.approx(1, abs=0.05)


def test_all_layers_learn_equally_fast_relative_to_their_weights():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 20), nn.ReLU(), nn.Linear(20, 5)
    )
    images = noisy_images().float() / 64 - 2
    with torch.no_grad():
        network[0].weight.mul_(20)
        network[3].weight.mul_(0.2)
    before = ratios(network, images)
    network.zero_grad()
    outputs_before = network(images)
    equalize_gradients(network, images, seed=0)
    after = ratios(network, images)
    assert max(before) / min(before) > 10
    assert max(after) / min(after) < 1.3  # of other gradients than those that were equalized
    # Rectified layers without biases would give the outputs times a number; these biases follow the scale.
    outputs_after = network(images)
    assert torch.corrcoef(torch.stack([outputs_before.flatten(), outputs_after.flatten()]))[0, 1] > 0.999
    assert outputs_after.std(0, correction=0).mean().item() == pytest.approx(1, abs=0.1)


def test_before_batch_norm_the_output_stays_and_statistics_are_not_touched():
    network, images = small_network(), noisy_images()
    initialize_kmeans(network, images, seed=0)
    statistics = network[1].running_var.clone()
    equalize_gradients(network.train(), images, seed=0)
    assert network.training and network[1].momentum == 0.1
    assert torch.equal(network[1].running_var, statistics)
    assert torch.isfinite(weights(network)).all()
    again, other = small_network(), small_network()
    for each in (again, other):
        initialize_kmeans(each, images, seed=0)
        equalize_gradients(each, images, seed=0)
    assert torch.equal(weights(again), weights(other))


def test_layers_without_gradients_stay():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        network[2].weight.zero_()
    before = [values.clone() for values in network.parameters()]
    equalize_gradients(network, torch.ones(8, 4), seed=0)
    assert all(torch.equal(values, first) for values, first in zip(network.parameters(), before, strict=True))
