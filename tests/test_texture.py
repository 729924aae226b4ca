"""The sound texture: close to its float64 reference for all options, and invariant to what it should ignore."""

from pathlib import Path

import numpy as np
import pytest

from earshot.core.errors import EarshotError
from earshot.sound.cochlea import (
    GATE,
    channel_frequencies,
    cochleagrams,
    cochlear_bands,
    cochlear_filters,
    resampled_series,
)
from earshot.sound.texture import TEXTURE_GROUPS, modulation_filters, modulation_power, sound_textures
from earshot.sound.windows import WINDOW_SECONDS, UnfitSound, cut_windows, fitted_windows
from perf import texture as benchmark
from tests import texture_judge as judge
from tests.texture_judge import texture
from tests.texture_sounds import check_near, sounds_of_many_kinds

RATE = 20_000
N = 75_000
TIME = np.arange(N) / RATE
MODULATIONS = 0.5 * 400 ** (np.arange(10) / 9)  # Hz
GAPS = ("0", "12", "38")  # ESC-10's numbers of barks, crackling fire and ticking clocks
TEXTURE_OPTIONS = [
    {},
    {"order": "resample-then-compress"},
    {"outer_channels": "band-passes"},
    {"modulation_norm": "squared-mean"},
    {"exactness": "owens-exact"},
    {"order": "resample-then-compress", "exactness": "owens-exact", "modulation_norm": "squared-mean"},
]


def _noise(seed: int, samples: int = N) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples)


def _band(seed: int, lowest: float, highest: float, slope: float = 0.0) -> np.ndarray:
    """Periodic noise between two frequencies with amplitudes falling as 1/f**slope, rms 0.1."""
    spectrum, frequencies = np.fft.rfft(_noise(seed)), np.fft.rfftfreq(N, 1 / RATE)
    spectrum *= np.where((lowest <= frequencies) & (frequencies <= highest), np.maximum(frequencies, 1) ** -slope, 0)
    noise = np.fft.irfft(spectrum, N)
    return 0.1 * noise / noise.std()


def _tone(frequency: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * TIME)


def _comodulated(seed: int) -> np.ndarray:
    """Noise whose bands rise and fall together, slower than 8 Hz."""
    return 0.5 * np.exp(10 * _band(seed, 0.1, 8)) * _band(seed + 1, 20, 10_000)


def _scenery() -> np.ndarray:
    """Fifteen sounds as different as real ones, over a faint hiss as every recording has it: (15, 75000)."""
    clicks = np.zeros(N)
    clicks[np.random.default_rng(0).integers(0, N, 60)] = 1
    sounds = [
        *(_band(i, 20, 10_000, slope) for i, slope in enumerate((0, 0.5, 1, 2))),
        *(_band(10, 20, 10_000) * (1 + np.sin(2 * np.pi * rate * TIME)) for rate in (1.5, 7, 31)),
        *(_band(20, low, high) for low, high in ((20, 400), (300, 3000), (4000, 9000))),
        _comodulated(30),
        _comodulated(31),
        clicks,
        np.convolve(clicks, np.exp(-np.arange(2000) / 300) * _noise(40, 2000), "same"),
        0.3 * np.sin(2 * np.pi * (100 * TIME + 900 * TIME**2)),
    ]
    return np.stack(sounds) + 0.003 * _noise(50)


def _textures(sounds: np.ndarray, sample_rate: int = RATE, **texture_options: str) -> np.ndarray:
    return sound_textures(np.atleast_2d(sounds).astype(np.float32), sample_rate, **texture_options)


def _correlations(vector: np.ndarray, offset: int) -> np.ndarray:
    pairs = [o for j in range(32) for o in (1, 2, 3, 5) if j + o < 32]
    return vector[TEXTURE_GROUPS["correlation"]][np.array(pairs) == offset]


@pytest.mark.parametrize(
    "texture_options", TEXTURE_OPTIONS, ids=lambda options: "+".join(options.values()) or "default"
)
def test_every_option_is_close_to_the_float64_reference(texture_options):
    sounds = _scenery()[:: 2 if texture_options else 1]
    exact = np.array([texture(sound, RATE, **texture_options) for sound in sounds])
    errors = np.sqrt(np.mean((_textures(sounds, **texture_options) - exact) ** 2, axis=0)) / exact.std(axis=0)
    for group, part in TEXTURE_GROUPS.items():
        assert benchmark.rms(errors[part]) < 0.01, group
        assert errors[part].max() < 0.03, group


