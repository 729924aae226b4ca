"""AlexNet has the papers' shape at every size, and its files give back the same numbers or are refused by name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from earshot.networks.alexnet import AlexNet
from earshot.networks.files import load_encoder, save_architecture, save_weights
from earshot.networks.network import LAYERS
from earshot.pipeline.errors import EarshotError

SMALL = {"classes": 5, "width": 0.1, "image_size": 64, "dropout": 0.2}


def pictures(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def trained_looking() -> AlexNet:
    """A network none of whose weights is what it was at first."""
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


def test_full_width_has_the_papers_layers_and_parameters():
    network = AlexNet(classes=30).eval()
    maps = []
    for layer in network.convolutions:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, made: maps.append(tuple(made.shape[1:])))
    with torch.inference_mode():
        features = network.features(pictures(1, 227))
    assert maps == [(96, 56, 56), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    assert {layer: rows.shape[1] for layer, rows in features.items()} == dict(
        zip(LAYERS, (256, 256 * 6 * 6, 4096, 4096), strict=True)
    )
    convolutions = 96 * 363 + 256 * 96 * 25 + 384 * 256 * 9 + 384 * 384 * 9 + 256 * 384 * 9
    batch_norms = 2 * (96 + 256 + 384 + 384 + 256)
    fully_connected = 9217 * 4096 + 4097 * 4096 + 4097 * 30
    assert sum(p.numel() for p in network.parameters()) == convolutions + batch_norms + fully_connected


def test_half_width_at_112_px_has_a_2_by_2_pool5():
    network = AlexNet(classes=30, width=0.5, image_size=112)
    assert network.pooled_side == 2
    assert network.fc6[1].weight.shape == (2048, 128 * 2 * 2)


def test_max5_is_the_maximum_of_conv5_and_pool5_its_pooled_map():
    network = AlexNet(**SMALL | {"image_size": 112}).eval()
    seen = []
    network.convolutions.register_forward_hook(lambda layer, given, made: seen.append(made.clone()))
    features = network.features(pictures(3, 112))
    assert torch.equal(features["max5"], seen[0].flatten(2).amax(2))
    pooled = torch.nn.functional.max_pool2d(seen[0], 3, 2)
    assert torch.equal(features["pool5"], pooled.flatten(1))
    assert all((rows >= 0).all() for rows in features.values())  # after the ReLU


def test_one_layer_alone_is_what_it_is_among_all():
    network = AlexNet(**SMALL).eval()
    images = pictures(2, 64)
    together = network.features(images)
    for layer in LAYERS:
        assert list(alone := network.features(images, (layer,))) == [layer]
        assert torch.equal(alone[layer], together[layer])
    assert torch.equal(network(images), network.fc8(together["fc7"]))


def test_a_new_network_finds_all_classes_equally_likely():
    assert torch.equal(AlexNet(**SMALL)(pictures(2, 64)), torch.zeros(2, 5))


@pytest.mark.parametrize("images", [pictures(1, 65), pictures(1, 64).float(), pictures(1, 64)[:, :1]])
def test_pictures_of_another_size_or_type_are_refused(images):
    with pytest.raises(ValueError, match=r"wants torch.uint8 of shape \(pictures, \(3, 64, 64\)\)"):
        AlexNet(**SMALL)(images)


def test_an_unknown_layer_and_too_small_a_picture_are_refused():
    with pytest.raises(ValueError, match="conv9"):
        AlexNet(**SMALL).features(pictures(1, 64), ("pool5", "conv9"))
    with pytest.raises(EarshotError, match="image_size is 62; alexnet wants 63 px or more"):
        AlexNet(classes=2, image_size=62)


def test_a_loaded_encoder_gives_the_same_numbers(folder):
    network = trained_looking().eval()
    loaded = load_encoder(folder)
    assert not loaded.training
    assert loaded.architecture == network.architecture
    assert torch.equal(loaded(pictures(4, 64)), network(pictures(4, 64)))


def test_a_loaded_encoder_can_be_trained_on(folder):
    network = load_encoder(folder).train()
    network(pictures(2, 64)).sum().backward()
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
    """What a hostile pickle would do when it is opened."""

    def __reduce__(self):
        return (pytest.fail, ("a weights file was unpickled",))


DAMAGES = {
    "no encoder.json": (lambda f: (f / "encoder.json").unlink(), "encoder.json: cannot be read"),
    "broken JSON": (lambda f: (f / "encoder.json").write_text("{"), "encoder.json: is not JSON"),
    "a list": (lambda f: (f / "encoder.json").write_text("[1]"), r"encoder.json: name is \[1\]"),
    "another network": (lambda f: change_json(f, name="resnet"), "encoder.json: pretrain.backbone is 'resnet'"),
    "another key": (lambda f: change_json(f, depth=3), "holds classes, depth"),
    "a huge width": (lambda f: change_json(f, width=1e6), "width is 1000000.0; wanted a float from"),
    "a width of words": (lambda f: change_json(f, width="half"), "width is 'half'; wanted a float"),
    "another width": (lambda f: change_json(f, width=0.2), r"has shape \(10, 3, 11, 11\); the network"),
    "no weights": (lambda f: (f / "encoder.safetensors").unlink(), "encoder.safetensors: cannot be read"),
    "half a file": (
        lambda f: (f / "encoder.safetensors").write_bytes((f / "encoder.safetensors").read_bytes()[:5000]),
        "encoder.safetensors: is not a whole safetensors file",
    ),
    "a pickle": (
        lambda f: (f / "encoder.safetensors").write_bytes(pickle.dumps(Trap())),
        "encoder.safetensors: is a pickle, not a whole safetensors file",
    ),
    "a tensor less": (lambda f: change_tensors(f, lambda t: t.pop("fc8.bias")), "has no tensor fc8.bias"),
    "a tensor more": (lambda f: change_tensors(f, lambda t: t.update(fc9=torch.ones(1))), "holds fc9"),
    "half precision": (
        lambda f: change_tensors(f, lambda t: t.update({"fc8.bias": t["fc8.bias"].half()})),
        "fc8.bias is torch.float16; the network wants torch.float32",
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
    with pytest.raises(EarshotError, match=r"'\.\./\.\./secret'; the names are encoder, wrong_sound, random"):
        load_encoder(folder, "../../secret")
