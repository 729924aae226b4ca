"""Networks of others: Caffe's, read from their files, and transformers; each against values worked out by hand."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import earshot
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.networks.backbones import build_network
from earshot.networks.caffemodel import read_caffemodel
from earshot.networks.files import load_encoder, load_weights, save_architecture, save_weights

PLAIN = {"caffenet_plain": False, "alexnet_plain": True}  # whether the normalization precedes the pool


def build(name: str, *, width: float = 1.0, image_size: int = 64, classes: int = 5, dropout: float = 0.5):
    torch.manual_seed(0)
    return build_network(name, classes=classes, width=width, image_size=image_size, dropout=dropout)


def random_images(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


# Caffe's layers by their definitions, on one image (channels, height, width), float64


def convolution(maps, weight, bias, stride, padding, groups):
    maps = np.pad(maps, ((0, 0), (padding, padding), (padding, padding)))
    kernel = weight.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(maps, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    parts = zip(np.split(windows, groups), np.split(weight, groups), strict=True)
    return np.concatenate([np.einsum("chwij,ocij->ohw", *both) for both in parts]) + bias[:, None, None]


def pool(maps):
    side = int(np.ceil((maps.shape[1] - 3) / 2)) + 1  # Caffe rounds up
    rows = [slice(2 * place, 2 * place + 3) for place in range(side)]
    return np.array([[[channel[row, column].max() for column in rows] for row in rows] for channel in maps])


def response_norm(maps):
    squares = np.pad(maps**2, ((2, 2), (0, 0), (0, 0)))
    sums = sum(squares[place : place + len(maps)] for place in range(5))
    return maps / (1 + 1e-4 / 5 * sums) ** 0.75


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_network_computes_what_caffe_does(name):
    network = build(name, width=1 / 16, image_size=103).eval()  # at 103 px pool1 has a partial window
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 4 else 0.1))
    weights = {key: tensor.double().numpy() for key, tensor in network.state_dict().items()}
    images = random_images(1, 103)
    maps = images[0].double().numpy() - np.array([123.0, 117, 104])[:, None, None]
    for number, (stride, padding, groups) in enumerate(((4, 0, 1), (1, 2, 2), (1, 1, 1), (1, 1, 2), (1, 1, 2)), 1):
        layer = f"body.conv{number}"
        maps = convolution(maps, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride, padding, groups)
        maps = np.maximum(maps, 0)
        if number <= 2:
            maps = pool(response_norm(maps)) if PLAIN[name] else response_norm(pool(maps))
    pool5 = pool(maps)
    fc6 = np.maximum(weights["fc6.weight"] @ pool5.ravel() + weights["fc6.bias"], 0)
    fc7 = np.maximum(weights["fc7.weight"] @ fc6 + weights["fc7.bias"], 0)
    with torch.inference_mode():
        features = network.features(images)
        scores = network(images)[0].numpy()
    for layer, expected in {"max5": maps.max((1, 2)), "pool5": pool5.ravel(), "fc6": fc6, "fc7": fc7}.items():
        assert features[layer][0].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4 * np.abs(expected).max())
    assert scores == pytest.approx(weights["fc8.weight"] @ fc7 + weights["fc8.bias"], rel=1e-3, abs=1e-3)


# Fillers of train_val.prototxt of bvlc_reference_caffenet and bvlc_alexnet.
BIASES = {"caffenet_plain": ((0, 0.4, 0, 1, 0.4), 0.4), "alexnet_plain": ((0, 0.1, 0, 0.1, 0.1), 0.1)}


@pytest.mark.parametrize("name", PLAIN)
def test_initial_weights_are_caffes_fillers(name):
    network = build(name, width=0.25, image_size=227)
    biases, hidden = BIASES[name]
    layers = [(f"body.conv{n}", 0.01, bias) for n, bias in enumerate(biases, 1)]
    for layer, deviation, bias in [*layers, ("fc6", 0.005, hidden), ("fc7", 0.005, hidden)]:
        weight = network.get_submodule(layer).weight
        tolerance = 5 / weight.numel() ** 0.5
        assert weight.std().item() == pytest.approx(deviation, rel=tolerance)
        assert weight.mean().item() == pytest.approx(0, abs=tolerance * deviation)
        assert (network.get_submodule(layer).bias == bias).all()


def test_a_plain_caffenet_has_the_published_size():
    with torch.device("meta"):
        network = build("caffenet_plain", image_size=227, classes=1000)
    assert network.pooled_side == 6
    assert sum(values.numel() for values in network.parameters()) == 60_965_224  # of bvlc_reference_caffenet


# A caffemodel by hand: src/caffe/proto/caffe.proto


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def floats(values: np.ndarray) -> bytes:
    return values.astype("<f4").tobytes()


def blob(values: np.ndarray, *, old: bool = False) -> bytes:
    if old:  # four sizes, and ones in front
        sizes = (1,) * (4 - values.ndim) + values.shape
        return b"".join(field(n, size) for n, size in enumerate(sizes, 1)) + field(5, floats(values))
    return field(7, field(1, b"".join(map(varint, values.shape)))) + field(5, floats(values))


def layer(name: str, kind: str, *arrays: np.ndarray, old: bool = False) -> bytes:
    if old:
        number = {"Convolution": 4, "InnerProduct": 14}[kind]
        message = field(4, name.encode()) + field(5, number) + b"".join(field(6, blob(a, old=True)) for a in arrays)
        return field(2, message)
    message = field(1, name.encode()) + field(2, kind.encode()) + field(3, b"data")
    return field(100, message + b"".join(field(7, blob(a)) for a in arrays))


def caffemodel(path: Path, tensors, *, old: bool = False) -> Path:
    content = field(1, b"a network")
    for name, kind, *arrays in tensors:
        content += layer(name, kind, *arrays, old=old)
    path.write_bytes(content)
    return path


CONVOLUTION = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
PRODUCT = np.arange(200 * 4, dtype=np.float32).reshape(200, 4) / 7
SMALL = [
    ("conv1", "Convolution", CONVOLUTION, np.array([0.5, -1.5])),
    ("fc6", "InnerProduct", PRODUCT, np.arange(200.0)),
]


@pytest.mark.parametrize("old", [False, True])
def test_a_caffemodel_of_either_form_is_read(tmp_path, old):
    tensors = read_caffemodel(caffemodel(tmp_path / "a.caffemodel", SMALL, old=old))
    assert list(tensors) == ["conv1.weight", "conv1.bias", "fc6.weight", "fc6.bias"]
    assert tensors["conv1.weight"].tolist() == CONVOLUTION[:, [2, 1, 0]].tolist()  # red first
    assert tensors["conv1.bias"].tolist() == [0.5, -1.5]
    assert np.array_equal(tensors["fc6.weight"], PRODUCT)
    assert tensors["fc6.bias"].shape == (200,)


def test_numbers_that_are_not_packed_or_are_doubles_are_read(tmp_path):
    single = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in (1.5, 2.5))
    loose = field(7, field(1, 1) + field(1, 2)) + single
    double = field(7, field(1, varint(1))) + field(8, struct.pack("<d", 0.25))
    message = field(1, b"fc") + field(2, b"InnerProduct") + field(7, loose) + field(7, double)
    (tmp_path / "a").write_bytes(field(100, message))
    tensors = read_caffemodel(tmp_path / "a")
    assert tensors["fc.weight"].tolist() == [[1.5, 2.5]] and tensors["fc.bias"].tolist() == [0.25]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x95", "is no complete caffemodel .*wire type|is no complete caffemodel"),  # a pickle
        (layer("conv1", "Convolution", CONVOLUTION)[:-9], "is no complete caffemodel .field 100 ends 9 bytes"),
        (b'name: "CaffeNet"\n', "is no complete caffemodel"),
        (field(1, b"a network"), "holds no weights; give the .caffemodel"),
        (layer("bn1", "BatchNorm", np.ones(3)), "bn1 is of type BatchNorm, expected Convolution and InnerProduct"),
        (field(100, field(1, b"a") + field(7, field(7, field(1, b"\x05")) + field(5, b"\0" * 8))), "cannot reshape"),
        (layer("c", "Convolution", np.array(1.0)), r"no complete caffemodel .c.weight has the shape \(\), expected 4"),
        (layer("c", "Convolution", np.ones(3)), r"no complete caffemodel .c.weight has the shape \(3,\), expected 4"),
        (layer("f", "InnerProduct", np.ones(3)), r"no complete caffemodel .f.weight has the shape \(3,\), expected 2"),
        (layer("f", "InnerProduct", np.ones((2, 1, 3))), r"f.weight has the shape \(2, 1, 3\), expected 2 dimensions"),
    ],
)
def test_a_file_that_cannot_be_converted_is_named(tmp_path, content, message):
    (tmp_path / "a.caffemodel").write_bytes(content)
    with pytest.raises(EarshotError, match=f"a.caffemodel: .*{message}"):
        read_caffemodel(tmp_path / "a.caffemodel")


def test_converted_weights_fill_a_plain_network(tmp_path, capsys):
    network = build("caffenet_plain", width=1 / 16, image_size=103)
    state = {key.removeprefix("body."): values.numpy().copy() for key, values in network.state_dict().items()}
    layers = [f"conv{n}" for n in range(1, 6)] + ["fc6", "fc7"]
    kinds = {name: "Convolution" if name.startswith("conv") else "InnerProduct" for name in layers}
    tensors = [(name, kinds[name], 2 * state[f"{name}.weight"], state[f"{name}.bias"] + 1) for name in layers]
    tensors.append(("fc8_track", "InnerProduct", np.ones((3, 4)), np.ones(3)))
    source, output = caffemodel(tmp_path / "tracking.caffemodel", tensors), tmp_path / "tracking.safetensors"
    earshot("caffemodel", source, "--output", output, "--leave-out", "fc8_track", "--mean", "90", "100", "110")
    assert "conv1.weight (6, 3, 11, 11)" in capsys.readouterr().out
    assert load_file(output)["channel_mean"].flatten().tolist() == [110, 100, 90]
    with pytest.warns(UserWarning, match="tracking.safetensors: has no weights of fc8; the network keeps its own"):
        load_weights(network, output)
    assert np.array_equal(network.body.conv1.weight.detach(), 2 * state["conv1.weight"][:, ::-1])
    assert np.array_equal(network.body.conv4.weight.detach(), 2 * state["conv4.weight"])
    assert network.channel_mean.flatten().tolist() == [110, 100, 90]
    with pytest.raises(SystemExit, match="--leave-out fc9: .* has no such layer; it has conv1"):
        earshot("caffemodel", source, "--output", output, "--leave-out", "fc9")


# Transformers


def test_a_vits_layers_are_its_tokens_after_the_last_norm():
    network = build("vit_b_32", image_size=96).eval()  # 3 x 3 positions
    body, images = network.body, random_images(2, 96)
    with torch.inference_mode():
        features = network.features(images)
        patches = body.conv_proj(network.normalize(images)).flatten(2).transpose(1, 2)  # (2, 9, 768)
        tokens = torch.cat([body.class_token.expand(2, -1, -1), patches], dim=1) + body.encoder.pos_embedding
        for block in body.encoder.layers:
            tokens = block(tokens)
        tokens = body.encoder.ln(tokens)
        maps = tokens[:, 1:].transpose(1, 2).reshape(2, 768, 3, 3)
    torch.testing.assert_close(features["fc7"], tokens[:, 0])
    torch.testing.assert_close(features["fc6"], tokens[:, 1:].mean(1))
    torch.testing.assert_close(features["max5"], tokens[:, 1:].amax(1))
    torch.testing.assert_close(features["pool5"], functional.max_pool2d(maps, 3, 2).flatten(1))


# Of images of 224 px: max5, pool5, fc6 and fc7.
TOKENS = {
    "vit_b_16": (768, 768 * 36, 768, 768),
    "swin_t": (768, 768 * 9, 768, 768),
    "timm-vit_small_patch14_dinov2": (384, 384 * 49, 384, 384),
    "timm-vit_small_patch16_dinov3": (384, 384 * 36, 384, 384),
    "timm-swin_tiny_patch4_window7_224": (768, 768 * 9, 768, 768),
    "timm-resnet50": (2048, 2048 * 9, 2048, 2048),
}


@pytest.mark.parametrize("name", TOKENS)
def test_every_family_gives_tokens_and_a_pooled_feature(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with torch.device("meta"):
        network = build(name, image_size=224, classes=7).eval()
        images = torch.zeros(2, 3, 224, 224, dtype=torch.uint8)
        features = network.features(images)
        assert network(images).shape == (2, 7)
    assert tuple(rows.shape[1] for rows in features.values()) == TOKENS[name]


@pytest.mark.parametrize("name", ["vit_b_32", "timm-vit_tiny_patch16_224", "timm-vit_small_patch16_dinov3"])
def test_a_frozen_transformer_is_saved_loaded_and_filled(tmp_path, name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    network, images = build(name, image_size=96).eval(), random_images(2, 96)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) / 50)
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    with torch.inference_mode():
        expected = network.features(images)
        assert torch.equal(load_encoder(tmp_path).features(images)["pool5"], expected["pool5"])
        backbone = {k.removeprefix("body."): v for k, v in network.state_dict().items() if ".head" not in k}
        save_file({k: v for k, v in backbone.items() if not k.startswith("channel")}, tmp_path / "file.safetensors")
        other = build(name, image_size=96).eval()
        with pytest.warns(UserWarning, match="has no weights of .*head; the network keeps its own"):
            load_weights(other, tmp_path / "file.safetensors")
        assert torch.equal(other.features(images)["fc7"], expected["fc7"])


def test_timms_networks_bring_their_own_mean():
    pytest.importorskip("timm")
    with torch.no_grad():
        network = build("timm-vit_tiny_patch16_224", image_size=96)  # its configuration has .5 for both
    assert network.channel_mean.flatten().tolist() == network.channel_deviation.flatten().tolist() == [127.5] * 3
    assert isinstance(network.fully_connected[-1], nn.Linear)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_b_16", 100, "pretrain.image_size is 100, which vit_b_16 does not take .*patch size.; use 224"),
        ("maxvit_t", 100, "pretrain.image_size is 100, which maxvit_t does not take"),
        ("timm-resnet5", 64, "which timm does not have; the nearest is timm-resnet50|which requires timm"),
    ],
)
def test_a_network_that_cannot_be_built_is_named(name, size, message):
    with pytest.raises(EarshotError, match=message):
        build(name, image_size=size)


def test_without_timm_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(EarshotError, match=r"timm-resnet50, which requires timm: pip install 'earshot\[timm\]'"):
        build("timm-resnet50")
