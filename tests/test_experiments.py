"""Experiments: settings that do not mix, rows that fail, and the corpus and the lines of the one on real clips."""

import csv
import json
import time
from functools import partial
from operator import attrgetter
from pathlib import Path

import pytest
from conftest import PARAMS

from earshot.core.params import load_params, split_override
from earshot.core.yaml_files import read_yaml
from earshot.corpus.split import split_of
from earshot.params.schema import Pipeline
from experiments import correspondence, real, rows, worlds

NAMES = ("cat", "dog; bark", "")
CLIPS = [
    (f"{collection}_{number}.mp4", f"{collection}/{number // 2}", NAMES[number % 3])
    for collection, count in (("UCF101", 60), ("Cats", 20))
    for number in range(count)
]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "real" / "clips"
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "group", "annotations"), *CLIPS])
    for name, _, _ in CLIPS:
        (folder / name).write_text(name)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def test_each_seed_splits_the_same_groups_otherwise(clips, tmp_path):
    splits = []
    for seed in range(2):
        folder = tmp_path / f"seed-{seed}" / "corpus"
        real.make_corpus(folder, clips, seed)
        rows = rows_of(folder)
        assert [row["file"] for row in rows] == [name for name, _, _ in CLIPS]
        assert [row["group"] for row in rows] == [f"{seed}/{group}" for _, group, _ in CLIPS]
        assert all((folder / row["file"]).read_text() == row["file"] for row in rows)
        splits.append([split_of(row["group"]) for row in rows])
    assert splits[0] != splits[1]
    assert {name["id"] for name in json.loads((tmp_path / "seed-0" / "ontology.json").read_text())} == {
        "cat",
        "dog",
        "bark",
    }


def test_within_are_the_test_clips_of_the_largest_collection(clips, tmp_path):
    assert real.largest_collection(clips) == "UCF101"
    select = real.within_largest(clips)
    real.make_corpus(tmp_path / "within" / "corpus", clips, 3, select)
    kept = {row["file"] for row in rows_of(tmp_path / "within" / "corpus")}
    assert kept == {name for name, group, _ in CLIPS if name.startswith("UCF") and split_of(f"3/{group}") == "test"}
    assert kept


def test_lines_hold_the_controls_and_both_galleries(tmp_path, capsys):
    for seed, own in enumerate((0.7, 0.8)):
        root = tmp_path / f"seed-{seed}" / "contrastive"
        for folder, roc in ((root, own), (root / "within", own - 0.1)):
            (folder / "metrics").mkdir(parents=True)
            values = {"roc_auc": roc, "wrong_sound_roc_auc": 0.5, "random_roc_auc": 0.45, "chance": 0.5}
            (folder / "metrics" / "correspondence.json").write_text(json.dumps(values))
    lines = real.collect(tmp_path)
    assert [(line["seed"], line["network"]) for line in lines] == [
        (seed, network) for seed in range(2) for network in ("trained", "wrong sound", "random", "beside")
    ]
    assert lines[4]["correspondence roc_auc"] == 0.8
    assert lines[4]["within correspondence roc_auc"] == pytest.approx(0.7)
    assert lines[5]["within correspondence roc_auc"] == 0.5
    real.report(lines)
    printed = capsys.readouterr().out
    assert "0.750 ± 0.071" in printed and "trained above by +0.250" in printed


def write_metrics(root: Path, *names: str) -> None:
    (root / "metrics").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "metrics" / f"{name}.json").write_text("{}")


