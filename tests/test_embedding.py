"""Embeddings: times are right; an array and a file of every kind give the same vectors."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from odd_media import MP4, ffmpeg, flashing, render
from PIL import Image

import earshot
from earshot.core.errors import EarshotError
from earshot.embedding.model import Model
from earshot.embedding.windows import Windows
from earshot.networks.backbones import build_network
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights
from earshot.sound.windows import UnfitSound

RATE = 48_000


def saved(folder, network) -> str:
    with torch.no_grad():
        for values in network.parameters():
            if not values.any():  # the last layer of an untrained network
                values.copy_(torch.linspace(-1, 1, values.numel()).view_as(values))
    save_architecture(folder, network)
    save_weights(folder, "encoder", network)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Model]:
    """A small network of each kind, by name."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    built = {name: build_correspondence(name, width=1 / 16, image_size=32, stride=2) for name in ("ave", "avol", "l3")}
    built["alexnet"] = build_network("alexnet", classes=3, width=1 / 16, image_size=64, dropout=0.0)
    for network in built.values():
        if hasattr(network, "audio_mean"):
            network.audio_mean.fill_(-10.0)
            network.audio_std.fill_(3.0)
    return {name: earshot.load(saved(folder / name, network)) for name, network in built.items()}


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise that is exact in 16 bits: float32 (samples,)."""
    drawn = np.random.default_rng(seed).integers(-8000, 8000, round(seconds * rate))
    return drawn.astype(np.float32) / 32768


def openl3_times(samples: int, hop: int, center: bool) -> list[tuple[int, int]]:
    """Begin and end of the windows of 48,000 samples that OpenL3 cuts (openl3/core.py), in samples of the sound."""
    padded = samples + 24_000 * center
    number = 1 if padded <= 48_000 else 1 + int(np.ceil((padded - 48_000) / hop))
    return [(k * hop - 24_000 * center, k * hop - 24_000 * center + 48_000) for k in range(number)]


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.05, 3.25])
def test_windows_are_those_of_openl3_however_the_sound_arrives(seconds, center):
    sound = np.arange(1, round(seconds * RATE) + 1, dtype=np.float32)[:, None]
    padded = np.concatenate([np.zeros((RATE, 1)), sound, np.zeros((2 * RATE, 1))])
    expected = [padded[begin + RATE : end + RATE] for begin, end in openl3_times(len(sound), 4_800, center)]
    for size in (1_000, 37_123, 10**6):
        windows = Windows(RATE, RATE, hop_s=0.1, center=center, padded=True)
        cut = [each for first in range(0, len(sound), size) for each in windows.add(sound[first : first + size])]
        np.testing.assert_array_equal(cut + windows.finish(), expected)


def test_a_window_is_where_it_should_be_after_hours():
    windows = Windows(480, RATE, hop_s=1 / 3, center=True, padded=True)
    windows.count = 3 * 3600 * 9 + 1
    assert windows._start() + windows.before == round((9 * 3600 + 1 / 3) * RATE)


@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_a_click_moves_the_embeddings_whose_windows_hold_it_and_no_others(models, rate):
    sound = noise(5, rate=rate) / 100
    clicked = sound.copy()
    clicked[2 * rate] = 0.9
    before, times = models["ave"].embed_audio(sound, rate)
    after, _ = models["ave"].embed_audio(clicked, rate)
    moved = np.abs(after - before).max(axis=1)
    slack = 0.0 if rate == RATE else 0.02  # the filter that resamples rings for some milliseconds
    holds = (times - 0.5 - slack <= 2) & (times + 0.5 + slack > 2)
    surely = (times - 0.49 < 2) & (times + 0.49 > 2)
    assert (moved[surely] > 1e-4).all() and (moved[~holds] == 0 if rate == RATE else moved[~holds] < 1e-4).all()
    assert surely.sum() >= 9


# The least cosine of an embedding with that of the array; lossy codecs change the sound itself.
COSINES = {"wav": 1 - 1e-6, "flac": 1 - 1e-6, "ogg": 0.95, "mp4": 0.99}


@pytest.mark.parametrize("kind", COSINES)
def test_an_array_and_a_file_of_each_kind_give_the_same_vectors(models, tmp_path, kind):
    sound = (noise(2.97) * 32768).astype(np.int16)
    wav = tmp_path / "sound.wav"
    soundfile.write(wav, sound, RATE, subtype="PCM_16")
    file = tmp_path / f"sound.{kind}"
    if kind == "mp4":
        ffmpeg("-f", "lavfi", "-i", "color=black:s=64x48:d=3", "-i", wav, *MP4, "-b:a", "256k", file)
    elif kind != "wav":
        soundfile.write(file, sound, RATE)
    expected, times = models["ave"].embed_audio(sound, RATE)
    for source in (file, str(file), file.read_bytes()):
        actual, same_times = models["ave"].embed_audio(source)
        assert len(actual) == len(expected)
        np.testing.assert_array_equal(same_times, times)
        assert (actual * expected).sum(axis=1).min() > COSINES[kind]


def test_shapes_and_types(models):
    model, sound = models["ave"], noise(2.0)
    embeddings, times = model.embed_audio(sound, RATE, hop=0.5)
    assert embeddings.shape == (4, model.audio_dimensions) and embeddings.dtype == np.float32
    np.testing.assert_allclose(times, [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    stereo, _ = model.embed_audio(np.stack([sound, sound], axis=1), RATE, hop=0.5)
    np.testing.assert_allclose(stereo, embeddings, atol=1e-6)
    np.testing.assert_allclose(model.embed_audio(sound.astype(np.float64), RATE, hop=0.5)[0], embeddings, atol=1e-6)
    several = model.embed_audio([sound, noise(1.2)], RATE, hop=0.5)
    np.testing.assert_array_equal(several[0][0], embeddings)
    assert [len(each) for each, _ in several] == [4, 3]
    pooled = model.pool(embeddings)
    np.testing.assert_allclose(pooled, embeddings.mean(axis=0), atol=1e-6)


def test_images_of_any_size_and_from_files(models, tmp_path):
    model = models["alexnet"]
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    one = model.embed_image(image)
    assert one.shape == (model.image_dimensions,) and one.dtype == np.float32
    for same in (tmp_path / "image.png", (tmp_path / "image.png").read_bytes(), image[:, 15:105]):
        np.testing.assert_allclose(model.embed_image(same), one, atol=1e-5)
    many = model.embed_image([image, np.zeros((64, 64, 3), np.uint8)])
    np.testing.assert_allclose(many[0], one, atol=1e-5)
    with pytest.raises(EarshotError, match="expected uint8 of shape"):
        model.embed_image(image[:, :, 0])
    with pytest.raises(EarshotError, match="alexnet embeds no sounds"):
        model.embed_audio(noise(1), RATE)


def test_sound_and_images_of_a_video_are_on_one_clock(models, tmp_path):
    video = render(tmp_path / "flash.mp4", *MP4, image=flashing(2.4), sound="sine=440:r=44100:d=5")
    model = models["ave"]
    both = model.embed_video(video)
    audio, times = model.embed_audio(video)
    np.testing.assert_array_equal(both.audio, audio)
    np.testing.assert_array_equal(both.times, times)
    assert len(both.images) == len(both.times)
    black = both.images[0]
    white = np.abs(both.images - black).max(axis=1) > 1e-3
    np.testing.assert_allclose(both.times[white], [2.4, 2.5])  # the flash lasts from 2.4 s to 2.59 s


def test_scores_of_pairs_and_maps_are_those_of_the_network(models):
    sound, images = noise(2.0, 3), np.random.default_rng(1).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    windows = torch.from_numpy(np.stack([np.pad(sound, (24_000, 0))[:RATE], sound[:RATE]]))  # at 0 s and 0.5 s
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    for name in ("ave", "avol", "l3"):
        network = models[name].network
        scores = models[name].match(sound, images, RATE, hop=0.5)
        assert scores.shape == (4, 3)
        with torch.inference_mode():
            for row, window in enumerate(windows):
                expected = network(planes, window.expand(3, -1).contiguous())
                np.testing.assert_allclose(scores[row], expected, rtol=1e-4, atol=1e-4)
            maps = network.localization_map(planes[:1], windows[1:])
        actual = models[name].localize(images[0], sound, RATE, hop=0.5)
        np.testing.assert_allclose(actual[1], maps[0], rtol=1e-4, atol=1e-4)
        assert models[name].match(sound, images[0], RATE, hop=0.5).shape == (4, 1)
    with pytest.raises(EarshotError, match="embeds no pairs"):
        models["alexnet"].match(sound, images, RATE)


def test_unfit_sounds_raise_or_give_rows_of_nan(models):
    model = models["ave"]
    with pytest.raises(UnfitSound, match=r"too short: 0.05 s, ave requires 0.1 s"):
        model.embed_audio(noise(0.05), RATE)
    with pytest.raises(UnfitSound, match="is silent"):
        model.embed_audio(np.zeros(RATE, np.float32), RATE)
    broken = noise(3.0)
    broken[round(1.75 * RATE)] = np.nan
    with pytest.raises(UnfitSound, match=r"NaN or infinity at 1.750 s"):
        model.embed_audio(broken, RATE)
    embeddings, times = model.embed_audio(broken, RATE, hop=0.5, unfit="nan")
    np.testing.assert_array_equal(np.isnan(embeddings[:, 0]), (times > 1.25) & (times < 2.25))
    short, _ = model.embed_audio(noise(0.05), RATE, unfit="nan")
    assert short.shape == (1, model.audio_dimensions) and np.isnan(short).all()
    half = np.concatenate([noise(2.0), np.zeros(3 * RATE, np.float32)])
    assert np.isfinite(model.embed_audio(half, RATE)[0]).all()
    embeddings, times = model.embed_audio(half, RATE, hop=0.5, unfit="nan")
    np.testing.assert_array_equal(np.isnan(embeddings[:, 0]), times >= 2.5)
    for shape in ((2, 3, 4), (2, RATE)):
        with pytest.raises(UnfitSound, match="expected"):
            model.embed_audio(np.zeros(shape, np.float32), RATE)
    with pytest.raises(UnfitSound, match="requires its rate"):
        model.embed_audio(noise(1))


def test_textures_are_a_model_that_needs_no_torch():
    script = """
