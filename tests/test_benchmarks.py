"""What benchmarks have in common: how they are displayed."""

import json
import re

import numpy as np
import pytest

from earshot.benchmarks import voc
from earshot.core.errors import EarshotError
from earshot.core.registry import find_all, names
from earshot.evaluation.benchmark import Result, is_rendered_data, read_item_scores, write_predictions

BENCHMARKS = names("earshot.benchmarks")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_how_a_benchmark_is_displayed_is_described_as_json(benchmark):
    of = find_all("earshot.benchmarks", "BENCHMARK")[benchmark]
    described = json.loads(json.dumps(of.describe()))
    assert described["title"] == of.title and described["higher_is_better"] is True
    assert not of.leading or re.fullmatch(f"({of.scores})(?:_(.+))?", of.leading)
    assert all(prefix.endswith("_") for prefix in [*of.controls.values(), *of.alike.values()])
    assert set(of.own_beside) <= set(of.controls)


def test_scores_of_items_are_written_and_read_for_a_paired_test(tmp_path):
    scores = {"accuracy": np.array([True, False, True]), "random_accuracy": np.array([0.25, 0.5, 0.0])}
    result = Result({}, [], "p", "s", ["a", "b", "c"], item_scores=scores)
    write_predictions(tmp_path, voc.BENCHMARK, result)
    read = read_item_scores(tmp_path)
    assert {name: values.tolist() for name, values in read.items()} == {
        "accuracy": [1, 0, 1],
        "random_accuracy": [0.25, 0.5, 0],
    }
    # Of clips, where the others are of pairs.
    scores |= {"own_sound": np.array([0.5, 1.0])}
    write_predictions(tmp_path, voc.BENCHMARK, Result({}, [], "p", "s", ["a", "b"], item_scores=scores))
    assert {name: values.tolist() for name, values in read_item_scores(tmp_path).items()} == {
        "accuracy": [1, 0, 1],
        "random_accuracy": [0.25, 0.5, 0],
        "own_sound": [0.5, 1],
    }
    write_predictions(tmp_path, voc.BENCHMARK, Result({}, [], "p", "s", []))
    assert read_item_scores(tmp_path) == {}
    for damaged in ("accuracy,other\n,1\n1,1\n", "accuracy,other\n1\n"):
        (tmp_path / "items.csv").write_text(damaged)
        with pytest.raises(EarshotError, match=r"items.csv: cannot be read .*run the stage evaluate again"):
            read_item_scores(tmp_path)
    (tmp_path / "items.csv").write_text("accuracy\nhigh\n")
    with pytest.raises(EarshotError, match=r"items.csv: cannot be read .*run the stage evaluate again"):
        read_item_scores(tmp_path)


@pytest.mark.parametrize(
    ("data_dir", "clips", "manifest", "rendered"),
    [
        ("data/sample/VOCdevkit", "videos", "manifests/a.json", True),
        ("VOCdevkit", "data/clips", "data/sample/corpus", False),
        ("data/scenes", "data/clips", "data/sample/corpus", True),
        ("data/scenes", "data/clips", "manifests/a.json", False),
        ("data/scenes", "videos", "data/sample/corpus", False),
    ],
)
def test_data_of_the_sample_and_scenes_of_its_clips_are_rendered(data_dir, clips, manifest, rendered):
    assert is_rendered_data(data_dir, clips, manifest) is rendered


def test_voc_is_displayed_as_the_papers_have_it():
    described = voc.BENCHMARK.describe()
    assert {"params", "evaluate"}.isdisjoint(described)
    assert described["controls"] == {"wrong sound": "wrong_sound_", "random weights": "random_"}
    assert (described["scores"], described["leading"], described["metric"]) == ("map", "map_pool5", "mAP")
