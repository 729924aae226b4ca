"""Networks have the papers' shapes and learn, and their files restore the same numbers or are refused by name."""

import json
import pickle
import warnings

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.networks.backbones import build_network
from earshot.networks.backbones.alexnet import AlexNet
from earshot.networks.files import load_encoder, load_weights, save_architecture, save_weights
from earshot.networks.layer_taps import torchvision_names
from earshot.networks.network import Network

LAYERS = AlexNet.probe_layers
BACKBONES = ["alexnet", "caffenet", "resnet18"]
SMALL = {"classes": 5, "width": 0.1, "image_size": 64, "dropout": 0.2}


def random_images(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def build(name: str, classes: int = 5, image_size: int = 67, dropout: float = 0.2) -> Network:
    """A network of the papers' width, or a narrow AlexNet or CaffeNet for small images."""
    width = 0.1 if name in ("alexnet", "caffenet") and image_size < 200 else 1.0
    torch.manual_seed(0)
    return build_network(name, classes=classes, width=width, image_size=image_size, dropout=dropout)


def give_scores(network: Network) -> None:
    """An output layer that is not zero."""
    nn.init.normal_(network.fully_connected[-1].weight)


def trained_looking() -> AlexNet:
    """A network with all weights changed from their initial values."""
    torch.manual_seed(0)
    network = AlexNet(**SMALL)
    for values in [*network.parameters(), *network.buffers()]:
        values.data += torch.rand(values.shape).to(values.dtype)
    return network


@pytest.fixture
def folder(tmp_path):
    """A folder of encoders as the stage pretrain writes it."""
    network = trained_looking()
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "sides", "depths"),
    [
        ("alexnet", (56, 27, 13, 13, 13), (3, 96, 256, 384, 384)),
        ("caffenet", (55, 27, 13, 13, 13), (3, 48, 256, 192, 192)),
    ],
)
def test_full_width_has_the_papers_layers_and_parameters(name, sides, depths):
    with torch.device("meta"):
        network = build(name, classes=30, image_size=227).eval()
        features = network.features(torch.zeros(1, 3, 227, 227, dtype=torch.uint8))
        blocks = [network.convolutions[: place + 1] for place in range(len(network.convolutions))]
        maps = [block(torch.zeros(1, 3, 227, 227)).shape[1:] for block in blocks if isinstance(block[-1], nn.Conv2d)]
    channels = (96, 256, 384, 384, 256)
    assert maps == [(wide, side, side) for wide, side in zip(channels, sides, strict=True)]
    assert {layer: rows.shape[1] for layer, rows in features.items()} == dict(
        zip(LAYERS, (256, 256 * 6 * 6, 4096, 4096), strict=True)
    )
    kernels = (121, 25, 9, 9, 9)
    convolutions = sum(wide * deep * area for wide, deep, area in zip(channels, depths, kernels, strict=True))
    fully_connected = 9217 * 4096 + 4097 * 4096 + 4097 * 30
    assert sum(p.numel() for p in network.parameters()) == convolutions + 2 * sum(channels) + fully_connected


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.689512), ("resnet50", 25.557032)])
def test_resnets_have_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        network = build(name, classes=1000, image_size=224)
    assert sum(p.numel() for p in network.parameters()) == round(millions * 1e6)


# Of images of 224 px: max5, pool5, fc6 and fc7, and the positions of conv5 along a side when a max pool follows it.
FEATURES = {
    "resnet18": (512, 512 * 9, 256, 512),
    "resnet50": (2048, 2048 * 9, 1024, 2048),
    "vgg11_bn": (512, 512 * 49, 4096, 4096),  # its own pool and hidden layers
    "torchvision-alexnet": (256, 256 * 36, 4096, 4096),
    "mobilenet_v3_small": (576, 576 * 9, 576, 1024),  # one hidden layer
    "squeezenet1_1": (512, 512 * 36, 256, 512),  # its output layer is a convolution
    "googlenet": (1024, 1024 * 9, 832, 1024),
    "densenet121": (1024, 1024 * 9, 512, 1024),
    "regnet_y_400mf": (440, 440 * 9, 208, 440),
    "shufflenet_v2_x0_5": (1024, 1024 * 9, 96, 1024),
}