import sys, numpy as np, earshot
model = earshot.load("texture")
sound = np.random.default_rng(0).standard_normal(80_000) / 10
embeddings, times = model.embed_audio(sound, 16_000, hop=1.0)
assert embeddings.shape == (5, 502) and list(times) == [0, 1, 2, 3, 4], (embeddings.shape, times)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_texture_windows_lie_within_the_sound():
    sound = noise(6.0, rate=16_000)
    embeddings, _ = earshot.load("texture").embed_audio(sound, 16_000, hop=1.0)
    starts = [0, 0, 2_000, 18_000, 34_000, 36_000]  # those around 2 s, 3 s and 4 s are centered, others shifted
    windows = np.stack([sound[start : start + 60_000] for start in starts])
    expected = np.concatenate([earshot.textures(window, 16_000) for window in windows])
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-6)


def test_a_fingerprint_names_the_weights_and_the_options(models, tmp_path):
    model = models["ave"]
    same = earshot.load(saved(tmp_path / "same", build_correspondence("ave", width=1 / 16, image_size=32, stride=2)))
    assert same.fingerprint != model.fingerprint  # the scale of its audio is another
    same.network.load_state_dict(model.network.state_dict())
    save_weights(tmp_path / "same", "encoder", same.network)
    again = earshot.load(tmp_path / "same" / "encoder.safetensors")
    assert again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(again.embed_audio(noise(1), RATE)[0], model.embed_audio(noise(1), RATE)[0])
    assert earshot.load(tmp_path / "same", layer="pool5").fingerprint != model.fingerprint


def test_what_is_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(EarshotError, match="holds no model"):
        earshot.load(tmp_path)
    with pytest.raises(EarshotError, match=r"unreadable|unsupported"):
        earshot.load("texture").embed_audio(io.BytesIO(b"no sound at all").getvalue())
    with pytest.raises(EarshotError, match=r"nothing\.wav: unreadable: No such file.*; docs/troubleshooting\.md has"):
        earshot.load("texture").embed_audio(tmp_path / "nothing.wav")
