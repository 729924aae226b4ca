"""The scores of a run as a small table, every one beside its controls, and where to look next."""

from collections.abc import Mapping
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, read_yaml
from earshot.evaluation.benchmark import ITEMS_FILE, read_item_scores
from earshot.evaluation.significance import margin
from earshot.results.runs import read_metrics
from earshot.results.score_tables import Display, displays_of, grid, registered_displays


def benchmark_lines(display: Display, values: Mapping[str, float]) -> list[str]:
    """The lines of one benchmark: columns are layers or modes, rows are the trained network and its controls."""
    scores = grid(display, values)
    heads = [title for title in scores.columns.values() if [title] != [display.metric] or len(scores.columns) > 1]
    lines = [f"{display.heading:<30}" + "".join(f"{head:>10}" for head in heads)]
    for row, values_of_row in scores.rows.items():
        lines.append(f"  {row:<28}" + "".join(_score(values_of_row.get(key)) for key in scores.columns))
    return lines + [f"  {row:<28}{_score(score)}" for row, score in scores.alike.items()]


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
    if not measured:
        raise EarshotError(f"{root / 'metrics'}: no scores; run `dvc repro` first")
    pretrain, extract = (read_metrics(root, name) for name in ("pretrain", "extract"))
    lines = [""]
    for name, values in measured.items():
        lines += [*benchmark_lines(displays[name], values), ""]
    if pretrain.get("test_accuracy") is not None:
        beside = "{test_accuracy:.3f} (majority {test_majority:.3f}, chance {chance:.3f})".format_map(pretrain)
        lines.append(f"Accuracy of the sound label, predicted from a frame of the test split: {beside}")
    if extract:
        lines.append(f"Clips: {extract['clips_kept']} kept of {extract['clips_in']}; moments: {extract['moments']}")
    return "\n".join([*lines, "", *NEXT])


def margins(root: Path) -> str:
    """The margin of the trained network above each control in every benchmark whose scores are means of items.

    Raises EarshotError if no benchmark has scores of items.
    """
    params = root / "params.yaml"
    names = dict(flatten(read_yaml(params))) if params.exists() else {}
    lines: list[str] = []
    for name, display in displays_of(registered_displays(), names).items():
        folder = root / "data" / "predictions" / name
        items = read_item_scores(folder) if (folder / ITEMS_FILE).exists() else {}
        scores = grid(display, read_metrics(root, name)) if items else None
        for key, title in scores.columns.items() if scores else ():
            for control, prefix in {**display.controls, **display.alike}.items():
                other = items.get(prefix + key)
                if key in items and other is not None:
                    heading = f"{display.title}, {title}"
                    lines.append(f"{heading:<48}above {control:<24}{margin(items[key], other)}")
    if not lines:
        raise EarshotError(f"{root / 'data/predictions'}: no scores of single items; run `dvc repro` first")
    return "\n".join([*lines, "", MARGINS])


MARGINS = (
    "Difference ± its standard error, over n items of the benchmark; p of Student's paired test. Seeds are not in it."
)
NEXT = [
    "Where to look next: open report/index.html in a browser; all numbers are in metrics/, the networks in models/.",
    "Try an idea:        dvc exp run -S clusters=15   then   dvc exp show   (activate .venv first)",
]


def _score(value: float | None) -> str:
    return f"{'':>10}" if value is None else f"{value:>10.3f}"


@click.command()
@options.root
@click.option("--margins", "of_items", is_flag=True, help="test each score against its controls, item by item")
def command(root: Path, of_items: bool) -> None:
    """Print the scores of a run as a table, each beside its controls, and where to look next.

    \b
    Examples:
      earshot scores
      earshot scores --root .earshot/rows/owens-cluster-0
      earshot scores --margins
    """
    echo(margins(root) if of_items else table(root))