SLOW = {"googlenet", "densenet121", "regnet_y_400mf", "shufflenet_v2_x0_5"}  # to build and to trace


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in FEATURES])
def test_every_family_has_the_layers_of_one_rule(name):
    with torch.device("meta"):
        network = build(name, classes=7, image_size=224).eval()
        images = torch.zeros(2, 3, 224, 224, dtype=torch.uint8)
        features = network.features(images)
        conv5 = network.convolve(torch.zeros(2, 3, 224, 224))
        hidden = network.hidden(torch.zeros(2, conv5.shape[1], network.pooled_side, network.pooled_side))
        assert network(images).shape == (2, 7)
    assert tuple(features[layer].shape[1] for layer in LAYERS) == FEATURES[name]
    assert hidden.shape == features["fc7"].shape
    assert conv5.shape[3] == 224 // network.stride - (network.stride == 16 and "vgg" not in name)
    assert network.left_out == (("aux1", "aux2") if name == "googlenet" else ())


@pytest.mark.slow
def test_all_of_torchvisions_classifiers_are_networks():
    for name in torchvision_names():
        with torch.device("meta"):
            network = build(name, image_size=224).eval().to("meta")  # Swin 2 keeps some numbers in memory
            assert network(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, 5)


def test_a_resnets_layers_are_its_last_stages():
    network = build("resnet18", image_size=96).eval()
    body, images = network.body, random_images(2, 96)
    with torch.inference_mode():
        features = network.features(images)
        first = body.maxpool(body.relu(body.bn1(body.conv1(network.normalize(images)))))
        third = body.layer3(body.layer2(body.layer1(first)))
        fourth = body.layer4(third)  # (2, 512, 3, 3)
    assert torch.equal(features["fc6"], third.mean((2, 3)))
    assert torch.allclose(features["fc7"], fourth.mean((2, 3)))
    assert torch.equal(features["max5"], fourth.amax((2, 3)))
    assert torch.equal(features["pool5"], functional.max_pool2d(fourth, 3, 2).flatten(1))


def test_a_hidden_layer_after_the_average_is_fc7_and_the_average_fc6():
    network = build("mobilenet_v3_small", image_size=64).eval()
    images = random_images(2, 64)
    with torch.inference_mode():
        features = network.features(images)
        conv5 = network.body.features(network.normalize(images))  # (2, 576, 2, 2)
    assert torch.allclose(features["fc6"], conv5.mean((2, 3)))
    assert torch.allclose(features["fc7"], network.body.classifier[:3](conv5.mean((2, 3))))
    assert torch.equal(features["pool5"], conv5.flatten(1))  # two positions a side are not pooled


def test_half_width_at_112_px_has_a_2_by_2_pool5():
    network = AlexNet(classes=30, width=0.5, image_size=112)
    assert network.pooled_side == 2
    assert network.fc6[1].weight.shape == (2048, 128 * 2 * 2)


# rowhanm/ambient-sound-self-supervision, utils/models.py; BVLC/caffe, drop6 and drop7 of CaffeNet's train_val.prototxt.
@pytest.mark.parametrize(
    ("name", "kinds"),
    [("alexnet", [nn.Dropout, nn.Linear, nn.ReLU]), ("caffenet", [nn.Linear, nn.ReLU, nn.Dropout])],
)
def test_dropout_is_where_the_published_networks_have_it(name, kinds):
    network = build(name, dropout=0.4)
    for layer in (network.fc6, network.fc7):
        assert [type(module) for module in layer] == kinds
        assert next(module.p for module in layer if isinstance(module, nn.Dropout)) == 0.4


def test_max5_is_the_maximum_of_conv5_and_pool5_its_pooled_map():
    network = AlexNet(**SMALL | {"image_size": 112}).eval()
    depths = []
    network.convolutions.register_forward_hook(lambda layer, inputs, outputs: depths.append(outputs.clone()))
    features = network.features(random_images(3, 112))
    assert torch.equal(features["max5"], depths[0].flatten(2).amax(2))
    pooled = torch.nn.functional.max_pool2d(depths[0], 3, 2)
    assert torch.equal(features["pool5"], pooled.flatten(1))
    assert all((rows >= 0).all() for rows in features.values())  # after the ReLU


