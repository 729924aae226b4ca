"""Correspondence networks have the papers' shapes and learn; their files restore the same numbers or are refused."""

import json
from collections.abc import Iterable

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.core.registry import names
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.correspondence import build_correspondence
from earshot.networks.correspondence.ave import AVENet
from earshot.networks.correspondence.avol import AVOLNet
from earshot.networks.correspondence.multisensory import Multisensory, compressed
from earshot.networks.files import load_correspondence, load_encoder, load_network, save_architecture, save_weights
from earshot.networks.towers import Tower, pooled
from earshot.networks.two_towers import TwoTowers

CORRESPONDENCES = names("earshot.networks.correspondence")
TOWERS = ["l3", "ave", "avol"]
LAYERS = TwoTowers.probe_layers
PAPERS_STRIDE = {"l3": 1, "ave": 2, "avol": 2, "multisensory": 2}
# An image of 64 px is 4 x 4 at conv4_2; 8 frames are 2 times after the 3-d strides; 16,800 samples are 0.8 s.
SMALL = {"width": 1 / 16, "image_size": 64, "frames": 8, "audio_samples": 16_800, "backbone": "alexnet"}
COMPUTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def build(name: str, **changes: object) -> Correspondence:
    torch.manual_seed(0)
    return build_correspondence(name, **SMALL | changes)


def at_papers_size(name: str) -> Correspondence:
    torch.manual_seed(0)
    return build_correspondence(name, width=1, image_size=224, stride=PAPERS_STRIDE[name])