def test_a_folder_keeps_the_settings_of_what_has_finished_in_it(tmp_path):
    root = tmp_path / "seed-0" / "cluster"
    write = partial(worlds.write_params, root, "sample-large", 0)
    write(["pretrain.epochs=3"])
    write(["pretrain.epochs=4", "clusters=5"])  # nothing has finished
    write_metrics(root, "label")
    write(["pretrain.epochs=5", "clusters=5"])  # label does not read it
    assert read_yaml(root / "params.yaml")["pretrain"]["epochs"] == 5
    with pytest.raises(SystemExit, match=r"seed-0/cluster: its label was run with clusters=5, and now it is 6; set it"):
        write(["clusters=6"])
    write_metrics(root, "pretrain", "voc")
    write(["clusters=5", "pretrain.epochs=5", "evaluate.sun.images_per_class=2"])  # sun has not been measured
    for change, name in (
        ("pretrain.epochs=6", "pretrain"),
        ("evaluate.voc.resize=99", "voc"),
        ("sample.clips=99", "sample"),
        ("descriptor=mfcc", "describe"),
    ):
        before = (root / "params.yaml").read_text()
        with pytest.raises(SystemExit, match=f"its {name} was run with {change.partition('=')[0]}="):
            write(["clusters=5", "pretrain.epochs=5", change])
        assert (root / "params.yaml").read_text() == before
    same = ["clusters=5", "pretrain.epochs=5"]
    worlds.check_params(root, "sample-large", 0, [*same, "label.control=wrong-sound"], but=["label.control"])
    with pytest.raises(SystemExit, match="with sample.seed=0, and now it is 1"):
        worlds.check_params(root, "sample-large", 1, same)


def test_a_setting_that_is_no_parameter_ends_with_its_name(tmp_path):
    with pytest.raises(SystemExit, match="unknown parameter clusterz"):
        worlds.write_params(tmp_path, "sample-large", 0, ["clusterz=3"])


