"""The table of scores shows the values in the metrics and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PARAMS, earshot

from earshot.commands.scores import margins, table
from earshot.evaluation.significance import LEARNED, NOT_ABOVE, WORSE, Verdict
from earshot.report.overview import answer
from earshot.results.verdicts import Finding, Judged

VOC = {"map_pool5": 0.5, "svm_c_pool5": 0.01, "random_map_pool5": 0.25, "color_histogram_map": 0.125, "chance": 0.1}


def write(root: Path, name: str, values: object) -> None:
    (root / "metrics").mkdir(exist_ok=True)
    (root / "metrics" / f"{name}.json").write_text(json.dumps(values))


def test_every_score_stands_in_the_row_of_its_control_and_the_column_of_its_layer(tmp_path):
    write(tmp_path, "voc", VOC)
    rows = {line[:30].strip(): line[30:].split() for line in table(tmp_path).splitlines() if line}
    assert rows["VOC2007, mAP"] == ["pool5"]
    assert (rows["sound"], rows["random weights"]) == (["0.500"], ["0.250"])
    assert (rows["color histogram"], rows["chance"]) == (["0.125"], ["0.100"])
    assert "wrong sound" not in rows  # a control that was not trained has no row


def test_modes_of_training_on_have_columns_and_a_single_score_has_one(tmp_path):
    shutil.copy(PARAMS, tmp_path)  # whose order of benchmarks the table has
    write(tmp_path, "finetune", {"map_head": 0.3, "map_all": 0.4, "random_map_head": 0.2, "chance": 0.1, "steps": 6})
    write(tmp_path, "detection", {"map": 0.25, "random_map": 0.125, "wrong_sound_map": 0.15})
    rows = [line[:30].strip() + ":" + " ".join(line[30:].split()) for line in table(tmp_path).splitlines()]
    expected = [
        "rendered VOC2007, fine-tuned:head all",
        "sound:0.300 0.400",
        "random weights:0.200",
        "chance:0.100",
        ":",
    ]
    expected += ["rendered VOC2007, detection:mAP", "sound:0.250", "wrong sound:0.150", "random weights:0.125", ":"]
    assert rows[1 : 1 + len(expected)] == expected


def test_the_accuracy_of_labels_is_that_of_the_test_split(tmp_path):
    write(tmp_path, "esc50", {"accuracy": 0.5, "accuracy_std": 0.1, "spectrum_accuracy": 0.25, "chance": 0.1})
    write(tmp_path, "pretrain", {"val_accuracy": 0.5, "test_accuracy": 0.375, "test_majority": 0.25, "chance": 0.125})
    assert "from a frame of the test split: 0.375 (majority 0.250, chance 0.125)" in table(tmp_path)


def test_a_run_without_test_frames_has_no_accuracy_to_show(tmp_path):
    write(tmp_path, "esc50", {"accuracy": 0.5, "accuracy_std": 0.1, "spectrum_accuracy": 0.25, "chance": 0.1})
    write(tmp_path, "pretrain", {"test_accuracy": None, "test_majority": None, "chance": 0.5})
    text = table(tmp_path)
    assert "test split" not in text and "0.250" in text


@pytest.mark.parametrize("content", [None, "[1]", "{"])
def test_missing_or_broken_metrics_are_one_line(tmp_path, content):
    if content:
        write(tmp_path, "voc", {})
        (tmp_path / "metrics" / "voc.json").write_text(content)
    with pytest.raises(SystemExit, match=r"^earshot scores: .*metrics.*run"):
        earshot("scores", "--root", tmp_path)


def test_margins_are_those_of_the_items(tmp_path):
    write(tmp_path, "correspondence", {"accuracy": 0.75, "random_accuracy": 0.5, "pairs": 4, "chance": 0.5})
    folder = tmp_path / "data/predictions/correspondence"
    folder.mkdir(parents=True)
    (folder / "items.csv").write_text("accuracy,random_accuracy\n1,0\n1,1\n1,1\n0,0\n")
    line, _ = (line for line in margins(tmp_path).splitlines() if "above" in line)  # and above chance
    # Differences 1 0 0 0: mean 1/4, deviation 1/2, standard error 1/4; t = 1 with 3 degrees of freedom has p = .39.
    assert line.endswith("+0.250 ± 0.250 (n = 4, p = 0.39)") and "random weights" in line


def test_the_table_closes_with_n_and_verdict_of_every_benchmark_the_worst_first(tmp_path):
    shutil.copy(PARAMS, tmp_path)
    rng = np.random.default_rng(0)
    right, half = np.ones(40), np.tile([1.0, 0.0], 20)
    for name, other in (("correspondence", half), ("sun", right)):
        metric = "accuracy" if name == "correspondence" else "accuracy_pool5"
        write(tmp_path, name, {metric: 1.0, f"wrong_sound_{metric}": float(other.mean()), "chance": 0.5})
        folder = tmp_path / "data/predictions" / name
        folder.mkdir(parents=True)
        rows = "\n".join(f"{a:g},{b:g}" for a, b in zip(right, other, strict=True))
        (folder / "items.csv").write_text(f"{metric},wrong_sound_{metric}\n{rows}\n")
    write(tmp_path, "voc", {"map_fc7": 0.5, "wrong_sound_map_fc7": 0.4, "chance": 0.1, "items": 600})
    drawn = rng.normal([0.5, 0.4], 0.01, (200, 2))
    folder = tmp_path / "data/predictions/voc"
    folder.mkdir()
    (folder / "draws.csv").write_text("map_fc7,wrong_sound_map_fc7\n" + "\n".join(f"{a},{b}" for a, b in drawn))
    lines = table(tmp_path).splitlines()
    first = lines.index("What sound taught, the worst first:")
    assert lines[first + 1 : first + 4] == [
        "  rendered SUN397, accuracy 1.000 (n = 40): not above wrong sound.",
        "  rendered VOC2007, mAP 0.500 (n = 600): learned.",
        "  rendered correspondence 1.000 (n = 40): learned.",
    ]


def test_a_run_without_scores_of_items_has_no_margins(tmp_path):
    with pytest.raises(SystemExit, match="no scores of single items"):
        earshot("scores", "--margins", "--root", tmp_path)


def test_a_benchmark_of_which_only_a_further_score_was_learned_is_learned_in_part():
    def judged(rank: int) -> Judged:
        return Judged("score", 0.5, 0.1, 10, {}, Verdict(rank, "words"))

    def finding(title: str, leading: int, other: int) -> Finding:
        return Finding(title, title, judged(leading), {"a": judged(leading), "b": judged(other)}, {})

    findings = [finding("x", NOT_ABOVE, LEARNED), finding("y", LEARNED, WORSE), finding("z", WORSE, NOT_ABOVE)]
    assert answer(findings) == [
        "No sign that sound taught anything in 1 of 3 benchmarks: z.",
        "Sound taught something by some scores, not by the first, in 1 of 3 benchmarks: x.",
        "Sound taught the network something in 1 of 3 benchmarks: y.",
    ]
