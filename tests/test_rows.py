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

    monkeypatch.setattr(rows, "stage", run)
    monkeypatch.setattr("experiments.worlds.stage", run)
    return names


@pytest.mark.parametrize("name", [*rows.ALL])
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
        ("encoder-wrong-sound", ["correspond", "describe", "label", "pretrain"]),
        ("contrastive", ["correspond"]),
        ("contrastive-wrong-sound", ["correspond"]),
        ("cross-modal", ["correspond"]),
    ],
)
def test_a_row_runs_its_stages_once(name, stages, ran, tmp_path):
    world, root = tmp_path / "world", tmp_path / name
    for table in ("scenes", "sample", "annotations"):
        (world / "data" / table).mkdir(parents=True)
    for kind in ("sounds", "descriptor"):
        (world / "described" / "texture" / kind).mkdir(parents=True)
    root.mkdir()
    (root / "params.yaml").write_text("descriptor: texture\n")
    rows.run_row(root, ["voc"])
    assert ran == [*stages, "evaluate --benchmark voc"]
    linked = (root / "data" / "sounds").is_symlink()
    assert linked == (stages == ["label", "pretrain"])  # a row that describes sounds writes its own
    rows.run_row(root, ["voc"])
    assert len(ran) == len(stages) + 1
    (root / "metrics" / f"{stages[-1]}.json").unlink()  # interrupted in the last stage
    rows.run_row(root, ["voc"])
    assert ran[len(stages) + 1 :] == stages[-1:]


def test_a_world_continues_wherever_it_was_interrupted(tmp_path, monkeypatch):
    root, described = tmp_path / "world", []

    def describe(words: str, root: Path, workers: int = 1) -> None:
        described.append(words)
        for folder in ("models/descriptor", "data/sounds"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / "file").write_text(f"{len(described)}")

    renamed = []

    def interrupted(self: Path, target: Path) -> Path:
        renamed.append(target)
        if len(renamed) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    rename = Path.rename
    monkeypatch.setattr(rows, "render", lambda root, workers: None)
    monkeypatch.setattr(rows, "stage", describe)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.make_world(root, ["mfcc"], 1)
    rows.make_world(root, ["mfcc"], 1)
    rows.make_world(root, ["mfcc"], 1)
    assert len(described) == 2
    kept = {str(file.relative_to(root / "described")): file.read_text() for file in root.rglob("file")}
    assert kept == {"mfcc/descriptor/file": "2", "mfcc/sounds/file": "2"}


def test_image_towers_that_learned_beside_sounds_are_evaluated_themselves():
    for name in ("contrastive", "cross-modal"):
        values = dict(map(split_override, rows.settings_of(name, ())))
        assert {values[f"evaluate.{benchmark}.encoder"] for benchmark in rows.SCORES} == {"models/correspond"}


def test_a_row_without_labels_has_scores_alone(tmp_path):
    folder = tmp_path / "seed-0" / "contrastive" / "metrics"
    folder.mkdir(parents=True)
    for benchmark, metric in rows.SCORES.items():
        (folder / f"{benchmark}.json").write_text(json.dumps({f"{metric}_pool5": 0.5, f"random_{metric}_pool5": 0.3}))
    (line,) = rows.collect(tmp_path)
    assert (line["row"], line["voc"], line["sun"]) == ("contrastive", 0.5, 0.5)
    assert line["test_accuracy"] is None


def test_a_control_is_a_row_of_wrong_sounds(tmp_path):
    for name, trained, wrong in (("encoder", 0.4, None), ("contrastive", 0.6, 0.2)):
        folder = tmp_path / "seed-0" / f"{name}-wrong-sound" / "metrics"
        folder.mkdir(parents=True)
        for benchmark, metric in rows.SCORES.items():
            values = {f"{metric}_pool5": trained, f"wrong_sound_{metric}_pool5": wrong}
            (folder / f"{benchmark}.json").write_text(json.dumps(values))
    # The network that learned labels of a tower of wrong sounds; the image tower that learned beside wrong sounds.
    scores = {line["row"]: line["voc"] for line in rows.collect(tmp_path)}
    assert scores == {"encoder-wrong-sound": 0.4, "contrastive-wrong-sound": 0.2}
    for name in rows.CONTROLLED:
        own, control = (dict(map(split_override, rows.settings_of(f"{name}{end}", ()))) for end in ("", "-wrong-sound"))
        differing = {key: value for key, value in control.items() if own.get(key) != value}
        network = {"encoder.network": "wrong_sound"} if name == "encoder" else {}
        assert differing == {"correspond.control": True} | network


def test_orderings_name_rows():
    names = {*rows.ALL, *rows.CONTROLS}
    assert {name for _, *both in rows.ORDERINGS for name in both} <= names