def test_one_layer_alone_is_what_it_is_among_all():
    network = AlexNet(**SMALL).eval()
    images = random_images(2, 64)
    together = network.features(images)
    for layer in LAYERS:
        assert list(alone := network.features(images, (layer,))) == [layer]
        assert torch.equal(alone[layer], together[layer])
    assert torch.equal(network(images), network.fc8(together["fc7"]))


@pytest.mark.parametrize("name", BACKBONES)
def test_an_image_runs_through_the_steps_a_detector_uses(name):
    network = build(name).eval()
    give_scores(network)
    with torch.inference_mode():
        pooled = network.pool(network.convolve(network.normalize(random_images(2, 67))))
        assert pooled.shape[2:] == (network.pooled_side, network.pooled_side)
        hidden = network.hidden(pooled)
        assert torch.equal(hidden, network.features(random_images(2, 67), ("fc7",))["fc7"])
        assert torch.equal(network.fully_connected[-1](hidden), network(random_images(2, 67)))
        wide = torch.zeros(1, 3, 96, 96 + 2 * network.stride, dtype=torch.uint8)
        maps = network.convolve(network.normalize(wide))
    assert maps.shape[3] == maps.shape[2] + 2  # images of any size


@pytest.mark.parametrize("name", BACKBONES)
def test_a_new_network_finds_all_classes_equally_likely(name):
    assert torch.equal(build(name)(random_images(2, 67)), torch.zeros(2, 5))


@pytest.mark.parametrize("name", BACKBONES)
def test_random_weights_do_not_depend_on_the_number_of_classes(name):
    few, many = (build(name, classes=classes).state_dict() for classes in (2, 30))
    output = tuple(key for key in few if few[key].shape != many[key].shape)
    assert len(output) == 2
    assert all(torch.equal(few[key], many[key]) for key in few if key not in output)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_renewed_head_has_its_classes_and_leaves_the_convolutions_alone(name):
    network = build(name)
    give_scores(network)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.renew_fully_connected(9)
    head = network.fully_connected_names
    for key, tensor in network.state_dict().items():
        changed = tensor.shape != before[key].shape or not torch.equal(tensor, before[key])
        assert changed == key.startswith(head) or key.endswith("bias")
    assert network.architecture["classes"] == 9
    assert torch.equal(network(random_images(2, 67)), torch.zeros(2, 9))


@pytest.mark.parametrize("name", [*BACKBONES, pytest.param("resnet50", marks=pytest.mark.slow)])
def test_a_network_overfits_one_batch(name):
    network = build(name, classes=8, dropout=0.0)
    images, labels = random_images(8, 67), torch.arange(8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(60):
        scores = network(images)
        if (scores.argmax(1) == labels).all():
            break
        optimizer.zero_grad()
        functional.cross_entropy(scores, labels).backward()
        optimizer.step()
    assert torch.equal(scores.argmax(1), labels)


@pytest.mark.parametrize("images", [random_images(1, 65), random_images(1, 64).float(), random_images(1, 64)[:, :1]])
def test_images_of_another_size_or_type_are_refused(images):
    with pytest.raises(ValueError, match=r"requires torch.uint8 of shape \(images, \(3, 64, 64\)\)"):
        AlexNet(**SMALL)(images)


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="conv9"):
        AlexNet(**SMALL).features(random_images(1, 64), ("pool5", "conv9"))


@pytest.mark.parametrize(
    ("name", "size", "smallest"),
    [("alexnet", 62, 63), ("caffenet", 63, 67), pytest.param("inception_v3", 74, 75, marks=pytest.mark.slow)],
)
def test_too_small_an_image_is_refused_with_the_smallest(name, size, smallest):
    with pytest.raises(EarshotError, match=f"image_size is {size}; {name} requires {smallest} px or more: raise it"):
        build(name, image_size=size)


def test_a_loaded_encoder_gives_the_same_numbers(folder):
    network = trained_looking().eval()
    loaded = load_encoder(folder)
    assert not loaded.training
    assert loaded.architecture == network.architecture
    assert torch.equal(loaded(random_images(4, 64)), network(random_images(4, 64)))