def test_steady_harmonics_are_close_to_the_reference():
    # The worst case: their beats are lines in the spectrum of an envelope and alias as lines where a band is cropped.
    harmonics = sum(_tone(220 * k) / k for k in range(1, 30)) * (1 + 0.5 * np.sin(2 * np.pi * 5 * TIME))
    sound = harmonics + 0.003 * _noise(50)
    errors = np.abs(_textures(sound)[0] - texture(sound, RATE))
    assert benchmark.rms(errors) < 0.005 and errors.max() < 0.05


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_sounds_of_every_kind_come_near_the_judge_at_every_rate(rate):
    sounds = np.stack(list(sounds_of_many_kinds(rate).values())).astype(np.float32)
    check_near(_textures(sounds, rate), np.array([texture(sound, rate) for sound in sounds]))


def test_harmonics_that_beat_are_done_again_and_noise_is_not():
    kinds = sounds_of_many_kinds(48_000)
    bands = cochlear_bands("lowpass+highpass")
    doubted = {"steady harmonics": True, "barks": True, "noise": False, "amplitude-modulated noise": False}
    for kind, expected in doubted.items():
        _, doubtful = resampled_series(kinds[kind].astype(np.float32)[None], bands, GATE, 0.3)
        assert doubtful.any() == expected, kind


def test_real_sounds_with_gaps_come_near_the_judge(real_data: Path):
    paths = [path for path in sorted((real_data / "esc10" / "audio").glob("*.ogg")) if path.stem.split("-")[-1] in GAPS]
    assert len(paths) > 80
    windows, rate = benchmark.middle_windows(paths[::8])
    check_near(sound_textures(windows, rate), np.array([texture(window, rate) for window in windows]))


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_every_source_rate_is_close_to_the_float64_reference(sample_rate):
    sounds = [0.1 * _noise(i, int(3.75 * sample_rate + 0.5)) for i in range(2)]
    exact = np.array([texture(sound, sample_rate) for sound in sounds])
    assert np.abs(_textures(np.array(sounds), sample_rate) - exact).max() < 0.02


def test_each_option_changes_the_vector():
    sound = _scenery()[5]
    default = _textures(sound)
    for name, value in (pair for texture_options in TEXTURE_OPTIONS[1:4] for pair in texture_options.items()):
        assert np.abs(_textures(sound, **{name: value}) - default).max() > 0.01, name


def test_the_gate_keeps_rounding_noise_from_empty_channels():
    tone = _tone(1000)
    assert np.count_nonzero(_textures(tone)[0, :32]) == 2
    assert np.count_nonzero(_textures(tone, exactness="owens-exact")[0, :32]) > 20


def test_the_vector_has_its_parts_in_order():
    sounds = _scenery()[4:7].astype(np.float32)
    envelopes = cochleagrams(fitted_windows(sounds, RATE)).astype(np.float64)
    vectors = _textures(sounds)
    assert vectors.shape == (3, 502) and vectors.dtype == np.float32
    assert {group: part.stop - part.start for group, part in TEXTURE_GROUPS.items()} == {
        "moments": 64,
        "correlation": 117,
        "modulation": 320,
        "energy": 1,
    }
    for envelope, vector, rate in zip(envelopes, vectors, (1.5, 7, 31), strict=True):
        level = np.median(np.linalg.norm(envelope, axis=0))
        assert vector[501] == pytest.approx(level, rel=1e-5)
        np.testing.assert_allclose(vector[:32], envelope.mean(1) / level, rtol=1e-4)
        np.testing.assert_allclose(vector[32:64], envelope.std(1) / envelope.mean(1), rtol=1e-3)
        pairs = [np.corrcoef(envelope)[j, j + o] for j in range(32) for o in (1, 2, 3, 5) if j + o < 32]
        np.testing.assert_allclose(vector[64:181], pairs, atol=1e-4)
        by_channel = vector[181:501].reshape(32, 10)
        assert np.abs(MODULATIONS[by_channel[15].argmax()] - rate) < 0.5 * rate


