"""MFCC, spectrum and the cutting of windows; silence, which does not depend on the descriptor."""

import json
import subprocess

import imageio_ffmpeg
import librosa
import numpy as np
import pytest
import soundfile
from descriptions import OPTIONS, description

from earshot.core.errors import EarshotError
from earshot.core.registry import find_all
from earshot.sound.cochlea import cochleagrams
from earshot.sound.description import DESCRIPTORS, load_description
from earshot.sound.descriptors.mfcc import COEFFICIENTS, FRAMES, SEGMENT
from earshot.sound.texture import sound_textures
from earshot.sound.windows import UnfitSound, cut_windows

RATE = 22_050
N = 82_688
SIZES = {"texture": 502, "mfcc": 3100, "spectrum": 32}


def _noise(*shape: int, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("descriptor", SIZES)
def test_every_descriptor_has_its_size_and_is_finite_even_for_silence(descriptor):
    windows = np.concatenate([_noise(2, N), np.zeros((1, N), np.float32)])
    described, silent = description(descriptor).describe(windows, RATE)
    assert described.shape == (3, SIZES[descriptor]) and described.dtype == np.float32
    assert np.isfinite(described).all()
    assert silent.tolist() == [False, False, True]


@pytest.mark.parametrize("descriptor", SIZES)
def test_windows_are_silent_by_level_or_without_energy_in_the_cochlea(descriptor):
    time = np.arange(165_375) / 44_100
    windows = [
        9e-4 * _noise(time.size),  # rms 9e-5, loud enough for the cochlea
        1.1e-3 * _noise(time.size),
        2e-4 * np.sqrt(2) * np.sin(2 * np.pi * 1000 * time) + 1e-5 * _noise(time.size),
        0.5 * np.sin(2 * np.pi * 15_000 * time),  # above the 10 kHz of the cochlea
        0.01 * _noise(time.size),
    ]
    _, silent = description(descriptor).describe(np.stack(windows), 44_100)
    assert silent.tolist() == [True, False, True, True, False]


def test_textures_are_those_of_sound_textures_under_the_same_options():
    windows, options = _noise(20, N), {"outer_channels": "band-passes", "modulation_norm": "squared-mean"}
    described, _ = description("texture", **options).describe(windows, RATE)
    np.testing.assert_array_equal(described, sound_textures(windows, RATE, **options))


def test_155_frames_follow_from_the_published_chain(tmp_path):
    # Mahadev and Lu's utils/create_dataset.py: stereo at 21 kHz, cut every 3.75 s; get_mfcc.py: librosa's defaults. The
    # FFmpeg of their time reads 4096 bytes of a WAV file at once: 1024 samples, between which it cuts.
    soundfile.write(tmp_path / "clip.wav", _noise(441_000, 2), 44_100)
    for options in (
        ["-i", "clip.wav", "-ac", "2", "-ar", "21000", "whole.wav"],
        ["-max_size", "4096", "-i", "whole.wav", "-f", "segment", "-segment_time", "3.75", "part_%03d.wav"],
    ):
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *options], cwd=tmp_path, check=True)
    parts = [soundfile.read(part)[0].mean(axis=1) for part in sorted(tmp_path.glob("part_*.wav"))]
    assert [part.size for part in parts] == [SEGMENT, SEGMENT, 210_000 - 2 * SEGMENT]
    assert librosa.feature.mfcc(y=parts[0], sr=21_000).shape == (20, 155) == (COEFFICIENTS, FRAMES)


def test_mfcc_is_that_of_the_published_segment_around_the_moment():
    sound = _noise(100_000)
    middle = 50_000
    segment = sound[middle - SEGMENT // 2 : middle + SEGMENT // 2]
    published = librosa.feature.mfcc(y=segment, sr=21_000, pad_mode="reflect")  # the default of librosa 0.7.1
    described, _ = description("mfcc").describe(sound[None, middle - 39_375 : middle + 39_375], 21_000)
    ours = described[0].reshape(20, 155)
    np.testing.assert_allclose(ours[:, 3:-3], published[:, 3:-3], rtol=1e-5, atol=1e-3)


def test_mfcc_of_a_window_does_not_depend_on_its_neighbors():
    faint, loud = _noise(N, level=1e-3), _noise(N, level=1)
    together, _ = description("mfcc").describe(np.stack([faint, loud]), RATE)
    single, _ = description("mfcc").describe(faint[None], RATE)
    np.testing.assert_array_equal(together[0], single[0])


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 32_000, 44_100, 48_000])
def test_every_source_rate_has_155_frames(sample_rate):
    described, _ = description("mfcc").describe(_noise(1, int(3.75 * sample_rate + 0.5)), sample_rate)
    assert described.shape == (1, 3100)


