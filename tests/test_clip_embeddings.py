"""Moments: one of each annotated clip of the split, nearest its middle, in the order of the clips' names."""

from types import SimpleNamespace

import numpy as np
import pytest
from annotated_scenes import TEST_GROUPS, Telling, write_annotated

from earshot.core.errors import EarshotError
from earshot.evaluation.benchmark import Context
from earshot.evaluation.clips import annotated_moments
from earshot.evaluation.clips import clip_embeddings as moments


def context(root):
    data = root / "data"
    params = SimpleNamespace(split="test")
    return Context(data / "scenes", root, params, 0, root, data / "annotations")


def described(root, networks=None):
    return annotated_moments.describe_moments(
        context(root), lambda network, p: network.embed_images(p), lambda network, s: network.embed_audio(s), "x"
    )


@pytest.fixture
def networks(monkeypatch):
    actual = {"": Telling()}
    monkeypatch.setattr(annotated_moments, "load_correspondences", lambda folder: actual)
    return actual


def test_a_moment_is_the_frame_nearest_the_middle_and_the_sound_around_it(tmp_path, networks):
    groups = [TEST_GROUPS[2], "video_0", TEST_GROUPS[1], TEST_GROUPS[0]]  # video_0 is for training
    write_annotated(tmp_path, [10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4], [["a"], ["b"], ["c", "d"], []], groups)
    actual = described(tmp_path)
    assert actual.groups == sorted([TEST_GROUPS[1], TEST_GROUPS[2]])
    place = {group: actual.groups.index(group) for group in actual.groups}
    first, second = place[TEST_GROUPS[2]], place[TEST_GROUPS[1]]
    assert (actual.annotations[first], actual.annotations[second]) == (["a"], ["c", "d"])
    np.testing.assert_allclose(actual.images[""][[first, second], 0] * 255, [10, 30], atol=1)
    np.testing.assert_allclose(actual.sounds[""][[first, second], 0], [0.1, 0.3], atol=1e-3)
    assert actual.left_out == 1  # it has no annotations


def test_what_is_shorter_than_the_slice_is_left_out_and_counted(tmp_path, networks, monkeypatch):
    monkeypatch.setattr(Telling, "audio_samples", 3 * Telling.audio_rate)
    write_annotated(tmp_path, [10], [0.1], [["a"]], TEST_GROUPS[:1])
    with pytest.raises(EarshotError, match=r"no clip of the split test is annotated and 3\.00 s long"):
        described(tmp_path)


def test_a_network_of_sequences_is_refused(tmp_path, monkeypatch):
    network = Telling()
    network.frames = 63
    monkeypatch.setattr(moments, "load_correspondence", lambda folder, name: network)
    with pytest.raises(EarshotError, match="telling, which takes 63 images at a time; use a network of single"):
        moments.load_correspondences(tmp_path)


def test_the_networks_of_a_folder_are_called_by_the_prefixes_of_their_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(moments, "load_correspondence", lambda folder, name: Telling())
    assert list(moments.load_correspondences(tmp_path)) == ["", "random_"]
    (tmp_path / "wrong_sound.safetensors").touch()
    assert set(moments.load_correspondences(tmp_path)) == {"", "wrong_sound_", "random_"}


def test_damaged_annotations_are_refused_by_file(tmp_path):
    (tmp_path / "00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(EarshotError, match=r"00000.parquet: cannot be read"):
        moments.read_all_annotations(tmp_path)
