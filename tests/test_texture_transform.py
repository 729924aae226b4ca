"""Textures in torch have the numbers of the float64 reference, refuse what numpy's refuse, and have gradients."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import earshot
from earshot.core.errors import EarshotError
from earshot.sound import texture_transform
from earshot.sound.texture import DEFAULTS, TEXTURE_GROUPS, sound_textures
from earshot.sound.texture_transform import TextureTransform
from earshot.sound.windows import UnfitSound
from perf.texture import middle_windows
from tests.texture_judge import texture
from tests.texture_sounds import check_near, sounds_of_many_kinds

RATE = 16_000
OPTIONS = [
    {},
    {"order": "resample-then-compress"},
    {"outer_channels": "band-passes"},
    {"modulation_norm": "squared-mean"},
    {"exactness": "owens-exact", "order": "resample-then-compress"},
    {"exactness": "owens-exact"},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options.values()) or "default")


def sounds(rate: int = RATE) -> torch.Tensor:
    """Sounds of sixteen kinds, float32 (16, samples)."""
    return torch.from_numpy(np.stack(list(sounds_of_many_kinds(rate).values())).astype(np.float32))


def hiss(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def exact_textures(waveforms: torch.Tensor, rate: int) -> np.ndarray:
    return np.array([texture(waveform, rate) for waveform in waveforms.numpy()])


def clear_tables() -> None:
    texture_transform._tables.cache_clear()
    texture_transform._modulation_gains.cache_clear()


@pytest.fixture
def fresh_tables() -> Iterator[None]:
    """No tables of the tests before, none for those after."""
    clear_tables()
    yield
    clear_tables()


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_sounds_of_every_kind_come_near_the_judge_at_every_rate(rate):
    waveforms = sounds(rate)
    actual = TextureTransform(rate)(waveforms)
    assert actual.dtype == torch.float32 and actual.shape == (len(waveforms), 502)
    check_near(actual.numpy(), exact_textures(waveforms, rate))


def test_real_sounds_come_near_the_judge(real_data: Path):
    windows, rate = middle_windows(sorted((real_data / "esc10" / "audio").glob("*.ogg"))[::16])
    assert len(windows) > 15
    check_near(
        TextureTransform(rate)(torch.from_numpy(windows)).numpy(), exact_textures(torch.from_numpy(windows), rate)
    )


@each_option
def test_every_option_gives_the_numbers_of_numpy(options):
    waveforms = sounds() + 0.03 * hiss(60_000)  # without a gate, rounding decides on what is in an empty channel
    check_near(TextureTransform(RATE, **options)(waveforms).numpy(), sound_textures(waveforms.numpy(), RATE, **options))


def test_its_options_are_those_of_numpy():
    parameters = inspect.signature(sound_textures).parameters.values()
    assert {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY} == DEFAULTS
    with pytest.raises(EarshotError, match="texture: order is 'compress', expected"):
        TextureTransform(RATE, order="compress")


def test_a_sound_has_the_same_texture_in_every_batch_and_every_time():
    waveforms = sounds()
    together = TextureTransform(RATE)(waveforms)
    assert torch.equal(together, TextureTransform(RATE)(waveforms))
    one_by_one = torch.cat([TextureTransform(RATE)(waveform[None]) for waveform in waveforms])
    for others in (one_by_one, TextureTransform(RATE, batch_size=3)(waveforms)):
        check_near(others.numpy(), together.numpy())
        torch.testing.assert_close(others[0], together[0], rtol=0, atol=1e-5)  # noise, which has no empty channels


def test_silence_is_a_vector_of_zeros_without_gradient_beside_any_other_sound():
    waveforms = torch.stack([torch.zeros(60_000), hiss(60_000)]).requires_grad_()
    textures = TextureTransform(RATE)(waveforms)
    assert not textures[0].any() and textures[1].any()
    textures.sum().backward()
    assert not waveforms.grad[0].any() and waveforms.grad[1].any()


@each_option
def test_gradients_are_finite(options):
    waveforms = sounds().requires_grad_()
    TextureTransform(RATE, **options)(waveforms).square().sum().backward()
    assert waveforms.grad.isfinite().all()
    assert waveforms.grad.any(1).all()


def test_gradients_are_slopes():
    noise, direction = hiss(2, 60_000).split(1)
    transform, step = TextureTransform(RATE), 1e-3
    for group in ("correlation", "modulation"):
        waveform = noise.clone().requires_grad_()
        transform(waveform)[:, TEXTURE_GROUPS[group]].sum().backward()
        with torch.no_grad():
            above, below = transform(torch.cat([noise + step * direction, noise - step * direction]))
        expected = (above - below)[TEXTURE_GROUPS[group]].sum() / (2 * step)
        torch.testing.assert_close((waveform.grad * direction).sum(), expected, rtol=0.05, atol=0)


def test_along_a_waveform_only_loudness_grows_and_that_as_its_power_of_three_tenths():
    waveform = hiss(1, 60_000).requires_grad_()
    texture = TextureTransform(RATE)(waveform)[0]
    for group, expected in (
        ("moments", 0),
        ("correlation", 0),
        ("modulation", 0),
        ("energy", 0.3 * texture[-1].item()),
    ):
        (gradient,) = torch.autograd.grad(texture[TEXTURE_GROUPS[group]].sum(), waveform, retain_graph=True)
        assert (gradient * waveform).sum().item() == pytest.approx(expected, abs=1e-4), group


def test_a_short_waveform_is_tiled():
    short = hiss(2, 40_000)
    tiled = torch.cat([short, short[:, :20_000]], 1)
    assert torch.equal(TextureTransform(RATE)(short), TextureTransform(RATE)(tiled))


def test_no_waveforms_have_no_textures():
    assert TextureTransform(RATE)(torch.zeros(0, 60_000)).shape == (0, 502)


@pytest.mark.parametrize(
    "waveforms", [torch.zeros(1, 60_000).double(), torch.zeros(60_000), torch.zeros(1, 1, 60_000), torch.zeros(1).int()]
)
def test_other_waveforms_are_refused(waveforms):
    with pytest.raises(ValueError, match=r"a texture requires torch.float32 of shape \(n, samples\)"):
        TextureTransform(RATE)(waveforms)


def test_what_numpy_refuses_is_refused_with_the_same_words():
    unfit = hiss(5, 60_000)
    unfit[3, 1234] = torch.inf
    for waveforms in (hiss(2, 23_999), hiss(2, 60_001), unfit, torch.full((1, 60_000), 1e30)):
        with pytest.raises(UnfitSound) as of_numpy:
            sound_textures(waveforms.numpy(), RATE)
        with pytest.raises(UnfitSound) as of_torch:
            TextureTransform(RATE, batch_size=2)(waveforms)
        assert str(of_torch.value) == str(of_numpy.value)


def test_half_precision_around_it_changes_nothing():
    transform, waveforms = TextureTransform(RATE), sounds()[:4]
    with torch.autocast("cpu", torch.bfloat16):
        inside = transform(waveforms)
    assert torch.equal(inside, transform(waveforms))


def test_tables_made_without_gradients_serve_with_them(fresh_tables):
    with torch.inference_mode():
        TextureTransform(RATE)(sounds()[:6])
    waveforms = sounds()[:6].requires_grad_()
    TextureTransform(RATE)(waveforms).sum().backward()
    assert waveforms.grad.any()


def test_all_of_it_happens_on_the_device_of_the_waveforms(monkeypatch, fresh_tables):
    # A fake tensor has a device and a shape, but no values: a step on another device raises an error.
    monkeypatch.setattr(texture_transform, "_as_numpy", lambda values: np.ones(values.shape, bool))  # all doubtful
    with FakeTensorMode():
        textures = TextureTransform(RATE, batch_size=2)(torch.empty(3, 40_000, device="cuda"))
    assert textures.shape == (3, 502) and textures.device.type == "cuda" and textures.dtype == torch.float32


def test_a_recording_has_the_same_textures_on_a_device():
    recording = np.random.default_rng(1).uniform(-0.5, 0.5, (200_000, 2)).astype(np.float32)
    for samples, hop in ((recording, 3.75), (recording, 1.0), (recording[:30_000], 1.0)):
        expected = earshot.textures(samples, RATE, hop=hop)
        actual = earshot.textures(samples, RATE, hop=hop, device="cpu")
        np.testing.assert_allclose(actual, expected, atol=1e-3)
    with pytest.raises(UnfitSound, match="too short"):
        earshot.textures(recording[:8_000], RATE, device="cpu")
