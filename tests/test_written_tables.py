"""Tables for a paper: LaTeX, Markdown and CSV with what made them."""

import csv

import numpy as np

from earshot.evaluation.significance import margin
from earshot.report.comparison import Difference
from earshot.results.provenance import provenance
from earshot.results.written_tables import as_csv, as_latex, as_markdown, latex_text

COLUMNS, ROWS = ["", "pool5"], [["sound_1", "0.500 ± 0.010"], ["50 % | chance", "–"]]


def test_latex_escapes_what_it_would_read_as_commands():
    assert latex_text("a_b & 5 % ± #1 $x^{2}$ \\") == (
        r"a\_b \& 5 \% $\pm$ \#1 \$x\textasciicircum{}\{2\}\$ \textbackslash{}"
    )
    text = as_latex(COLUMNS, ROWS, "run a_b")
    assert r"\begin{tabular}{lr}" in text and r"sound\_1 & 0.500 $\pm$ 0.010 \\" in text and r"run a\_b" in text
    assert text.count("rule\n") == 3 and text.index("toprule") < text.index("midrule") < text.index("bottomrule")


def test_markdown_and_csv_hold_the_same_cells():
    lines = as_markdown(COLUMNS, ROWS, "note").splitlines()
    assert lines[1] == "| --- | ---: |" and lines[3] == "| 50 % \\| chance | – |" and lines[-1] == "note"
    rows = [*csv.reader(as_csv(COLUMNS, ROWS, "note").splitlines())]
    assert rows == [COLUMNS, *ROWS, ["note", ""]]


def test_a_difference_between_runs_has_its_interval_and_what_the_test_says():
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, 100)
    better = margin(first + rng.normal(0.5, 0.1, 100), first)
    assert better.is_above and Difference(0.5, better).words == "+0.500 (+0.481 to +0.519), above"
    assert Difference(-0.125).words == "−0.125"
    assert Difference(0.0, margin(first, first)).words == "+0.000 (+0.000 to +0.000), no difference"


def test_a_run_outside_git_has_a_name_and_no_commit(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert str(provenance(tmp_path)) == "this run"
    monkeypatch.setenv("DVC_EXP_NAME", "randy-dent")
    assert str(provenance(tmp_path)) == "randy-dent"