def pairs_for(network: Correspondence, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a bright bar whose position encodes the tone of the sound."""
    drawn = torch.Generator().manual_seed(1)
    places = torch.linspace(0, 1, count)
    several = network.frames > 1
    shape = (count, *([network.frames] if several else []), 3, network.image_size, network.image_size)
    images = torch.randint(0, 80, shape, dtype=torch.uint8, generator=drawn)
    bar = (torch.arange(network.image_size) / network.image_size - places[:, None]).abs() < 0.15
    images += 150 * bar[:, None, None].unsqueeze(1 if several else 0).reshape(count, *[1] * (len(shape) - 2), -1)
    times = torch.arange(network.audio_samples) / network.audio_rate
    sounds = 0.3 * torch.sin(2 * torch.pi * 300 * 2 ** (4 * places[:, None]) * times)
    sounds += 0.02 * torch.randn(sounds.shape, generator=drawn)
    return images, sounds[:, None].expand(-1, 2, -1) if network.audio_channels == 2 else sounds


def maps_at(network: nn.Module, *inputs: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """The output shape of every convolution, linear layer and pool, without the batch."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if isinstance(module, (*COMPUTED, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)):
            module.register_forward_hook(
                lambda _, __, outputs, name=name: shapes.update({name: tuple(outputs.shape[1:])})
            )
    network(*inputs)
    return shapes


def parameters(module: nn.Module) -> int:
    return sum(values.numel() for values in module.parameters())


def on_meta(name: str, stride: int | None = None) -> tuple[Correspondence, torch.Tensor, torch.Tensor]:
    """A network of the papers' size that takes no memory, with two pairs for it."""
    with torch.device("meta"):
        network = build_correspondence(name, width=1, image_size=224, stride=stride or PAPERS_STRIDE[name]).eval()
        network.to("meta")  # the spectrogram's window, which is made on the CPU
        frames = [network.frames] if network.frames > 1 else []
        channels = [2] if network.audio_channels == 2 else []
        images = torch.zeros(2, *frames, 3, 224, 224, dtype=torch.uint8)
        return network, images, torch.zeros(2, *channels, network.audio_samples)


@pytest.mark.parametrize(
    ("stride", "images", "sounds"),
    [
        (1, (224, 112, 56, 28), ((257, 199), (128, 99), (64, 49), (32, 24))),
        (2, (112, 56, 28, 14), ((129, 100), (64, 50), (32, 25), (16, 12))),
    ],
)
def test_both_towers_have_the_papers_maps_at_every_layer(stride, images, sounds):
    network, *inputs = on_meta("l3", stride)
    actual = maps_at(network, *inputs)
    for tower, sides in (("image_tower", [(side, side) for side in images]), ("audio_tower", sounds)):
        for block, (channels, side) in enumerate(zip((64, 128, 256, 512), sides, strict=True), 1):
            for place in (1, 2):
                assert actual[f"{tower}.conv{block}_{place}"] == (channels, *side)
            if block < 4:
                assert actual[f"{tower}.pool{block}"] == (channels, *sides[block]) if stride == 1 else True
                assert actual[f"{tower}.pool{block}"][0] == channels
        assert f"{tower}.pool4" not in actual  # the head pools over all positions instead
    assert network.image_maps(inputs[0]).shape == (2, 512, images[3], images[3])
    assert network.audio_maps(inputs[1]).shape == (2, 512, *sounds[3])


HEADS = {
    "l3": {"fc1": (128,), "fc2": (2,)},
    "ave": {"image_head.0": (128,), "image_head.2": (128,), "audio_head.0": (128,), "audio_head.2": (128,)},
    "avol": {"position_head.0": (14, 14, 128), "position_head.2": (14, 14, 128), "audio_head.0": (128,)}
    | {"audio_head.2": (128,)},
}
# Of one 3x3 tower without its first layer: 9 (64 64 + 64 128 + 128 128 + 128 256 + 256 256 + 256 512 + 512 512)
# = 9 * 520,192 weights, and two of batch norm for each of 2 (64 + 128 + 256 + 512) = 1920 channels.
REST_OF_A_TOWER = 9 * 520_192 + 2 * 1920
BOTH_TOWERS = 2 * REST_OF_A_TOWER + 9 * (3 + 1) * 64  # colors and spectrograms
EMBED = (512 * 128 + 128) + (128 * 128 + 128)  # of one modality: 82,176
PARAMETERS = {
    "l3": BOTH_TOWERS + (1024 * 128 + 128) + (128 * 2 + 2),  # 9,504,898
    "ave": BOTH_TOWERS + 2 * EMBED + (2 + 2),
    "avol": BOTH_TOWERS + 2 * EMBED + (1 + 1),
}


@pytest.mark.parametrize("name", TOWERS)
def test_heads_and_parameters_are_the_papers(name):
    network, *inputs = on_meta(name)
    actual = maps_at(network, *inputs)
    assert {layer: shape for layer, shape in actual.items() if "tower" not in layer} == HEADS[name]
    assert network(*inputs).shape == (2,)
    assert parameters(network) == PARAMETERS[name]


# Weights of kernels times channels in and out, and two for each channel of a batch norm.
MULTISENSORY = {
    "sound.0": 65 * 2 * 64 + 2 * 64,
    "sound.2": 15 * 64 * 128 + 15 * 128 * 128 + 64 * 128 + 3 * 2 * 128,  # with a shortcut of kernel 1
    "sound.3": 2 * 15 * 128 * 128 + 2 * 2 * 128,
    "sound.4": 15 * 128 * 256 + 15 * 256 * 256 + 128 * 256 + 3 * 2 * 256,
    "audio_last": 3 * 256 * 128 + 2 * 128,
    "images.0": 5 * 7 * 7 * 3 * 64 + 2 * 64,
    "images.2": 2 * 27 * 64 * 64 + 2 * 2 * 64,
    "images.3": 2 * 27 * 64 * 64 + 2 * 2 * 64,
    "merge": (64 + 128) * 512 + 2 * 512 + 512 * 128,
    "merge_norm": 2 * 128,
    "both.0": 2 * 27 * 128 * 128 + 2 * 2 * 128,
    "both.1": 2 * 27 * 128 * 128 + 2 * 2 * 128,
    "both.2": 27 * 128 * 256 + 27 * 256 * 256 + 128 * 256 + 3 * 2 * 256,
    "both.3": 2 * 27 * 256 * 256 + 2 * 2 * 256,
    "both.4": 27 * 256 * 512 + 27 * 512 * 512 + 256 * 512 + 3 * 2 * 512,
    "both.5": 2 * 27 * 512 * 512 + 2 * 2 * 512,
    "logit": 512 + 1,
}
# 125 frames, halved three times in time by the layers that halve, and in space by those and the pool.
MULTISENSORY_MAPS = {
    "sound.0.0": (64, 21_897),
    "sound.1": (64, 5475),
    "sound.2.second": (128, 1369),
    "sound.3.second": (128, 343),
    "sound.4.second": (256, 86),
    "audio_last.0": (128, 32),
    "images.0.0": (64, 63, 112, 112),
    "images.1": (64, 63, 56, 56),
    "images.2.second": (64, 63, 56, 56),
    "images.3.second": (64, 32, 28, 28),
    "merge.0.0": (512, 32, 28, 28),
    "merge.1": (128, 32, 28, 28),
    "both.0.second": (128, 32, 28, 28),
    "both.1.second": (128, 32, 28, 28),
    "both.2.second": (256, 16, 14, 14),
    "both.3.second": (256, 16, 14, 14),
    "both.4.second": (512, 16, 7, 7),
    "both.5.second": (512, 16, 7, 7),
    "logit": (1,),
}


def test_the_multisensory_network_has_the_released_codes_layers_and_parameters():
    network, *inputs = on_meta("multisensory")
    actual = maps_at(network, *inputs)
    assert {layer: actual[layer] for layer in MULTISENSORY_MAPS} == MULTISENSORY_MAPS
    assert {layer: parameters(network.get_submodule(layer)) for layer in MULTISENSORY} == MULTISENSORY
    assert parameters(network) == sum(MULTISENSORY.values()) == 36_048_961
    assert network.localization_map(*inputs).shape == (2, 7, 7)


def receptive_fields(layers: Iterable[str], network: nn.Module, inputs: torch.Tensor) -> dict[str, list[int]]:
    """The receptive field of every layer along each axis, by the gradient of a linear copy of the network."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
                average = getattr(nn, type(child).__name__.replace("Max", "Avg"))
                setattr(module, name, average(child.kernel_size, child.stride, child.padding, child.ceil_mode))
            elif isinstance(child, nn.ReLU | nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, COMPUTED):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
    outputs: dict[str, torch.Tensor] = {}
    for name in layers:
        network.get_submodule(name).register_forward_hook(lambda _, inputs, out, name=name: outputs.update({name: out}))
    inputs = inputs.double().requires_grad_()
    network.double()(inputs)
    fields = {}
    for name, out in outputs.items():
        middle = out[0, 0][tuple(side // 2 for side in out.shape[2:])]
        image_index = torch.autograd.grad(middle, inputs, retain_graph=True)[0][0, 0] != 0
        axes = range(image_index.dim())
        spread = [
            image_index.amax([other for other in axes if other != axis]) if image_index.dim() > 1 else image_index
            for axis in axes
        ]
        fields[name] = [int(along.sum()) for along in spread]
    return fields


# A 3x3 convolution adds 2 positions of its input, a pool 1; from block to block positions are twice as far apart.
FIELDS = {
    1: {"conv1_1": 3, "conv1_2": 5, "pool1": 6, "conv2_1": 10, "conv2_2": 14, "pool2": 16, "conv3_1": 24}
    | {"conv3_2": 32, "pool3": 36, "conv4_1": 52, "conv4_2": 68},
    2: {"conv1_1": 3, "conv1_2": 7, "pool1": 9, "conv2_1": 17, "conv2_2": 25, "pool2": 29, "conv3_1": 45}
    | {"conv3_2": 61, "pool3": 69, "conv4_1": 101, "conv4_2": 133},
}


@pytest.mark.parametrize("stride", [1, 2])
def test_a_towers_units_see_as_far_as_worked_out_by_hand(stride):
    tower = Tower(1, width=1 / 64, stride=stride)
    actual = receptive_fields(FIELDS[stride], tower, torch.ones(1, 1, 224, 224))
    assert actual == {layer: [side, side] for layer, side in FIELDS[stride].items()}


# Frames and px: 5 x 7 x 7 at stride 2; the pool adds 2 positions of 2 px, a convolution 2 of 2 or 4 frames, 4 or 8 px.
SEQUENCE_FIELDS = {"0.0": (5, 7, 7), "1": (5, 11, 11), "2": (13, 27, 27), "3": (25, 51, 51)}
SOUND_FIELDS = {"0.0": 65, "1": 65 + 3 * 4, "2": 77 + 14 * 16 + 14 * 64, "3": 1197 + 14 * 64 + 14 * 256}
SOUND_FIELDS["4"] = 5677 + 14 * 256 + 14 * 1024  # 23,597 samples, 1.12 s


def test_the_multisensory_networks_units_see_as_far_as_worked_out_by_hand():
    network = Multisensory(width=1 / 64, image_size=64, frames=32)
    actual = receptive_fields(SEQUENCE_FIELDS, network.images, torch.ones(1, 3, 32, 112, 112))
    assert {layer: tuple(sides) for layer, sides in actual.items()} == SEQUENCE_FIELDS
    actual = receptive_fields(SOUND_FIELDS, network.sound, torch.ones(1, 2, 87_588))
    assert actual == {layer: [samples] for layer, samples in SOUND_FIELDS.items()}


SLOW = {"l3", "multisensory"}  # at the papers' size


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in PAPERS_STRIDE]
)
def test_one_step_of_training_at_the_papers_size_reaches_all_weights(name):
    network = at_papers_size(name)
    give_scores(network)
    inputs = pairs_for(network, 1 if name == "multisensory" else 2)
    before = {key: values.clone() for key, values in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    log_odds = network(*inputs)
    is_match = torch.arange(len(log_odds)) % 2
    functional.binary_cross_entropy_with_logits(log_odds, is_match.float()).backward()
    optimizer.step()
    assert torch.isfinite(log_odds).all()
    for key, values in network.named_parameters():
        assert torch.isfinite(values).all(), key
        assert values.grad.any(), key
        assert not torch.equal(values, before[key]), key


def give_scores(network: Correspondence) -> None:
    """A last layer that is not zero."""
    for last in ("fc2", "logit"):
        if hasattr(network, last):
            nn.init.normal_(getattr(network, last).weight)


@pytest.mark.slow  # test_objectives.py has the fast ones
@pytest.mark.parametrize("name", CORRESPONDENCES)
def test_every_network_overfits_one_batch(name):
    network = build(name, width=1 / 8, image_size=32).train()
    images, sounds = pairs_for(network, 4)
    network.fit_audio_scale(sounds)
    sounds = torch.cat([sounds, sounds.roll(2, 0)])
    images, is_match = torch.cat([images, images]), torch.arange(8) < 4
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        log_odds = network(images, sounds)
        loss = functional.binary_cross_entropy_with_logits(log_odds, is_match.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.693, abs=0.35)
    assert ((log_odds > 0) == is_match).all()
    assert losses[-1] < 0.4


@pytest.mark.parametrize("name", CORRESPONDENCES)
def test_weights_depend_on_the_seed_alone(name):
    one, other = (build(name).state_dict() for _ in range(2))
    assert all(torch.equal(values, other[key]) for key, values in one.items())
    torch.manual_seed(1)
    another = build_correspondence(name, **SMALL).state_dict()
    assert any(not torch.equal(values, one[key]) for key, values in another.items())


@pytest.mark.parametrize("name", CORRESPONDENCES)
def test_half_precision_gives_log_odds_of_float32_near_those_of_full(name):
    network = build(name).eval()
    give_scores(network)
    inputs = pairs_for(network, 3)
    with torch.inference_mode():
        whole = network(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(*inputs)
    assert half.dtype == whole.dtype == torch.float32
    assert torch.allclose(half, whole, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", CORRESPONDENCES)
def test_pairs_that_share_images_and_sounds_are_scored_as_each_by_itself(name):
    network = build(name).eval()
    give_scores(network)
    images, sounds = pairs_for(network, 3)
    image_index, audio_index = torch.tensor([0, 1, 2, 0, 2]), torch.tensor([0, 1, 2, 1, 0])
    with torch.inference_mode():
        actual, expected = (
            network(images, sounds, image_index, audio_index),
            network(images[image_index], sounds[audio_index]),
        )
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert actual.std() > 0


@pytest.mark.parametrize("name", CORRESPONDENCES)
def test_pairs_are_even_before_training(name):
    network = build(name, width=1 / 8, image_size=64).eval()
    inputs = pairs_for(network, 8)
    network.calibrate_bias(*inputs)
    with torch.inference_mode():
        assert abs(network(*inputs).mean()) < 0.3
        if name == "avol":
            assert abs(network(*inputs).mean()) < 1e-5


def test_ave_begins_with_the_correct_sign_and_reports_a_wrong_one():
    for seed in range(5):
        torch.manual_seed(seed)
        network = AVENet(width=1 / 16, image_size=32)
        assert network.sign_is_correct()
        near, far = network.fc3(torch.tensor([[0.2], [1.8]])).diff(dim=1)
        assert near > 0 > far
    with torch.no_grad():
        network.fc3.weight.neg_()
    assert not network.sign_is_correct()


def test_aves_last_layer_may_start_as_kims_or_at_random():
    network = AVENet(width=1 / 16, image_size=32)
    network.set_last_layer("kim")  # model/avenet.py of commit 8a60535; there the first score is that of a match
    assert network.fc3.weight.flatten().tolist() == pytest.approx([0.7, -0.7])
    assert network.fc3.bias.tolist() == pytest.approx([-1.2, 1.2])
    weights = []
    for seed in range(600):
        torch.manual_seed(seed)
        network.set_last_layer("random")
        weights.append(torch.cat([network.fc3.weight.flatten(), network.fc3.bias]))
    drawn = torch.stack(weights).detach()  # torch draws from -1 to 1 for one input: variance 1/3
    assert drawn.abs().max() <= 1
    assert drawn.mean().item() == pytest.approx(0, abs=0.05)
    assert drawn.var().item() == pytest.approx(1 / 3, rel=0.05)


def test_aves_log_odds_fall_with_the_distance_of_embeddings_of_length_one():
    network = build("ave").eval()
    images, sounds = pairs_for(network, 4)
    image_index, audio_index = network.embed_images(images), network.embed_audio(sounds)
    assert image_index.shape == audio_index.shape == (4, 8)
    for embeddings in (image_index, audio_index):
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(4))
    distances = (image_index - audio_index).norm(dim=1)
    weights, biases = network.fc3.weight[:, 0], network.fc3.bias
    expected = (weights[1] - weights[0]) * distances + biases[1] - biases[0]
    assert torch.allclose(network(images, sounds), expected, atol=1e-5)


def test_ave_has_gradients_where_an_image_and_a_sound_coincide():
    network = build("ave")
    for part in (network.image_head, network.audio_head):
        nn.init.zeros_(part[2].weight)
        nn.init.ones_(part[2].bias)
    network(*pairs_for(network, 2)).sum().backward()
    assert all(torch.isfinite(values.grad).all() for values in network.parameters())


def test_avols_log_odds_are_the_best_position_of_its_map():
    network = build("avol").eval()
    images, sounds = pairs_for(network, 3)
    actual = network.localization_map(images, sounds)
    assert actual.shape == (3, 4, 4)
    assert torch.equal(network(images, sounds), actual.amax((1, 2)))
    places = network.position_head(torch.relu(network.image_maps(images)).permute(0, 2, 3, 1))
    units = network.audio_head(torch.relu(network.audio_maps(sounds)).amax((2, 3)))
    product = (places[1, 2, 3] * units[1]).sum()
    scale, bias = network.scale.item(), network.bias.item()
    assert actual[1, 2, 3].item() == pytest.approx(scale * product.item() + bias, rel=1e-4)
    assert scale > 0


def test_avols_positions_may_lack_a_relu_as_in_kims_code():
    ours, kims = build("avol").eval(), build("avol", position_relu=False).eval()
    assert kims.architecture["position_relu"] is False
    kims.load_state_dict(ours.state_dict())
    images, sounds = pairs_for(ours, 2)
    features = torch.relu(ours.image_maps(images)).permute(0, 2, 3, 1)
    first, _, second = ours.position_head
    torch.testing.assert_close(ours.project_positions(images), second(torch.relu(first(features))))
    torch.testing.assert_close(kims.project_positions(images), second(first(features)))
    torch.testing.assert_close(kims.features(images)["fc6"], first(features).amax((1, 2)))
    torch.testing.assert_close(kims.compared_audio(sounds), ours.compared_audio(sounds))


def test_avols_map_of_one_image_does_not_depend_on_the_others():
    network = build("avol").eval()
    images, sounds = pairs_for(network, 3)
    is_match, alone = network.localization_map(images, sounds), network.localization_map(images[1:2], sounds[1:2])
    assert torch.allclose(is_match[1:2], alone, atol=1e-5)


def test_the_mean_of_the_class_activation_map_is_the_score():
    network = build("multisensory").eval()
    give_scores(network)
    images, sounds = pairs_for(network, 2)
    actual = network.localization_map(images, sounds)
    assert actual.shape == (2, 2, 2)
    assert torch.allclose(actual.mean((1, 2)), network(images, sounds), atol=1e-4)


def test_the_multisensory_network_uses_both_channels_and_their_timing():
    network = build("multisensory").eval()
    give_scores(network)
    images, sounds = pairs_for(network, 2)
    before = network(images, sounds)
    for changed in (sounds.clone(), sounds.clone()):
        changed[0, 1, :8000] = 0
        assert network(images, changed)[0] != before[0]
        assert torch.allclose(network(images, changed)[1], before[1], atol=1e-5)


def test_a_quarter_of_the_frames_takes_the_same_weights_and_sounds():
    with torch.device("meta"):
        few = build_correspondence("multisensory", width=1, image_size=224, frames=32)
        whole = build_correspondence("multisensory", width=1, image_size=224)
        actual = maps_at(few, torch.zeros(1, 32, 3, 224, 224, dtype=torch.uint8), torch.zeros(1, 2, 87_588))
    assert {key: v.shape for key, v in few.state_dict().items()} == {k: v.shape for k, v in whole.state_dict().items()}
    assert actual["audio_last.0"] == (128, 8)
    assert actual["both.5.second"] == (512, 4, 7, 7)


def test_loudness_is_compressed_as_the_paper_says():
    actual = compressed(torch.tensor([-1.0, 0.0, 0.1, 1.0]))
    assert actual.tolist() == pytest.approx([-1, 0, 0.59099, 1], abs=1e-5)  # log(26.5) / log(256)


@pytest.mark.parametrize("name", TOWERS)
def test_training_sounds_set_the_scale_of_spectrograms(name):
    network = build(name)
    _, sounds = pairs_for(network, 70)  # more than are scaled at once
    network.fit_audio_scale(sounds * torch.linspace(0.1, 1, 70)[:, None])
    values = network.spectrogram(sounds * torch.linspace(0.1, 1, 70)[:, None])
    assert network.audio_mean.item() == pytest.approx(values.mean().item(), rel=1e-4)
    assert network.audio_std.item() == pytest.approx(values.std().item(), rel=1e-4)
    spectrograms = []
    network.audio_tower.register_forward_pre_hook(lambda _, inputs: spectrograms.append(inputs[0]))
    network.audio_maps(sounds[:2])
    expected = (network.spectrogram(sounds[:2]) - values.mean()) / values.std()
    assert torch.allclose(spectrograms[0], expected, atol=1e-3)


def test_silence_sets_no_scale():
    with pytest.raises(EarshotError, match="3 training sounds are silent or identical"):
        build("ave").fit_audio_scale(torch.zeros(3, 48_000))


@pytest.mark.parametrize("name", TOWERS)
def test_images_have_the_probe_layers(name):
    network = build(name, width=1 / 8, image_size=128).eval()
    images, _ = pairs_for(network, 2)
    with torch.inference_mode():
        features = network.features(images)
        conv5 = torch.relu(network.image_maps(images))  # (2, 64, 8, 8)
        assert torch.equal(network.convolve(network.normalize(images)), conv5)
        assert torch.equal(features["max5"], conv5.amax((2, 3)))
        assert torch.equal(features["pool5"], functional.max_pool2d(conv5, 2).flatten(1))
        assert torch.allclose(features["fc7"], network.embed_images(images), atol=1e-6)
    sizes = [features[layer].shape[1] for layer in LAYERS]
    assert sizes == [64, 64 * 16, *((64, 64) if name == "l3" else (16, 16))]
    for layer in LAYERS:
        assert torch.equal(network.features(images, (layer,))[layer], features[layer])


def test_at_the_papers_size_the_probed_map_has_8192_dimensions_and_the_sounds_6144():
    for stride in (1, 2):
        network, images, sounds = on_meta("l3", stride)
        assert network.features(images, ("pool5",))["pool5"].shape == (2, 8192)
        assert pooled(network.audio_maps(sounds), 4, 3).shape == (2, 6144)


@pytest.mark.parametrize("name", TOWERS)
def test_a_map_of_a_constant_image_equals_the_score(name):
    network = build(name).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    images, sounds = pairs_for(network, 2)
    maps = torch.randn(2, network.image_tower.channels, 3, 3)
    network.image_maps = lambda _: maps
    actual = network.localization_map(images, sounds)
    network.image_maps = lambda _: maps[:, :, 1:2, 2:3]
    torch.testing.assert_close(actual[:, 1, 2], network(images, sounds))
    assert actual.std() > 1e-3


def test_what_a_network_does_not_have_is_refused_with_one_that_does():
    network = build("multisensory")
    images, sounds = pairs_for(network, 1)
    refused = [
        (lambda: network.embed_images(images), "embedding"),
        (lambda: network.embed_audio(sounds), "embedding"),
        (lambda: network.image_maps(images), "image tower"),
        (lambda: network.audio_maps(sounds), "audio tower"),
        (lambda: network.features(images), "layers for single images"),
    ]
    for ask, thing in refused:
        with pytest.raises(EarshotError, match=f"multisensory has no {thing}.*; choose another network, such as ave"):
            ask()


def test_other_names_sizes_and_inputs_are_refused():
    with pytest.raises(EarshotError, match="correspond.network is 'l2', expected one of ave, avol, dual_encoder, l3, "):
        build("l2")
    with pytest.raises(EarshotError, match="correspond.image_size is 15; ave requires 16 px or more: raise it"):
        build("ave", image_size=15)
    assert build("ave", image_size=16, stride=2).eval()(*pairs_for(build("ave", image_size=16), 1)).shape == (1,)
    for name in ("ave", "multisensory"):
        network = build(name)
        images, sounds = pairs_for(network, 1)
        with pytest.raises(ValueError, match="images are torch.float32 of shape"):
            network(images.float(), sounds)
        with pytest.raises(ValueError, match="waveforms are torch.float32 of shape"):
            network(images, sounds[..., 1:])


@pytest.mark.parametrize("name", CORRESPONDENCES)
def test_a_network_may_be_laid_out_for_convolutions(name):
    network = build(name).eval()
    give_scores(network)
    inputs = pairs_for(network, 2)
    before = network(*inputs)
    assert torch.allclose(network.to("cpu", memory_format=torch.channels_last)(*inputs), before, atol=1e-4)


@pytest.fixture(params=CORRESPONDENCES)
def folder(request, tmp_path):
    """A folder of encoders as the stage correspond writes it, with all numbers changed from their initial values."""
    network = changed(request.param)
    save_architecture(tmp_path, network)
    for name in ("encoder", "random"):
        save_weights(tmp_path, name, network)
    return tmp_path


def changed(name: str) -> Correspondence:
    network = build(name)
    drawn = torch.Generator().manual_seed(2)
    for values in network.state_dict().values():
        values.data += (0.1 * torch.rand(values.shape, generator=drawn)).to(values.dtype)
    return network


def test_a_loaded_network_gives_the_same_numbers(folder):
    name = json.loads((folder / "encoder.json").read_text())["name"]
    network, loaded = changed(name).eval(), load_correspondence(folder, "random")
    inputs = pairs_for(network, 2)
    assert not loaded.training
    kept, actual = network.state_dict(), loaded.state_dict()
    assert kept.keys() == actual.keys() and all(torch.equal(kept[key], actual[key]) for key in kept)
    # 3-d convolutions may round otherwise where weights lie elsewhere in memory.
    torch.testing.assert_close(loaded(*inputs), network(*inputs), rtol=1e-5, atol=0)
    if isinstance(network, TwoTowers):
        assert torch.equal(loaded.embed_images(inputs[0]), network.embed_images(inputs[0]))
        assert torch.equal(loaded.embed_audio(inputs[1]), network.embed_audio(inputs[1]))
        assert loaded.audio_std == network.audio_std != 1
    else:
        torch.testing.assert_close(
            loaded.localization_map(*inputs), network.localization_map(*inputs), rtol=1e-5, atol=0
        )
    assert loaded.architecture == network.architecture
    loaded.train()(*inputs).sum().backward()  # and can be trained on


def test_probes_of_images_load_what_has_a_tower_of_images(folder):
    name = json.loads((folder / "encoder.json").read_text())["name"]
    if name == "multisensory":
        with pytest.raises(EarshotError, match="encoder.json: multisensory has no layers for single images"):
            load_encoder(folder)
    else:
        network = changed(name).eval()
        images, _ = pairs_for(network, 2)
        actual = load_encoder(folder, "random").features(images, LAYERS)
        for layer, values in network.features(images, LAYERS).items():
            assert torch.equal(actual[layer], values)


def test_what_trains_on_refuses_a_correspondence_network(folder):
    with pytest.raises(EarshotError, match="encoder.json: .* is a correspondence network; use one of the stage pre"):
        load_network(folder)


def rewrite(folder, **changes) -> None:
    actual = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({k: v for k, v in (actual | changes).items() if v is not None}))


DAMAGES = {
    "avol": {
        "another network": (
            {"name": "alexnet"},
            "encoder.json: classes of alexnet is 'missing'",
        ),
        "a classifier": (
            {
                "name": "alexnet",
                "stride": None,
                "spectrogram": None,
                "position_relu": None,
                "classes": 2,
                "dropout": 0.5,
            },
            "encoder.json: alexnet is no correspondence network; use one, such as ave",
        ),
        "no stride": ({"stride": None}, "encoder.json: stride of avol is 'missing'"),
        "a huge width": ({"width": 1e6}, "encoder.json: width of avol is 1000000.0: .* less than or equal to 4"),
        "no number": ({"width": float("nan")}, "encoder.json: width of avol is nan"),
        "stride 3": ({"stride": 3}, "encoder.json: stride of avol is 3: .* less than or equal to 2"),
        "another spectrogram": (
            {"spectrogram": "cepstrum"},
            "encoder.json: spectrogram of avol is 'cepstrum': .* 'linear' or 'mel'",
        ),
        "half a stride": ({"stride": 1.0}, "encoder.json: stride of avol is 1.0"),
        "a huge image": ({"image_size": 10**9}, "encoder.json: image_size of avol is 1000000000: .* 1024"),
        "another width": ({"width": 0.1}, r"encoder.safetensors: .* has shape \(4, 3, 3, 3\); the network of"),
    },
    "multisensory": {
        "many frames": ({"frames": 10**9}, "encoder.json: frames of multisensory is 1000000000: .* 1000"),
        "a long sound": ({"audio_samples": 10**12}, "encoder.json: audio_samples of multisensory is 1000000000000: "),
        "true": ({"frames": True}, "encoder.json: frames of multisensory is True: .* valid integer"),
    },
}


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, those in DAMAGES.items() for damage in those])
def test_a_hostile_architecture_is_refused_by_name(name, damage, tmp_path):
    network = changed(name)
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    changes, message = DAMAGES[name][damage]
    rewrite(tmp_path, **changes)
    with pytest.raises(EarshotError, match=message):
        load_correspondence(tmp_path)


@pytest.mark.parametrize("name", [*TOWERS, "dual_encoder"])
def test_a_network_of_mel_spectrograms_is_loaded_as_it_was_saved(name, tmp_path):
    network = build(name, spectrogram="mel").eval()
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    images, sounds, *_ = pairs_for(network, 2)
    loaded = load_correspondence(tmp_path)
    assert loaded.architecture["spectrogram"] == "mel"
    assert loaded.audio_maps(sounds).shape[2:] == (4, 6)  # 64 x 98 at stride 2 and after three pools
    torch.testing.assert_close(loaded(images, sounds), network(images, sounds), rtol=1e-5, atol=0)
    # Masks cover bands and windows, whatever their number.
    loaded.train().mask_spectrograms(0.5, 0.5)
    assert torch.isfinite(loaded(images, sounds)).all()


def test_a_frontend_that_is_missing_from_the_weights_is_refused(tmp_path):
    network = changed("ave")
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    tensors = load_file(tmp_path / "encoder.safetensors")
    del tensors["audio_std"]
    save_file(tensors, tmp_path / "encoder.safetensors")
    with pytest.raises(EarshotError, match="no tensor audio_std, .* encoder.json requires; run the stage correspond"):
        load_correspondence(tmp_path)


def test_avol_at_two_strides_has_maps_of_two_sizes():
    for stride, side in ((1, 8), (2, 4)):
        network = AVOLNet(width=1 / 16, image_size=64, stride=stride).eval()
        assert network.localization_map(*pairs_for(network, 1)).shape == (1, side, side)
