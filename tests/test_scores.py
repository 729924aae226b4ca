"""The table of scores shows the values in the metrics and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PARAMS, earshot

from earshot.commands.scores import VERDICTS, margins, table
from earshot.evaluation.significance import Margin, decide
from earshot.results.verdicts import Finding, Items, Judged, answers

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
    first = lines.index(VERDICTS)
    assert lines[first + 1 : first + 4] == [
        "  rendered SUN397, accuracy 1.000 (n = 40 test images): no better than wrong sound; above chance",
        "  rendered VOC2007, mAP 0.500 ± 0.010 (n = 600 test images): learned",
        "  rendered correspondence 1.000 (n = 40 pairs of image and sound): learned",
    ]


def test_a_run_without_scores_of_items_has_no_margins(tmp_path):
    with pytest.raises(SystemExit, match="no scores of single items"):
        earshot("scores", "--margins", "--root", tmp_path)


BETTER, HIGHER = Margin(50, 0.3, 0.05, 0.001), Margin(50, 0.09, 0.045, 0.15)
LOWER, WORST = Margin(50, -0.02, 0.05, 0.7), Margin(50, -0.3, 0.05, 0.001)


def judged(title: str, **controls: Margin) -> Judged:
    margins = {name.replace("_", " "): each for name, each in controls.items()}
    return Judged(title, 0.5, 0.1, 50, margins, decide(margins))


def finding_of(title: str, *scores: Judged, computed: bool = False) -> Finding:
    return Finding(title, title, scores[0], {each.title: each for each in scores}, "", computed)


def test_a_score_names_the_controls_that_it_is_above_and_those_that_it_is_not():
    score = judged("a, b", center=WORST, wrong_sound=BETTER, random_weights=HIGHER, full_image=LOWER)
    assert score.verdict_in_full == (
        "worse than center; no better than full image; not significantly above random weights; above wrong sound"
    )
    controls = ("center", "full image", "random weights", "wrong sound", "other")
    assert [score.compared_with(name) for name in controls] == [
        *("worse", "no better", "not significantly above", "above", ""),
    ]
    assert judged("x", wrong_sound=BETTER).verdict_in_full == "learned" and score.name == "a b"


def test_the_answers_are_given_the_worst_first_and_what_is_computed_last():
    findings = [
        finding_of("computed", judged("c", chance=BETTER), computed=True),
        finding_of("y", judged("one", wrong_sound=BETTER), judged("two", wrong_sound=WORST)),
        finding_of("x", judged("one", wrong_sound=LOWER), judged("two", wrong_sound=BETTER)),
        finding_of("w", judged("one", wrong_sound=BETTER, center=WORST)),
        finding_of("z", judged("one", wrong_sound=HIGHER), judged("two", wrong_sound=WORST)),
        finding_of("v", judged("one", random_weights=BETTER)),
    ]
    assert answers(findings) == [
        "Not shown that sound taught anything: no score is above every control, 2 of 5 benchmarks: w; z.",
        "Shown for some scores only, 1 of 5 benchmarks: x (two).",
        "Not tested, 1 of 5 benchmarks: v.",
        "Sound taught the network something, 1 of 5 benchmarks: y.",
        "Computed, not learned: computed.",
    ]


def test_a_share_of_all_or_none_has_an_interval_of_some_width():
    # Wilson's interval of 200 right answers of 200: from 200 / (200 + 1.96 ** 2) to 1.
    assert Judged("x", 1.0, 0.0, 200, {}, decide({})).interval == (pytest.approx(0.98115, abs=1e-5), 1.0)
    assert Judged("x", 0.0, 0.0, 200, {}, decide({})).interval == (0.0, pytest.approx(0.01885, abs=1e-5))
    assert Judged("x", 0.5, 0.1, 50, {}, decide({})).interval == pytest.approx((0.304, 0.696))
    right = Items({"a": np.ones(200)}, {}, 200, {"a": 1.0, "chance": 0.1})
    assert right.gap("a", "chance") == pytest.approx((0.88115, 0.9), abs=1e-5)


def test_the_interval_of_a_margin_excludes_0_exactly_if_the_test_does():
    rng = np.random.default_rng(0)
    single, drawn = rng.normal(0.1, 1, (60, 2, 30)), rng.normal(0, 0.05, (60, 2, 400)) + [[0.08], [0.0]]
    for own, other in single:
        items = Items({"a": own, "b": other}, {}, 30, {"a": float(own.mean()), "b": float(other.mean())})
        low, high = items.gap("a", "b")
        assert (low > 0 or high < 0) == (items.margin("a", "b").p_value < 0.05)
    for own, other in drawn:
        items = Items({}, {"a": own, "b": other}, 30, {"a": 0.08, "b": 0.0})
        assert (items.gap("a", "b")[0] > 0) == (items.margin("a", "b").p_value < 0.05)