@pytest.mark.parametrize("program", [rows, correspondence])
def test_rows_of_other_settings_stop_a_run_before_it_begins(program, tmp_path, monkeypatch):
    """Also a row that --rows leaves out, since its results stand in the same table."""
    name = next(iter(program.ROWS))
    root = tmp_path / "seed-0" / name
    worlds.write_params(root, program.RECIPE, 0, program.settings_of(name, ["extract.frames=2"]))
    write_metrics(root, "pretrain")
    monkeypatch.setattr("sys.argv", ["experiment", "--seeds", "0", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=rf"seed-0/{name}: its extract was run with extract.frames=2, and now"):
        program.main()


def test_a_row_that_fails_stops_no_other_and_is_named_at_the_end(tmp_path, capsys):
    done = []

    def failing() -> None:
        raise SystemExit("stage: exit status 1: no memory")

    def slow(name: str) -> None:
        time.sleep(0.01)
        done.append(name)

    jobs = {"seed 0, a": failing} | {f"seed 0, {name}": partial(slow, name) for name in "bc"}
    failures = worlds.run_all(jobs, workers=1)
    assert done == ["b", "c"]
    assert failures == ["seed 0, a: stage: exit status 1: no memory"]
    lines = [{"row": "b", "score": 1}, {"row": "c", "score": 2, "further": 3}]
    with pytest.raises(SystemExit, match=r"1 failed, the finished ones are in .*rows.csv; .*\nseed 0, a: stage: exit"):
        worlds.finish(tmp_path / "rows.csv", lines, print, failures)
    assert (tmp_path / "rows.csv").read_text() == "row,score,further\nb,1,\nc,2,3\n"
    worlds.finish(tmp_path / "rows.csv", lines, print, [])
    with pytest.raises(SystemExit, match="1 failed, no row is finished"):
        worlds.finish(tmp_path / "none.csv", [], print, failures)
    with pytest.raises(SystemExit, match="holds no row with all its scores"):
        worlds.finish(tmp_path / "none.csv", [], print, [])


@pytest.mark.parametrize("name", correspondence.ROWS)
def test_the_settings_of_a_row_are_parameters(name):
    changes = correspondence.settings_of(name, ())
    params = load_params(Pipeline, PARAMS, changes)
    for key, value in dict(map(split_override, changes)).items():
        actual = attrgetter(key)(params)
        assert (list(actual) if isinstance(actual, tuple) else actual) == value, key


def test_claims_are_of_rows_and_kept_scores_and_skip_what_was_not_measured(tmp_path, capsys):
    for _, (benchmark, key), *sides in correspondence.CLAIMS:
        assert key in correspondence.SCORES[benchmark]
        assert {row for row, _ in sides} <= {*correspondence.ROWS}
    for name, synchrony in (("contrastive", {}), ("shifted", {"synchrony": 0.7, "random_synchrony": 0.4})):
        for seed, accuracy in ((0, 0.8), (1, 0.9)):
            root = tmp_path / f"seed-{seed}" / name
            write_metrics(root)
            for benchmark, keys in correspondence.SCORES.items():
                values = {f"{prefix}{key}": accuracy for key in keys for prefix in ("", "random_")}
                values |= dict.fromkeys(keys.values(), 0.5)
                if benchmark == "correspondence":
                    values = {key: value for key, value in values.items() if "synchrony" not in key} | synchrony
                (root / "metrics" / f"{benchmark}.json").write_text(json.dumps(values))
    correspondence.report(correspondence.collect(tmp_path))
    printed = capsys.readouterr().out
    assert "shifted: synchrony above chance: in 2 of 2 seeds, by +0.200" in printed
    assert "shifted negatives above contrastive, accuracy: in 0 of 2 seeds" in printed
    assert "shifted negatives above contrastive, synchrony" not in printed


def test_every_row_of_a_folder_is_collected(tmp_path):
    for seed, name in ((10, "binary"), (2, "binary"), (2, "cluster")):
        write_metrics(tmp_path / f"seed-{seed}" / name, "voc")
    (tmp_path / "seed-2" / "mfcc").mkdir()
    collected = worlds.measured(tmp_path, ["cluster", "binary", "mfcc"])
    assert [(seed, name) for seed, name, _ in collected] == [(2, "cluster"), (2, "binary"), (10, "binary")]


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """What real ran, by folder; a stage writes its metrics."""
    names: list[str] = []

    def run(words: str, root: Path, workers: int = 1) -> None:
        names.append(f"{root.name}: {words}")
        write_metrics(root, words.split()[-1])

    monkeypatch.setattr(real, "stage", run)
    monkeypatch.setattr(worlds, "stage", run)
    return names


def test_a_row_of_labels_is_measured_by_the_clusters_of_its_images_too(ran, tmp_path):
    for table in ("data/scenes", "data/annotations", "data/sounds", "models/descriptor"):
        for place in ("all", "within"):
            (tmp_path / place / table).mkdir(parents=True)
    root = tmp_path / "texture"
    (root / "models" / "pretrain").mkdir(parents=True)
    real.run_row(root)
    assert ran == [
        *("texture: label", "texture: pretrain", "texture: evaluate --benchmark voc"),
        *("texture: evaluate --benchmark nmi", "within: evaluate --benchmark nmi"),
    ]
    assert (root / "within" / "models" / "pretrain").resolve() == root / "models" / "pretrain"
    real.run_row(root)
    assert len(ran) == 5


@pytest.mark.parametrize("name", real.ROWS)
def test_a_row_is_a_recipe_whose_benchmarks_measure_its_network(name, tmp_path):
    stages, benchmarks = real.ROWS[name]
    real.write_row(tmp_path / name, Path("/data"), 0, [], worlds.write_params)
    for place, scenes in ((tmp_path / name, "all"), (tmp_path / name / "within", "within")):
        params = read_yaml(place / "params.yaml")
        assert params["corpus"]["clips"] == str(tmp_path / scenes / "corpus")
        assert {params["evaluate"][benchmark]["encoder"] for benchmark in benchmarks} == {f"models/{stages[-1]}"}


def test_sound_stands_against_kmeans_weights_by_clusters_of_images(tmp_path, capsys):
    for seed in range(3):
        for name, score in (("texture", 0.5 + seed / 10), ("kmeans", 0.3), ("contrastive", 0.7)):
            root = tmp_path / f"seed-{seed}" / name
            write_metrics(root)
            values = {"nmi_image": score, "random_nmi_image": 0.2, "chance": 0.1}
            (root / "metrics" / "nmi.json").write_text(json.dumps(values))
        accuracies = {"test_accuracy": 0.4, "test_majority": 0.3, "wrong_sound_test_accuracy": 0.2}
        texture = tmp_path / f"seed-{seed}" / "texture" / "metrics" / "pretrain.json"
        texture.write_text(json.dumps(accuracies))
    lines = real.collect(tmp_path)
    of_texture = {line["network"]: line["pretrain test_accuracy"] for line in lines if line["row"] == "texture"}
    assert of_texture == {"trained": 0.4, "wrong sound": 0.2, "random": None, "beside": 0.3}
    real.report(lines)
    printed = capsys.readouterr().out
    assert "texture above k-means initialization, nmi nmi_image: by +0.300" in printed
    assert "contrastive above k-means initialization, nmi nmi_image: by +0.400" in printed
    assert "voc map_pool5: by" not in printed  # nobody has it