def test_a_loaded_encoder_can_be_trained_on(folder):
    network = load_encoder(folder).train()
    network(random_images(2, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def change_json(folder, **values):
    path = folder / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder, change):
    path = folder / "encoder.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


class Trap:
    """The payload of a hostile pickle."""

    def __reduce__(self):
        return (pytest.fail, ("a weights file was unpickled",))


DAMAGES = {
    "no encoder.json": (lambda f: (f / "encoder.json").unlink(), "encoder.json: cannot be read"),
    "broken JSON": (lambda f: (f / "encoder.json").write_text("{"), "encoder.json: is not JSON"),
    "a list": (lambda f: (f / "encoder.json").write_text("[1]"), r"encoder.json: name is \[1\]"),
    "another network": (lambda f: change_json(f, name="resnet"), "encoder.json: pretrain.backbone is 'resnet'"),
    "another key": (lambda f: change_json(f, depth=3), "encoder.json: depth of alexnet is 3: Extra inputs"),
    "a huge width": (lambda f: change_json(f, width=1e6), "width of alexnet is 1000000.0: .* less than or equal to 4"),
    "a width of words": (lambda f: change_json(f, width="half"), "width of alexnet is 'half': .* a valid number"),
    "another width": (lambda f: change_json(f, width=0.2), r"has shape \(10, 3, 11, 11\); the network"),
    "no weights": (lambda f: (f / "encoder.safetensors").unlink(), "encoder.safetensors: cannot be read"),
    "half a file": (
        lambda f: (f / "encoder.safetensors").write_bytes((f / "encoder.safetensors").read_bytes()[:5000]),
        "encoder.safetensors: is not a complete safetensors file",
    ),
    "a pickle": (
        lambda f: (f / "encoder.safetensors").write_bytes(pickle.dumps(Trap())),
        "encoder.safetensors: is a pickle, not a complete safetensors file",
    ),
    "a tensor less": (lambda f: change_tensors(f, lambda t: t.pop("fc8.bias")), "no tensor fc8.bias.* run the stage"),
    "a tensor more": (lambda f: change_tensors(f, lambda t: t.update(fc9=torch.ones(1))), "holds fc9.* run the stage"),
    "half precision": (
        lambda f: change_tensors(f, lambda t: t.update({"fc8.bias": t["fc8.bias"].half()})),
        "fc8.bias is torch.float16; the network requires torch.float32; run the stage pretrain again",
    ),
    "not a number": (
        lambda f: change_tensors(f, lambda t: t["fc8.bias"].fill_(float("nan"))),
        "fc8.bias holds values that are not finite",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_encoder_is_refused_by_name(folder, damage):
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(EarshotError, match=message):
        load_encoder(folder)


def test_an_unknown_name_is_refused_with_the_names_there_are(folder):
    with pytest.raises(
        EarshotError, match=r"unknown encoder '\.\./\.\./secret'; expected one of encoder, wrong_sound, random"
    ):
        load_encoder(folder, "../../secret")


def test_an_encoder_of_torchvisions_gives_the_same_numbers(tmp_path):
    network = build("mnasnet0_5", image_size=64)  # its weights have a version, which safetensors do not keep
    give_scores(network)
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    loaded = load_encoder(tmp_path)
    assert torch.equal(loaded(random_images(2, 64)), network.eval()(random_images(2, 64)))


BACKBONE_MISTAKES = {
    "resnet-18": ({}, "pretrain.backbone is 'resnet-18', .*; the nearest is resnet18"),
    "caffnet": ({}, "the nearest is caffenet"),
    "resnet18": ({"width": 0.5}, "pretrain.width is 0.5; resnet18 has a single width, expected 1"),
}


@pytest.mark.parametrize("name", BACKBONE_MISTAKES)
def test_a_wrong_backbone_is_refused_with_what_is_expected(name):
    change, message = BACKBONE_MISTAKES[name]
    with pytest.raises(EarshotError, match=message):
        build_network(name, **{"classes": 2, "width": 1.0, "image_size": 64, "dropout": 0.0} | change)


def test_torchvisions_own_weights_give_torchvisions_own_scores(tmp_path):
    torch.manual_seed(1)
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    save_file(theirs.state_dict(), tmp_path / "resnet18.safetensors")
    network = build("resnet18").eval()
    load_weights(network, tmp_path / "resnet18.safetensors")
    assert torch.equal(network(random_images(2, 67)), theirs(network.normalize(random_images(2, 67))))


@pytest.mark.slow
def test_auxiliary_classifiers_in_a_file_are_passed_over(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = torchvision.models.googlenet(num_classes=5, init_weights=False)
    save_file(theirs.state_dict(), tmp_path / "googlenet.safetensors")
    network = build("googlenet")
    load_weights(network, tmp_path / "googlenet.safetensors")
    assert torch.equal(network.body.conv1.conv.weight, theirs.conv1.conv.weight)


@pytest.fixture
def stranger(tmp_path):
    """The weights of a small AlexNet as another program might have written them."""
    return tmp_path / "stranger.safetensors", dict(trained_looking().state_dict())


def loaded_small(file) -> Network:
    network = AlexNet(**SMALL).eval()
    load_weights(network, file)
    return network


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "module.network."])
def test_weights_are_read_after_the_usual_prefixes(stranger, prefix):
    file, tensors = stranger
    save_file({prefix + key: tensor for key, tensor in tensors.items()}, file)
    assert torch.equal(loaded_small(file)(random_images(2, 64)), trained_looking().eval()(random_images(2, 64)))


def test_weights_of_half_precision_and_without_counts_are_read(stranger):
    file, tensors = stranger
    save_file({k: t.half() for k, t in tensors.items() if t.is_floating_point() and "channel" not in k}, file)
    network = loaded_small(file)
    assert network.fc6[1].weight.dtype == torch.float32
    assert torch.equal(network.fc6[1].weight, tensors["fc6.1.weight"].half().float())


def test_an_output_layer_for_other_classes_stays_as_it_is_with_a_warning(stranger):
    file, tensors = stranger
    save_file(tensors | {"fc8.weight": torch.ones(9, 410), "fc8.bias": torch.ones(9)}, file)
    with pytest.warns(UserWarning, match="the output layer has 9 classes, expected 5"):
        network = loaded_small(file)
    assert torch.equal(network.fc8.weight, torch.zeros(5, 410))
    assert torch.equal(network.fc7[1].weight, tensors["fc7.1.weight"])


WEIGHTS_MISTAKES = {
    "a tensor less": (lambda t: t.pop("fc7.1.bias"), "has no tensor fc7.1.bias, which alexnet .* set pretrain"),
    "a tensor more": (lambda t: t.update(fc9=torch.ones(1)), "holds fc9, which alexnet .* set pretrain"),
    "another shape": (
        lambda t: t.update({"fc6.1.bias": torch.ones(7)}),
        r"fc6.1.bias has shape \(7,\); .* requires \(410,\); set pretrain.backbone",
    ),
    "another output": (lambda t: t.update({"fc8.weight": torch.ones(9, 7)}), r"fc8.weight has shape \(9, 7\)"),
    "whole numbers": (
        lambda t: t.update({"fc6.1.bias": torch.ones(410, dtype=torch.int8)}),
        "fc6.1.bias is torch.int8",
    ),
    "too large": (
        lambda t: t.update({"fc6.1.bias": torch.full((410,), 1e300, dtype=torch.float64)}),
        "fc6.1.bias holds values that are not finite",
    ),
    "the same twice": (lambda t: t.update({"module.fc6.1.bias": torch.ones(410)}), "holds both"),
}


@pytest.mark.parametrize("mistake", WEIGHTS_MISTAKES)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(stranger, mistake):
    file, tensors = stranger
    change, message = WEIGHTS_MISTAKES[mistake]
    change(tensors)
    save_file(tensors, file)
    network = AlexNet(**SMALL)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(EarshotError, match=message):
        load_weights(network, file)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_file_is_refused_unopened_with_how_to_convert_it(tmp_path, zipped):
    file = tmp_path / "weights.pth"
    torch.save({"trap": Trap()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(EarshotError, match=r"is a pickle, .* safetensors.torch.save_file .* correct pretrain.weights"):
        load_weights(AlexNet(**SMALL), file)


def test_weights_that_are_not_there_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(EarshotError, match="cannot be read"):
            load_weights(AlexNet(**SMALL), path)
