"""Maps of overlapping windows: those of the windows one by one, for less work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import earshot
from earshot.core.errors import EarshotError
from earshot.embedding.network import NetworkModel
from earshot.networks.correspondence.ave import AVENet
from earshot.networks.correspondence.l3 import L3Net
from earshot.networks.overlapping import Step, maps_of_windows
from earshot.networks.spectrogram import LINEAR, SAMPLES
from earshot.networks.towers import Tower

RATE = 48_000


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network whose batch norm is that of a trained one: zeros of the padding do not stay zeros."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias)
    return network.eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("hop", [1, 3, 10, 20, 49, 100, 198])
@pytest.mark.parametrize("number", [1, 2, 7])
def test_maps_are_those_of_the_windows_one_by_one(stride, hop, number):
    width, tower = 199, trained(Tower(1, width=1 / 32, stride=stride))
    starts = range(0, number * hop, hop)
    spectrogram = torch.randn(1, 1, 33, width + starts[-1])
    with torch.inference_mode():
        expected = tower(torch.cat([spectrogram[..., start : start + width] for start in starts]))
        torch.testing.assert_close(maps_of_windows(tower, spectrogram, starts, width), expected)


@pytest.mark.parametrize("width", range(16, 40))
@pytest.mark.parametrize("seed", range(3))
def test_windows_of_any_width_at_any_places(width, seed):
    tower = trained(Tower(2, width=1 / 32, stride=1 + seed % 2), seed)
    starts = np.random.default_rng(seed).choice(60, 5).tolist()
    spectrogram = torch.randn(1, 2, 16, width + 60)
    with torch.inference_mode():
        expected = tower(torch.cat([spectrogram[..., start : start + width] for start in starts]))
        torch.testing.assert_close(maps_of_windows(tower, spectrogram, starts, width), expected)


def test_another_layer_is_refused():
    with pytest.raises(TypeError, match="expected a convolution, a max pool, batch norm or ReLU"):
        Step.of(nn.AvgPool2d(2))


def sound(seconds: float, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((int(seconds * RATE), channels))).astype(np.float32)


def model(network: type = AVENet, stride: int = 2, spectrogram: str = "linear") -> NetworkModel:
    torch.manual_seed(0)
    built = network(width=1 / 16, stride=stride, spectrogram=spectrogram, image_size=32)
    return NetworkModel(trained(built), Path())


@pytest.mark.parametrize(
    ("network", "stride", "spectrogram"), [(AVENet, 2, "linear"), (AVENet, 2, "mel"), (L3Net, 1, "linear")]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_embeddings_of_a_sound_are_those_of_its_windows(network, stride, spectrogram, channels):
    own, whole = model(network, stride, spectrogram), sound(5, channels)
    embeddings, times = own.embed_audio(whole, RATE, hop=0.1, center=False)
    for number in (0, 1, 17, 40):
        window = whole[number * RATE // 10 :][:SAMPLES]
        expected, _ = own.embed_audio(window, RATE, hop=1.0, center=False)
        assert times[number] == pytest.approx(number / 10)
        np.testing.assert_allclose(embeddings[number], expected[0], atol=1e-5)


def test_channels_that_cancel_in_some_windows_alone():
    own, whole = model(), sound(4, 2)
    whole[RATE * 3 // 2 : RATE * 3, 1] = -whole[RATE * 3 // 2 : RATE * 3, 0]
    embeddings, _ = own.embed_audio(whole, RATE, hop=0.1, center=False)
    for number in (0, 10, 16, 20):
        expected, _ = own.embed_audio(whole[number * RATE // 10 :][:SAMPLES], RATE, hop=1.0, center=False)
        np.testing.assert_allclose(embeddings[number], expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("hop", "most"), [(20 * LINEAR.hop, 0.45), (10 * LINEAR.hop, 0.4), (20 * LINEAR.hop + 1, 1.0), (SAMPLES // 2, 1.0)]
)
def test_windows_share_work(hop, most):
    """The operations counted, for 32 windows of L3-Net, beside those of the windows one by one."""
    network = trained(L3Net(width=1 / 16, stride=1, image_size=32))
    waveform = torch.from_numpy(sound(1)[:, 0]).repeat(40)[: SAMPLES + 31 * hop]
    windows = waveform.unfold(0, SAMPLES, hop)
    work = []
    for each in (windows, windows.contiguous()):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            maps = network.audio_maps(each)
        work.append((counter.get_total_flops(), maps))
    (shared, maps), (alone, expected) = work
    torch.testing.assert_close(maps, expected)
    assert shared / alone <= most
    assert most < 1 or shared == alone


@pytest.mark.parametrize(
    ("wrong", "actual"),
    [
        (torch.zeros(SAMPLES), rf"float32 of shape \({SAMPLES},\)"),
        (torch.zeros(2 * SAMPLES).unfold(0, SAMPLES // 2, 20 * LINEAR.hop), r"float32 of shape \(\d+, 24000\)"),
        (torch.zeros(2 * SAMPLES, dtype=torch.float64).unfold(0, SAMPLES, 20 * LINEAR.hop), "float64"),
    ],
)
def test_sounds_of_another_shape_or_type_are_refused(wrong, actual):
    network = trained(AVENet(width=1 / 16, stride=2, image_size=32))
    with pytest.raises(ValueError, match=actual):
        network.audio_maps(wrong)


@pytest.mark.parametrize(("hop", "most"), [(0.1, 0.6), (0.1001, 1.0), (0.5, 1.0)])
def test_embed_audio_shares_work(hop, most):
    """A hop of no whole number of spectrogram windows, or a wide one, shares nothing."""
    own, whole = model(L3Net, 1), sound(4)
    work = []
    for each in (hop, 1.0):
        with FlopCounterMode(display=False) as counter:
            embeddings, _ = own.embed_audio(whole, RATE, hop=each, center=False)
        work.append(counter.get_total_flops() / len(embeddings))
    assert work[0] / work[1] <= most
    assert most < 1 or work[0] == work[1]


def test_a_model_refuses_what_it_does_not_embed():
    texture = earshot.load("texture")
    with pytest.raises(EarshotError, match="texture embeds no images"):
        texture.embed_frames(np.zeros((1, 8, 8, 3), np.uint8))
