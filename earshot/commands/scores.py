"""The scores of a run as a small table, every one beside its controls, and where to look next."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, read_yaml
from earshot.results.runs import read_metrics
from earshot.results.score_tables import Display, displays_of, grid, registered_displays
from earshot.results.verdicts import LEGEND, PREDICTIONS, Finding, Items, finding, ranked


def benchmark_lines(display: Display, values: Mapping[str, float]) -> list[str]:
    """The lines of one benchmark: columns are layers or modes, rows are the trained network and its controls."""
    scores = grid(display, values)
    heads = [title for title in scores.columns.values() if [title] != [display.metric] or len(scores.columns) > 1]
    lines = [(f"{display.heading:<30}" + "".join(f"{head:>10}" for head in heads)).rstrip()]
    for row, values_of_row in scores.rows.items():
        lines.append(f"  {row:<28}" + "".join(_score(values_of_row.get(key)) for key in scores.columns))
    return lines + [f"  {row:<28}{_score(score)}" for row, score in scores.alike.items()]


def read_findings(root: Path) -> list[Finding]:
    """The findings of all benchmarks of a run, in the order of the parameters."""
    params = root / "params.yaml"
    names = dict(flatten(read_yaml(params))) if params.exists() else {}
    result = []
    for name, display in displays_of(registered_displays(), names).items():
        values = read_metrics(root, name)
        scores = grid(display, values)
        if scores.columns:
            result.append(finding(name, display, scores, Items.read(root, name, values), names))
    return result


def verdict_lines(findings: list[Finding]) -> list[str]:
    """What every benchmark says, the weakest first: its leading score, error and n, its controls; its other scores."""
    lines = [VERDICTS]
    for each in ranked(findings):
        leading = each.leading
        column = f", {leading.name}" if len(each.scores) > 1 else ""
        verdict = f"computed, not learned; {leading.verdict_in_full}" if each.computed else leading.verdict_in_full
        score = f"{leading.score:.3f}" + (f" ± {leading.error:.3f}" if leading.error else "")
        text = f"{each.title}{column} {score} ({each.count or 'no items'}): {verdict}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")
        for names, words in each.others:
            text = f"{', '.join(names)}: {words}"
            lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")
    return [*lines, *textwrap.wrap(LEGEND, WIDTH)]


def table(root: Path) -> str:
    """The whole table as text.

    Raises EarshotError if no benchmark has run.
    """
    params = root / "params.yaml"
    names = dict(flatten(read_yaml(params))) if params.exists() else {}
    displays = {
        name: display for name, display in displays_of(registered_displays(), names).items() if display.on_console
    }
    measured = {name: values for name in displays if (values := read_metrics(root, name))}
    findings = read_findings(root)
    if not measured and not findings:
        raise EarshotError(f"{root / 'metrics'}: no scores; run `dvc repro` first")
    pretrain, extract = (read_metrics(root, name) for name in ("pretrain", "extract"))
    lines = [""]
    for name, values in measured.items():
        lines += [*benchmark_lines(displays[name], values), ""]
    lines += [*verdict_lines(findings), ""] if findings else []
    if pretrain.get("test_accuracy") is not None:
        beside = "{test_accuracy:.3f} (majority {test_majority:.3f}, chance {chance:.3f})".format_map(pretrain)
        lines.append(f"Accuracy of the sound label, predicted from a frame of the test split: {beside}")
    if extract:
        lines.append(f"Clips: {extract['clips_kept']} kept of {extract['clips_in']}; moments: {extract['moments']}")
    return "\n".join([*lines, "", *NEXT])


def margins(root: Path) -> str:
    """The margin of the trained network above each control in every benchmark that gives items.

    Raises EarshotError if no benchmark has scores of items.
    """
    lines = [
        f"{each.title + ', ' + score.title:<55} above {control:<24}{above}"
        for each in read_findings(root)
        for score in each.scores.values()
        for control, above in score.margins.items()
    ]
    if not lines:
        raise EarshotError(f"{root / PREDICTIONS}: no scores of single items; run `dvc repro` first")
    return "\n".join([*lines, "", MARGINS])


MARGINS = (
    "Difference ± its standard error, over n items of the benchmark; p of Student's paired test, or of the bootstrap. "
    "Each network was trained once; another training is not in it."
)
VERDICTS = "What the networks learned from sound, weakest result first:"
WIDTH = 110  # characters of a line
NEXT = [
    "Where to look next: open report/index.html in a browser; all numbers are in metrics/, the networks in models/.",
    "Try an idea:        dvc exp run -S clusters=15   then   dvc exp show   (activate .venv first)",
]


def _score(value: float | None) -> str:
    return f"{'':>10}" if value is None else f"{value:>10.3f}"


@click.command()
@options.root
@click.option("--margins", "of_items", is_flag=True, help="Test each score against its controls, item by item.")
def command(root: Path, of_items: bool) -> None:
    """Print the scores of a run as a table, each beside its controls, and where to look next.

    \b
    Examples:
      earshot scores
      earshot scores --root .earshot/rows/owens-cluster-0
      earshot scores --margins
    """
    echo(margins(root) if of_items else table(root))
