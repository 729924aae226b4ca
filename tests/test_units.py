"""Units that prefer a class: the top clips of each by hand, and the counts of the benchmark."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from annotated_scenes import TEST_GROUPS, Telling, write_annotated

from earshot.benchmarks.units import class_counts, evaluate
from earshot.evaluation.benchmark import Context, NotApplicable
from earshot.evaluation.clips import annotated_moments as moments
from earshot.evaluation.clips.clip_embeddings import annotation_table


def test_the_five_clips_that_activate_a_unit_most_are_counted_by_class():
    names, annotated = annotation_table([["a"], ["a"], ["a", "b"], ["b"], ["a"], ["b"], ["c"]])
    assert names == ["a", "b", "c"]
    activations = np.array([[9, -1, 3], [8, -2, 3], [7, -3, 3], [6, -4, 3], [5, -5, 3], [4, -6, 3], [3, -7, 3]], float)
    np.testing.assert_array_equal(
        class_counts(activations, annotated),
        [[4, 2, 0], [4, 2, 0], [0, 0, 0]],  # the last unit is equal for all clips
    )
    np.testing.assert_array_equal(class_counts(-activations[:, :1], annotated), [[2, 3, 1]])


class Responding(Telling):
    """Three units: brighter images, darker images, and the same for all; the sound's loudest sample."""

    def image_maps(self, images):
        light = images.float().mean(1) / 255
        maps = torch.stack([light - 1, -light, 0 * light], 1)  # none above zero, as some are before a ReLU
        maps[:, :, 0, 0] -= 5  # only the largest value of a map counts
        return maps

    def audio_maps(self, sounds):
        return sounds.abs().amax(1)[:, None, None, None].expand(-1, 1, 2, 2)


@pytest.fixture
def run_benchmark(tmp_path, monkeypatch):
    def run(clips):
        annotations = [["bright"] if number >= clips - 5 else ["dark", "all"] for number in range(clips)]
        write_annotated(
            tmp_path, [20 * number for number in range(clips)], [0.5] * clips, annotations, TEST_GROUPS[:clips]
        )
        networks = {"": Responding(), "random_": Responding()}
        monkeypatch.setattr(moments, "load_correspondences", lambda folder: networks)
        data, params = tmp_path / "data", SimpleNamespace(split="test")
        return evaluate(Context(data / "scenes", tmp_path, params, 0, tmp_path, data / "annotations"))

    return run


def test_units_and_the_classes_they_prefer_are_counted(run_benchmark):
    result = run_benchmark(12)
    metrics = result.metrics
    assert metrics["classes4_image"] == 3  # bright by the first unit; dark and all by the second
    assert metrics["units4_image"] == pytest.approx(2 / 3)
    assert metrics["class_share4_image"] == 3 / metrics["classes"]
    assert metrics["units4_audio"] == metrics["classes4_audio"] == 0  # all sounds are as loud
    assert metrics["random_classes4_image"] == 3
    assert (metrics["classes"], metrics["clips"]) == (3, 12)
    actual = {row["class"]: row["units4_image"] for row in result.classes}
    assert actual == {"bright": 1, "dark": 1, "all": 1}


def test_fewer_clips_than_are_counted_give_no_result(run_benchmark):
    with pytest.raises(NotApplicable, match="4 annotated clips in the split test, expected 5 or more"):
        run_benchmark(4)
