"""The experiment on real clips: the corpus of a seed, and the lines that it collects from metrics."""

import csv
import json
from pathlib import Path

import pytest

from earshot.corpus.split import split_of
from experiments import real

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
    lines = real.collect(tmp_path, range(3), ["contrastive", "texture"])
    assert [(line["seed"], line["network"]) for line in lines] == [
        (seed, network) for seed in range(2) for network in ("trained", "wrong sound", "random", "beside")
    ]
    assert lines[4]["correspondence roc_auc"] == 0.8
    assert lines[4]["within correspondence roc_auc"] == pytest.approx(0.7)
    assert lines[5]["within correspondence roc_auc"] == 0.5
    real.report(lines)
    printed = capsys.readouterr().out
    assert "0.750 ± 0.071" in printed and "trained above by +0.250" in printed