def test_the_spectrum_covers_a_thirtieth_of_a_second_around_the_moment():
    window = _noise(N, level=1e-3)
    burst = slice(int(1.2 * RATE), int(1.3 * RATE))
    window[burst] *= 100
    centers = np.array([1.25, 1.875, 1.1])
    described, _ = description("spectrum").describe(np.stack([window] * 3), RATE, centers)
    envelopes = cochleagrams(window[None])[0]
    for center, spectrum in zip(centers, described, strict=True):
        first, stop = np.ceil((center - 1 / 60) * 400), np.ceil((center + 1 / 60) * 400)
        np.testing.assert_allclose(spectrum, envelopes[:, int(first) : int(stop)].mean(axis=1), rtol=1e-4)
    assert (described[0, 5:] > 2 * described[1, 5:]).all()


def test_the_spectrum_of_a_window_is_that_of_its_middle_by_default():
    windows = _noise(2, N)
    np.testing.assert_array_equal(
        description("spectrum").describe(windows, RATE)[0],
        description("spectrum").describe(windows, RATE, np.array([N, N]) / RATE / 2)[0],
    )


def test_the_spectrum_keeps_the_gain():
    windows = _noise(2, N)
    quiet, loud = (description("spectrum").describe(gain * windows, RATE)[0] for gain in (0.1, 1))
    np.testing.assert_allclose(loud, quiet * 10**0.3, rtol=1e-3)


def test_an_unknown_descriptor_or_option_is_refused_by_name():
    for name, options, message in (
        ("melody", {}, "descriptor is 'melody', expected one of encoder, mfcc, spectrum, texture"),
        ("mfcc", {"order": "none"}, "texture: order is 'none'"),
        ("mfcc", {"gate": "on"}, "texture: unknown parameter gate"),
    ):
        with pytest.raises(EarshotError, match=message):
            description(name, **options)


def test_every_descriptor_is_registered_with_its_size_and_parts_of_it():
    descriptors = find_all(DESCRIPTORS, "DESCRIPTOR")
    sizes = {name: each.dimensions for name, each in descriptors.items()}
    assert callable(sizes.pop("encoder"))  # those of a network
    assert sizes == SIZES
    covered = [range(part.stop)[part] for part in descriptors["texture"].parts.values()]
    assert sorted(number for part in covered for number in part) == list(range(502))


def test_a_description_comes_back_from_disk_and_a_damaged_one_is_refused(tmp_path):
    kept = description("spectrum", outer_channels="band-passes")
    kept.save(tmp_path, ["a", "b"])
    assert load_description(tmp_path) == kept
    values = json.loads((tmp_path / "descriptor.json").read_text())
    assert values["parts"] == {"spectrum": [0, 32]} and values["dimensions"] == 32
    kept.save(tmp_path, ["b", "a"])
    assert json.loads((tmp_path / "descriptor.json").read_text())["digest"] != values["digest"]
    for changes, message in (
        ({"descriptor": "melody"}, "names no descriptor"),
        ({"options": None}, "names no descriptor with its options"),
        (
            {"options": {"texture": OPTIONS | {"outer_channels": "both"}}},
            "descriptor.json: texture: outer_channels is 'both'",
        ),
    ):
        (tmp_path / "descriptor.json").write_text(json.dumps(values | changes))
        with pytest.raises(EarshotError, match=message):
            load_description(tmp_path)
    (tmp_path / "descriptor.json").write_text("{")
    with pytest.raises(EarshotError, match="is not JSON"):
        load_description(tmp_path)
    with pytest.raises(EarshotError, match="run the stage describe, which writes it"):
        load_description(tmp_path / "elsewhere")


def test_windows_are_centered_on_their_moments_and_stay_inside_the_sound():
    sound = np.arange(10 * 8000, dtype=np.float64)[:, None]
    windows, centers = cut_windows(sound, 8000, [5.0, 0.5, 9.9, 1.875])
    assert windows.shape == (4, 30_000) and windows.dtype == np.float32
    assert windows[:, 0].tolist() == [25_000, 0, 50_000, 0]
    np.testing.assert_allclose(centers, [1.875, 0.5, 9.9 - 6.25, 1.875])


def test_a_sound_shorter_than_the_window_is_given_whole():
    windows, centers = cut_windows(_noise(16_000, 1), 8000, [0.25, 1.75])
    assert windows.shape == (2, 16_000)
    assert centers.tolist() == [0.25, 1.75]


def test_channels_are_averaged_and_int16_is_scaled():
    sound = np.array([[16_384, 0], [-32_768, 32_767]] * 8000, dtype=np.int16)
    windows, _ = cut_windows(sound, 8000, [1.0])
    assert windows[0, :2].tolist() == [0.25, -0.5 / 32_768]


@pytest.mark.parametrize(("sample_rate", "samples"), [(20_000, 75_000), (22_050, 82_688), (44_100, 165_375)])
def test_a_window_has_three_and_three_quarter_seconds_rounded_to_samples(sample_rate, samples):
    assert cut_windows(_noise(5 * sample_rate), sample_rate, [2.0])[0].shape == (1, samples)


def test_a_sound_without_samples_has_no_descriptor():
    with pytest.raises(UnfitSound, match="too short"):
        description("texture").describe(cut_windows(_noise(0, 1), 8000, [0.0])[0], 8000)
