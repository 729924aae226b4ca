"""Spectrograms have the papers' shapes, equal numpy and librosa by the definition, and stay float32 under autocast."""

import librosa
import numpy as np
import pytest
import torch

from earshot.networks.spectrogram import FLOOR, LINEAR, MEL, RATE, SAMPLES, TRANSFORMS, Spectrogram, Transform

KINDS = pytest.mark.parametrize("kind", TRANSFORMS)


def noise(count: int) -> torch.Tensor:
    return torch.rand(count, SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2


def power_of(waveform: np.ndarray, kind: Transform) -> np.ndarray:
    """float64 (bins, windows): window t begins at sample hop * t; zeros follow it up to the points of the transform."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(kind.window) / kind.window)
    starts = range(0, SAMPLES - kind.window + 1, kind.hop)
    windows = np.stack([waveform[start : start + kind.window] * hann for start in starts])
    return np.maximum(np.abs(np.fft.rfft(windows, kind.points)) ** 2, FLOOR).T


def test_one_second_has_the_shapes_of_the_sources():
    assert Spectrogram("linear")(noise(3)).shape == (3, 1, 257, 199) == (3, 1, LINEAR.frequencies, LINEAR.windows)
    assert Spectrogram("mel")(noise(3)).shape == (3, 1, 64, 98) == (3, 1, MEL.frequencies, MEL.windows)
    # 1,024 samples every 10 ms (Kong et al. 2020), and 10 ms every 5 ms (Arandjelovic & Zisserman 2017).
    assert (MEL.bands, MEL.window, MEL.hop / RATE) == (64, 1024, 0.01)
    assert (LINEAR.window / RATE, LINEAR.hop / RATE) == (0.01, 0.005)


def test_linear_is_what_numpy_computes_in_float64():
    waveforms = noise(2)
    actual = Spectrogram()(waveforms)[:, 0].double().numpy()
    for row, waveform in zip(actual, waveforms.double().numpy(), strict=True):
        np.testing.assert_allclose(np.exp(row), power_of(waveform, LINEAR), rtol=1e-3, atol=1e-5)


def test_mel_is_what_librosas_filters_make_of_numpys_powers():
    waveforms = noise(2)
    filters = librosa.filters.mel(sr=RATE, n_fft=MEL.points, n_mels=MEL.bands, dtype=np.float64)
    actual = Spectrogram("mel")(waveforms)[:, 0].double().numpy()
    for row, waveform in zip(actual, waveforms.double().numpy(), strict=True):
        np.testing.assert_allclose(np.exp(row), filters @ power_of(waveform, MEL), rtol=1e-3)


def test_each_mel_band_hears_something():
    filters = MEL.filters()
    assert filters is not None
    assert (filters.sum(0) > 0).all()
    # Equal areas: a triangle of height 2 / width, over bins of 47 Hz. The lower bands span two or three bins alone.
    torch.testing.assert_close(filters.sum(0)[20:] * RATE / MEL.points, torch.ones(MEL.bands - 20), atol=0.1, rtol=0)


@KINDS
def test_the_first_and_the_last_sample_of_the_windows_count(kind):
    transform = TRANSFORMS[kind]
    last = transform.hop * (transform.windows - 1) + transform.window - 1
    waveforms = torch.zeros(4, SAMPLES)
    waveforms[0, 1], waveforms[1, last] = 100, 100  # Hann's weight of sample 0 is zero
    waveforms[2, transform.hop * 5], waveforms[3, last + 1 :] = 100, 100
    levels = Spectrogram(kind)(waveforms)[:, 0].amax(1)
    audible = levels > Spectrogram(kind)(torch.zeros(1, SAMPLES))[0, 0].amax() + 1e-3
    before = {"linear": [4], "mel": [3, 4]}[kind]  # windows that begin before sample 5 * hop and hold it
    assert [row.nonzero().flatten().tolist() for row in audible] == [[0], [transform.windows - 1], before, []]


def test_a_tone_has_its_peak_at_its_frequency():
    times = torch.arange(SAMPLES) / RATE
    for number in (3, 20, 100, 250):  # bins are 48000 / 512 = 93.75 Hz apart
        tone = torch.sin(2 * torch.pi * number * RATE / LINEAR.points * times)
        actual = Spectrogram()(tone[None])[0, 0]
        assert (actual.argmax(0) == number).all()
        # Half of the sum of the window's weights, 240, squared; its reflection at zero adds to it or takes away.
        assert actual[number].exp().allclose(torch.tensor(120.0**2), rtol=1e-2)


def test_a_tone_has_its_peak_in_its_mel_band():
    times = torch.arange(SAMPLES) / RATE
    centers = librosa.mel_frequencies(MEL.bands + 2, fmax=RATE / 2)[1:-1]
    for band in (4, 20, 40, 60):
        actual = Spectrogram("mel")(torch.sin(2 * torch.pi * float(centers[band]) * times)[None])[0, 0]
        assert (actual.argmax(0) == band).all()


@KINDS
def test_silence_is_the_floor_in_each_bin(kind):
    filters = TRANSFORMS[kind].filters()
    expected = torch.tensor(FLOOR).log() if filters is None else (filters.sum(0) * FLOOR).log()[:, None]
    actual = Spectrogram(kind)(torch.zeros(1, SAMPLES))
    torch.testing.assert_close(actual, expected.expand(actual.shape), rtol=1e-6, atol=1e-5)


@KINDS
def test_half_precision_around_it_changes_nothing(kind):
    frontend, waveforms = Spectrogram(kind), noise(1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = frontend(waveforms)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, frontend(waveforms))


@KINDS
@pytest.mark.parametrize("waveforms", [torch.zeros(1, 44_100), torch.zeros(SAMPLES), torch.zeros(1, SAMPLES).double()])
def test_other_waveforms_are_refused(kind, waveforms):
    with pytest.raises(ValueError, match=r"a spectrogram requires torch.float32 of shape \(n, 48000\)"):
        Spectrogram(kind)(waveforms)
