"""Spectrograms are 257 x 199, equal numpy by the definition, and stay float32 under autocast."""

import numpy as np
import pytest
import torch

from earshot.networks.spectrogram import FLOOR, FREQUENCIES, HOP, POINTS, RATE, SAMPLES, WINDOW, WINDOWS, Spectrogram


def noise(count: int) -> torch.Tensor:
    return torch.rand(count, SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2


def by_definition(waveform: np.ndarray) -> np.ndarray:
    """float64 (257, 199): window t holds the samples from 240 t to 240 t + 479, then 32 zeros."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    windows = np.stack([waveform[HOP * t : HOP * t + WINDOW] * hann for t in range(199)])
    power = np.abs(np.fft.rfft(windows, POINTS)) ** 2
    return np.log(np.maximum(power, FLOOR)).T


def test_one_second_is_257_by_199():
    actual = Spectrogram()(noise(3))
    assert actual.shape == (3, 1, 257, 199) == (3, 1, FREQUENCIES, WINDOWS)
    assert actual.dtype == torch.float32


def test_it_is_what_numpy_computes_in_float64():
    waveforms = noise(2)
    actual = Spectrogram()(waveforms)[:, 0].double().numpy()
    for row, waveform in zip(actual, waveforms.double().numpy(), strict=True):
        np.testing.assert_allclose(np.exp(row), np.exp(by_definition(waveform)), rtol=1e-3, atol=1e-5)


def test_the_first_and_the_last_sample_of_the_windows_count():
    waveforms = torch.zeros(3, SAMPLES)
    waveforms[0, 1], waveforms[1, HOP], waveforms[2, SAMPLES - 1] = 10, 10, 10  # Hann's weight of sample 0 is zero
    audible = Spectrogram()(waveforms)[:, 0].amax(1) > np.log(FLOOR)
    assert [row.nonzero().flatten().tolist() for row in audible] == [[0], [0], [198]]


def test_a_tone_has_its_peak_at_its_frequency():
    times = torch.arange(SAMPLES) / RATE
    for number in (3, 20, 100, 250):  # bins are 48000 / 512 = 93.75 Hz apart
        tone = torch.sin(2 * torch.pi * number * RATE / POINTS * times)
        actual = Spectrogram()(tone[None])[0, 0]
        assert (actual.argmax(0) == number).all()
        # Half of the sum of the window's weights, 240, squared; its reflection at zero adds to it or takes away.
        assert actual[number].exp().allclose(torch.tensor(120.0**2), rtol=1e-2)


def test_silence_is_the_logarithm_of_the_floor():
    actual = Spectrogram()(torch.zeros(1, SAMPLES))
    assert torch.equal(actual, torch.full_like(actual, float(torch.tensor(FLOOR).log())))


def test_half_precision_around_it_changes_nothing():
    frontend, waveforms = Spectrogram(), noise(1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = frontend(waveforms)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, frontend(waveforms))


@pytest.mark.parametrize("waveforms", [torch.zeros(1, 44_100), torch.zeros(SAMPLES), torch.zeros(1, SAMPLES).double()])
def test_other_waveforms_are_refused(waveforms):
    with pytest.raises(ValueError, match=r"a spectrogram requires torch.float32 of shape \(n, 48000\)"):
        Spectrogram()(waveforms)
