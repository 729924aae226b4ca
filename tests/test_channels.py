"""Mixing: a sound that any of its channels has is in the mix, and every stage mixes alike."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from earshot.core.channels import mix_channels
from earshot.media.quality import audio_print, measure
from earshot.scenes.audio_slices import resample, sound_slice
from earshot.sound.recording import textures
from earshot.sound.texture import sound_textures
from earshot.sound.windows import cut_windows

RATE = 22050


def noise(seed: int = 0, seconds: float = 4.0) -> np.ndarray:
    """Noise in bursts, float32 (samples,), multiples of 1 / 32768."""
    drawn = np.random.default_rng(seed)
    loudness = np.repeat(drawn.uniform(0.01, 0.25, 40), round(seconds * RATE / 40))
    return np.round(drawn.uniform(-1, 1, len(loudness)) * loudness * 32768).astype(np.float32) / 32768


def beside(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1)


LEFT, RIGHT = noise(0), noise(1)
# The mix of each pair of channels.
PAIRS = {
    "one sound twice": (beside(LEFT, LEFT), LEFT),
    "independent": (beside(LEFT, RIGHT), (LEFT + RIGHT) / 2),
    "left alone": (beside(LEFT, 0 * LEFT), LEFT / 2),
    "right alone": (beside(0 * LEFT, RIGHT), RIGHT / 2),
    "silent": (beside(0 * LEFT, 0 * LEFT), 0 * LEFT),
    "wide": (beside(LEFT + RIGHT / 2, RIGHT / 2 - LEFT / 2), LEFT / 4 + RIGHT / 2),
    "out of phase": (beside(LEFT, -LEFT), LEFT),
    "out of phase, right louder": (beside(-0.9 * LEFT, LEFT), LEFT),
    "out of phase, with faint noise": (beside(LEFT + RIGHT / 30, -LEFT), LEFT + RIGHT / 30),
    "out of phase and delayed": (beside(LEFT, -np.roll(LEFT, 40)), (LEFT - np.roll(LEFT, 40)) / 2),
    "mono": (LEFT[:, None], LEFT),
    "three, one inverted": (beside(LEFT, LEFT, -LEFT), LEFT / 3),
    "four that cancel": (beside(LEFT, -LEFT, RIGHT, -RIGHT), LEFT if (LEFT**2).sum() > (RIGHT**2).sum() else RIGHT),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_mix_is_the_mean_or_the_loudest_channel_where_the_mean_cancels(name):
    sound, expected = PAIRS[name]
    assert np.allclose(mix_channels(sound), expected, atol=1e-6)


@given(gain=st.floats(-1, 1), seed=st.integers(0, 99))
def test_a_sound_that_a_channel_has_is_never_lost(gain, seed):
    sound = noise(seed, 0.5)
    mixed = mix_channels(beside(sound, np.float32(gain) * sound))
    assert np.abs(mixed).max() > 0.04 * np.abs(sound).max()


@given(st.integers(0, 99), st.floats(-0.9, 0.9))
def test_channels_that_do_not_cancel_have_their_mean_to_the_bit(seed, correlation):
    one, other = noise(seed, 0.5), noise(seed + 100, 0.5)
    sound = beside(one, np.float32(correlation) * one + np.float32(0.5) * other)
    assert np.array_equal(mix_channels(sound), sound.mean(axis=1))


@pytest.mark.parametrize("name", ["independent", "out of phase", "out of phase, right louder", "mono"])
def test_every_stage_mixes_alike(name):
    sound, expected = PAIRS[name]
    windows, _ = cut_windows(sound, RATE, np.array([2.0]), 3.75)
    assert np.allclose(windows[0], expected[round(0.125 * RATE) :][: windows.shape[1]], atol=1e-6)
    assert np.allclose(resample(sound, RATE, RATE, 1)[:, 0], expected, atol=1e-6)
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="FLAC", subtype="PCM_16")
    cut = sound_slice(file.getvalue(), 1.0, samples=RATE, rate=RATE, channels=1)
    assert np.allclose(cut, expected[RATE : 2 * RATE], atol=1e-4)
    assert np.allclose(textures(sound, RATE), sound_textures(expected[None, : round(3.75 * RATE)], RATE), atol=1e-3)


def test_each_window_is_mixed_on_its_own():
    sound = beside(np.concatenate([LEFT, RIGHT]), np.concatenate([LEFT, -RIGHT]))
    windows, _ = cut_windows(sound, RATE, np.array([1.9, 6.0]), 3.75)
    assert np.sqrt((windows**2).mean(axis=1)).min() > 0.05


@pytest.mark.parametrize("name", ["independent", "out of phase", "out of phase, right louder"])
def test_sound_out_of_phase_has_the_fingerprint_of_its_channel(name):
    sound, expected = (np.round(part * 32768).astype(np.int16) for part in PAIRS[name])
    assert audio_print(sound, RATE) != b""
    if name != "independent":
        assert audio_print(sound, RATE) == audio_print(expected[:, None], RATE)
        assert measure(sound, RATE, [np.zeros((32, 32), np.uint8)] * 8).peak > 0.2


def test_stereo_in_phase_and_out_of_phase_are_duplicates():
    sound = np.round(LEFT * 32768).astype(np.int16)
    assert audio_print(beside(sound, -sound), RATE) == audio_print(beside(sound, sound), RATE)
