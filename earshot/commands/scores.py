"""The scores of a run as a small table, every one beside its controls, and where to look next.

python -m earshot.commands.scores [--root DIR]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.results.score_tables import BENCHMARKS, grid

PICTURES = ("voc", "sun", "finetune", "detection", "correspondence")


def read_metrics(root: Path, name: str) -> dict[str, float]:
    """The metrics of one stage, empty where it has not run.

    Raises EarshotError for a file that is no flat JSON mapping.
    """
    file = root / "metrics" / f"{name}.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EarshotError(f"{file}: cannot be read as JSON ({error}); run the stage that writes it") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{file}: holds {type(values).__name__}, wanted a mapping; run the stage that writes it")
    return values


def picture_table(name: str, values: Mapping[str, float]) -> list[str]:
    """Lines: a layer or mode a column, the trained network and its controls a row each."""
    found, told = grid(name, values), BENCHMARKS[name]
    keys = [key for key in found.columns if key != "ranked"]
    title = ", ".join(filter(None, [told.title, told.words]))
    lines = [f"{title:<20}" + "".join(f"{found.columns[key]:>10}" for key in keys)]
    for row, scores in found.rows.items():
        lines.append(f"  {row:<18}" + "".join(_score(scores.get(key)) for key in keys))
    return lines + [f"  {row:<18}{_score(score)}" for row, score in found.alike.items()]


def table(root: Path) -> str:
    """The whole table as text.

    Raises EarshotError where no benchmark has been run.
    """
    pictures = {name: read_metrics(root, name) for name in PICTURES}
    esc50, pretrain, extract = (read_metrics(root, name) for name in ("esc50", "pretrain", "extract"))
    if not any(pictures.values()) and not esc50:
        raise EarshotError(f"{root / 'metrics'}: no scores; run `dvc repro` first")
    lines = [""]
    for name, values in pictures.items():
        lines += [*picture_table(name, values), ""] if values else []
    if esc50:
        found = grid("esc50", esc50)
        rows = [f"  {row:<18}{_score(score)}" for row, score in found.beside("accuracy").items()]
        lines += ["ESC-50, accuracy", *rows, ""]
    if pretrain.get("val_accuracy") is not None:
        beside = "(majority {majority:.3f}, chance {chance:.3f})".format_map(pretrain)
        lines.append(f"The label of a sound, told from a held-out frame: {pretrain['val_accuracy']:.3f} {beside}")
    if extract:
        lines.append(f"Clips: {extract['clips_kept']} kept of {extract['clips_in']}; moments: {extract['moments']}")
    return "\n".join([*lines, "", *NEXT])


NEXT = [
    "Where to look next: open report/index.html in a browser; all numbers are in metrics/, the networks in models/.",
    "Change one idea:    dvc exp run -S clusters=15   then   dvc exp show   (activate .venv first)",
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
