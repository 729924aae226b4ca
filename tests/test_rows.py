"""The experiment on the rows of the papers: the stages that a row runs, and the sounds that it begins with."""

import json
from operator import attrgetter
from pathlib import Path

import pytest
from conftest import PARAMS

from earshot.core.params import load_params, split_override
from earshot.params.schema import Pipeline
from experiments import rows


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The stages and benchmarks that rows ran; a stage writes its metrics."""
    names: list[str] = []

    def run(words: str, root: Path, workers: int = 1) -> None:
        names.append(words)
        file = root / "metrics" / f"{words.split()[-1]}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")

    def write_params(root: Path, recipe: str, seed: int, changes: list[str]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        values = dict(split_override(change) for change in changes)
        (root / "params.yaml").write_text(f"descriptor: {values.get('descriptor', 'texture')}\n")

    monkeypatch.setattr(rows, "stage", run)
    monkeypatch.setattr("experiments.worlds.stage", run)
    monkeypatch.setattr(rows, "write_params", write_params)
    return names


@pytest.mark.parametrize("name", [*rows.ROWS])
def test_the_settings_of_a_row_are_parameters(name):
    changes = rows.settings_of(name, ())
    params = load_params(Pipeline, PARAMS, changes)
    for key, value in dict(map(split_override, changes)).items():
        actual = attrgetter(key)(params)
        assert (list(actual) if isinstance(actual, tuple) else actual) == value, key


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("clusters-10", ["label", "pretrain"]),
        ("encoder", ["correspond", "describe", "label", "pretrain"]),
        ("cpc", ["correspond", "describe", "label", "pretrain"]),
        ("contrastive", ["correspond"]),
        ("cross-modal", ["correspond"]),
    ],
)
def test_a_row_runs_its_stages_once(name, stages, ran, tmp_path):
    world = tmp_path / "world"
    for table in ("scenes", "sample", "annotations"):
        (world / "data" / table).mkdir(parents=True)
    for kind in ("sounds", "descriptor"):
        (world / "described" / "texture" / kind).mkdir(parents=True)
    rows.run_row(name, world, 0, (), ["voc"])
    assert ran == [*stages, "evaluate --benchmark voc"]
    linked = (tmp_path / name / "data" / "sounds").is_symlink()
    assert linked == (stages == ["label", "pretrain"])  # a row that describes sounds writes its own
    rows.run_row(name, world, 0, (), ["voc"])
    assert len(ran) == len(stages) + 1
    (tmp_path / name / "metrics" / f"{stages[-1]}.json").unlink()  # interrupted in the last stage
    rows.run_row(name, world, 0, (), ["voc"])
    assert ran[len(stages) + 1 :] == stages[-1:]


def test_image_towers_that_learned_beside_sounds_are_evaluated_themselves():
    for name in ("contrastive", "cross-modal"):
        values = dict(map(split_override, rows.settings_of(name, ())))
        assert {values[f"evaluate.{benchmark}.encoder"] for benchmark in rows.SCORES} == {"models/correspond"}


def test_a_row_without_labels_has_scores_alone(tmp_path):
    folder = tmp_path / "seed-0" / "contrastive" / "metrics"
    folder.mkdir(parents=True)
    for benchmark, metric in rows.SCORES.items():
        (folder / f"{benchmark}.json").write_text(json.dumps({f"{metric}_pool5": 0.5, f"random_{metric}_pool5": 0.3}))
    (line,) = rows.collect(tmp_path, [0], ["contrastive"])
    assert (line["row"], line["voc"], line["sun"]) == ("contrastive", 0.5, 0.5)
    assert line["test_accuracy"] is None


def test_orderings_name_rows():
    names = {*rows.ROWS, *rows.CONTROLS}
    assert {name for _, *both in rows.ORDERINGS for name in both} <= names
