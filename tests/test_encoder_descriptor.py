"""The descriptor `encoder`: a window is the mean of what a saved audio tower makes of its seconds."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from descriptions import OPTIONS
from sample_networks import save_correspondence_network

from earshot.core.errors import EarshotError
from earshot.embedding.descriptor import DescriptorModel
from earshot.networks.files import load_correspondence
from earshot.sound.description import Batch, Description, load_description
from earshot.sound.descriptors import encoder as descriptor

RATE = 16_000
SAMPLES = RATE * 15 // 4  # 3.75 s


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of encoders with three different sets of weights."""
    return save_correspondence_network(tmp_path_factory.mktemp("correspond"), "ave", seeds=(0, 1, 2))


def description(folder: Path | str, **options) -> Description:
    own = {"folder": str(folder), "network": "encoder", "features": "embedding", "windows": 4} | options
    return Description.of("encoder", {"texture": OPTIONS, "encoder": own})


def windows(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, (count, SAMPLES)).astype(np.float32)


def batch(sound: np.ndarray, rate: int, *centers: float) -> Batch:
    return Batch(sound, rate, np.empty(0, np.float32), np.array(centers))


def test_seconds_are_equally_spaced_and_a_single_one_lies_around_the_frame():
    ramp = np.arange(375, dtype=np.float32)[None]  # 3.75 s at 100 Hz, so that the rate stays
    cut = descriptor.cut_seconds(batch(ramp, 100, 1.875), 4, 100, 100)
    assert cut.shape == (1, 4, 100)
    assert cut[0, :, 0].tolist() == [0, 92, 183, 275]  # 275 / 3 = 91.67
    assert cut[0, 3, -1] == 374
    for center, first in ((1.875, 138), (0.2, 0), (3.7, 275)):  # 187.5 - 50 = 137.5, rounded to even
        assert descriptor.cut_seconds(batch(ramp, 100, center), 1, 100, 100)[0, 0, 0] == first


@pytest.mark.parametrize(("features", "size"), [("embedding", 8), ("maps", 32)])  # 128 and 512 units, a sixteenth
def test_a_window_is_the_mean_over_its_seconds(folder, features, size):
    sound = np.repeat(windows(2), 3, axis=1)  # at 48 kHz, as the network takes it
    described, silent = description(folder, features=features).describe(sound, 48_000)
    network = load_correspondence(folder)
    starts = [0, 44_000, 88_000, 132_000]  # (180,000 - 48,000) / 3 apart
    for row, window in zip(described, sound, strict=True):
        seconds = torch.from_numpy(np.stack([window[start : start + 48_000] for start in starts]))
        with torch.inference_mode():
            expected = {
                "embedding": network.embed_audio(seconds),
                "maps": network.audio_maps(seconds).relu().amax((2, 3)),
            }[features].mean(0)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    assert described.shape == (2, size) and description(folder, features=features).dimensions == size
    assert not silent.any()


def test_the_memory_is_bound_and_threads_are_left_as_they_were(folder, monkeypatch):
    together, _ = description(folder).describe(windows(3), RATE)
    threads = torch.get_num_threads()
    monkeypatch.setattr(descriptor, "AT_ONCE", 5)
    sizes = []
    features = descriptor._features

    def watched(network, part, kind):
        sizes.append((len(part), torch.get_num_threads()))
        return features(network, part, kind)

    monkeypatch.setattr(descriptor, "_features", watched)
    in_parts, _ = description(folder).describe(windows(3), RATE)
    np.testing.assert_allclose(in_parts, together, atol=1e-5)
    assert sizes[1:] == [(5, 1), (5, 1), (2, 1)]  # twelve seconds; the first call counts dimensions
    assert torch.get_num_threads() == threads


def test_a_control_of_the_network_describes_otherwise(folder):
    own, random = (description(folder, network=name).describe(windows(1), RATE)[0] for name in ("encoder", "random"))
    assert np.abs(own - random).max() > 1e-3


def test_the_network_travels_with_its_description(folder, tmp_path):
    elsewhere = shutil.copytree(folder, tmp_path / "correspond")
    kept = description(elsewhere, network="random")
    expected, _ = kept.describe(windows(1), RATE)
    (tmp_path / "descriptor").mkdir()
    kept.save(tmp_path / "descriptor", ["a"])
    shutil.rmtree(elsewhere)
    assert {file.name for file in (tmp_path / "descriptor").iterdir()} == {
        "descriptor.json", "encoder.json", "random.safetensors",
    }  # fmt: skip
    assert str(tmp_path) not in (tmp_path / "descriptor" / "descriptor.json").read_text()
    moved = shutil.move(tmp_path / "descriptor", tmp_path / "moved")
    loaded = load_description(Path(moved))
    np.testing.assert_array_equal(loaded.describe(windows(1), RATE)[0], expected)
    models = [DescriptorModel(loaded), DescriptorModel(description(folder, network="random"))]
    assert models[0].audio_dimensions == 8
    assert [*models[0]._identity()] == [*models[1]._identity()]
    assert [*models[0]._identity()] != [*DescriptorModel(description(folder))._identity()]


def test_a_network_that_describes_no_window_is_refused_by_name(folder, tmp_path):
    with pytest.raises(EarshotError, match=r"encoder.folder is none, expected a folder of encoders"):
        description("none").dimensions  # noqa: B018
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    torch.save({}, pickled / "encoder.safetensors")
    with pytest.raises(EarshotError, match="is a pickle, not a complete safetensors file"):
        description(pickled).dimensions  # noqa: B018
    stereo = save_correspondence_network(tmp_path / "stereo", "multisensory", seeds=(0,), frames=8, audio_samples=5600)
    with pytest.raises(EarshotError, match="multisensory takes 2 channels of sound, expected a network of one"):
        description(stereo).dimensions  # noqa: B018