def test_filters_are_those_of_the_reference():
    for outer_channels in ("lowpass+highpass", "band-passes"):
        np.testing.assert_allclose(cochlear_filters(outer_channels), judge.cochlear_filters(outer_channels), atol=1e-7)
    np.testing.assert_allclose(modulation_filters().T, judge.modulation_filters(), atol=1e-12)


def test_modulation_power_is_the_mean_square_of_the_filtered_envelope():
    envelopes = _noise(0, 2 * 32 * 1500).reshape(2, 32, 1500).astype(np.float32)
    filtered = np.fft.irfft(np.fft.rfft(envelopes)[:, :, None] * judge.modulation_filters(), 1500)
    np.testing.assert_allclose(modulation_power(envelopes), np.square(filtered).mean(axis=-1), rtol=1e-4)


def test_the_ringing_of_a_short_pulse_is_clipped_at_zero():
    pulse = np.exp(-(((TIME - 1.875) / 0.0008) ** 2)) * _tone(9300)
    assert cochleagrams(pulse[None].astype(np.float32)).min() == 0


def test_filters_share_out_the_power_of_every_bin():
    filters = cochlear_filters()
    assert filters.shape == (32, N // 2 + 1)
    np.testing.assert_allclose(np.square(filters).sum(axis=0), 1, atol=1e-12)
    assert (np.diff(filters.argmax(axis=1)) > 0).all()


@pytest.mark.parametrize("gain", [1e-3, 0.1, 10])
def test_gain_changes_only_loudness_and_that_as_its_power_of_three_tenths(gain):
    sounds = _scenery()
    quiet, loud = _textures(sounds), _textures(gain * sounds)
    np.testing.assert_allclose(loud[:, :-1], quiet[:, :-1], atol=3e-4)
    np.testing.assert_allclose(loud[:, -1], quiet[:, -1] * gain**0.3, rtol=1e-5)


def test_polarity_and_a_stereo_copy_do_not_change_the_texture():
    sounds = _scenery()
    np.testing.assert_array_equal(_textures(-sounds), _textures(sounds))
    stereo, _ = cut_windows(np.stack([sounds[0], sounds[0]], axis=1), RATE, [1.875])
    np.testing.assert_allclose(_textures(stereo), _textures(sounds[0]), atol=1e-6)


def test_a_circular_shift_by_whole_envelope_samples_does_not_change_the_texture():
    sound = _scenery()[1]
    np.testing.assert_allclose(texture(np.roll(sound, 50 * 123), RATE), texture(sound, RATE), atol=1e-9)
    # A cropped band is sampled at other instants after the shift: equal up to what cropping costs.
    np.testing.assert_allclose(_textures(np.roll(sound, 50 * 123)), _textures(sound), atol=0.02)


def test_white_noise_is_correlated_only_where_filters_overlap():
    vector = _textures(np.array([_noise(i) for i in range(16)])).mean(axis=0)
    assert _correlations(vector, 1).mean() == pytest.approx(0.096, abs=0.01)
    for offset in (2, 3, 5):
        assert _correlations(vector, offset).mean() == pytest.approx(0, abs=0.02)


def test_comodulated_noise_is_correlated_across_the_whole_scale():
    vector = _textures(np.array([_comodulated(seed) for seed in (1, 3, 5, 7)])).mean(axis=0)
    for offset in (1, 2, 3, 5):
        assert _correlations(vector, offset).mean() == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(("rate", "band"), [*zip(MODULATIONS[:9], range(9), strict=True), (10, 5), (9.3, 4), (9.6, 5)])
def test_amplitude_modulation_of_a_tone_peaks_in_its_band(rate, band):
    vector = _textures((1 + 0.5 * np.sin(2 * np.pi * rate * TIME)) * _tone(1000))[0]
    loudest = vector[:32].argmax()
    assert vector[181:501].reshape(32, 10)[loudest].argmax() == band


def test_a_steady_tone_has_no_spread_no_correlation_and_no_modulation():
    vectors = _textures(np.stack([_tone(frequency) for frequency in (100, 320, 1000, 2500, 6000)]))
    assert (vectors[:, :32].max(axis=1) > 0.5).all()
    assert np.abs(vectors[:, 32:501]).max() < 1e-3


def test_silence_is_a_vector_of_zeros_beside_any_other_sound():
    sounds = np.stack([np.zeros(N), _noise(0), np.zeros(N)])
    vectors = _textures(sounds)
    assert not vectors[[0, 2]].any()
    np.testing.assert_allclose(vectors[1], _textures(sounds[1])[0], atol=1e-5)


@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 48_000])
def test_a_band_limited_sound_has_the_same_texture_at_every_source_rate(sample_rate):
    # Whole periods in the window up to 9,900 Hz, taken at the instants of each rate; 22,050 Hz has half a sample more.
    spectrum = np.zeros(37_126, complex)
    spectrum[1:] = np.exp(1j * np.random.default_rng(0).uniform(0, 2 * np.pi, 37_125))

    def sampled(rate: int) -> np.ndarray:
        if rate == 22_050:
            return sampled(44_100)[::2]
        return 5e-4 * np.fft.irfft(spectrum, rate * 15 // 4, norm="forward")

    np.testing.assert_allclose(_textures(sampled(sample_rate), sample_rate), _textures(sampled(RATE)), atol=3e-3)


def test_a_short_window_is_tiled_and_never_padded():
    sound = _band(3, 20, 10_000)[:40_000].astype(np.float32)
    tiled = np.concatenate([sound, sound[:35_000]])
    np.testing.assert_array_equal(_textures(sound), _textures(tiled))
    np.testing.assert_allclose(_textures(sound)[0], texture(sound, RATE), atol=0.02)
    padded = np.pad(sound, (0, 35_000))
    assert np.abs(_textures(padded) - _textures(sound)).max() > 1


def test_int16_counts_as_a_fraction_of_full_scale():
    whole = (3000 * _noise(0)).astype(np.int16)[None]
    np.testing.assert_array_equal(sound_textures(whole, RATE), _textures(whole / 32768))


def test_no_windows_have_no_textures():
    assert sound_textures(np.zeros((0, N), np.float32), RATE).shape == (0, 502)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_window_that_is_not_finite_is_named_by_its_row(value):
    sounds = _scenery()[:5]
    sounds[3, 1234] = value
    for kind in (EarshotError, ValueError):
        with pytest.raises(kind, match="window 3 "):
            _textures(sounds)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.zeros((2, 29_999), np.float32), "29999 samples at 20000 Hz is too short: a descriptor requires 1.5 s"),
        (np.zeros((2, 75_001), np.float32), "75001 samples at 20000 Hz is too long: cut it to 3.75 s"),
        (np.zeros(N, np.float32), r"\(moments, samples\)"),
        (np.zeros((1, N, 2), np.float32), "mono"),
        (np.zeros((1, N), np.int32), "int32"),
        (np.zeros((1, N), complex), "complex128"),
    ],
)
def test_windows_that_have_no_texture_are_refused_with_a_reason(windows, message):
    with pytest.raises(UnfitSound, match=message):
        sound_textures(windows, RATE)


def test_one_and_a_half_seconds_are_enough():
    assert np.isfinite(_textures(_noise(0, 30_000))).all()


def test_an_option_with_another_value_is_refused_by_name():
    message = "texture: order is 'compress', expected 'compress-then-resample' or 'resample-"
    with pytest.raises(EarshotError, match=message):
        _textures(_noise(0), order="compress")


@pytest.mark.slow
@pytest.mark.parametrize("corpus", benchmark.CORPORA)
def test_on_real_sounds_the_fast_path_is_near_the_judge(real_data: Path, corpus: str):
    assert benchmark.compare(sorted((real_data / corpus).glob("*.ogg")), rounds=1).faults() == []


def test_channels_lie_where_their_filters_are_largest():
    for outer_channels in ("lowpass+highpass", "band-passes"):
        frequencies = channel_frequencies(outer_channels)
        peaks = cochlear_filters(outer_channels).argmax(1) / WINDOW_SECONDS
        inner = slice(1, -1)  # a lowpass and a highpass are not largest at their edges
        np.testing.assert_allclose(frequencies[inner], peaks[inner], atol=0.2)
    assert channel_frequencies("lowpass+highpass")[[0, -1]] == pytest.approx([20, 10_000])
