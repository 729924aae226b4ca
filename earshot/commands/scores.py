"""Print the scores of a run as a small table beside their controls, and where to look next.

python -m earshot.commands.scores [--root DIR]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, read_yaml
from earshot.results.runs import read_metrics
from earshot.results.score_tables import Display, grid, in_order, registered_displays


def benchmark_lines(display: Display, values: Mapping[str, float]) -> list[str]:
    """The lines of one benchmark: columns are layers or modes, rows are the trained network and its controls."""
    scores = grid(display, values)
    heads = [title for title in scores.columns.values() if [title] != [display.metric] or len(scores.columns) > 1]
    lines = [f"{display.heading:<20}" + "".join(f"{head:>10}" for head in heads)]
    for row, values_of_row in scores.rows.items():
        lines.append(f"  {row:<18}" + "".join(_score(values_of_row.get(key)) for key in scores.columns))
    return lines + [f"  {row:<18}{_score(score)}" for row, score in scores.alike.items()]


def table(root: Path) -> str:
    """The whole table as text.

    Raises EarshotError if no benchmark has run.
    """
    params = root / "params.yaml"
    names = dict(flatten(read_yaml(params))) if params.exists() else {}
    displays = {name: display for name, display in in_order(registered_displays(), names).items() if display.on_console}
    measured = {name: values for name in displays if (values := read_metrics(root, name))}
    if not measured:
        raise EarshotError(f"{root / 'metrics'}: no scores; run `dvc repro` first")
    pretrain, extract = (read_metrics(root, name) for name in ("pretrain", "extract"))
    lines = [""]
    for name, values in measured.items():
        lines += [*benchmark_lines(displays[name], values), ""]
    if pretrain.get("val_accuracy") is not None:
        beside = "(majority {majority:.3f}, chance {chance:.3f})".format_map(pretrain)
        lines.append(
            f"Accuracy of the sound label, predicted from a held-out frame: {pretrain['val_accuracy']:.3f} {beside}"
        )
    if extract:
        lines.append(f"Clips: {extract['clips_kept']} kept of {extract['clips_in']}; moments: {extract['moments']}")
    return "\n".join([*lines, "", *NEXT])


NEXT = [
    "Where to look next: open report/index.html in a browser; all numbers are in metrics/, the networks in models/.",
    "Try an idea:        dvc exp run -S clusters=15   then   dvc exp show   (activate .venv first)",
]


def _score(value: float | None) -> str:
    return f"{'':>10}" if value is None else f"{value:>10.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.commands.scores", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("."), metavar="DIR", help="where metrics/ is")
    try:
        print(table(parser.parse_args(arguments).root))
    except EarshotError as error:
        sys.exit(f"scores: {error}")


if __name__ == "__main__":
    main()
