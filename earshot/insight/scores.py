"""The scores of a run as a small table, every one beside its controls, and where to look next.

    python -m earshot.insight.scores [--root DIR]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from earshot.pipeline.errors import EarshotError

# A row of the table: what it is called, and what stands before the metric's name in the files.
ROWS = {"sound": "", "wrong sound": "wrong_sound_", "random weights": "random_"}
NAMES = {"map": "mAP", "accuracy": "accuracy"}  # of a score that is a benchmark's only one
PICTURES = {
    "voc": ("VOC2007, mAP", "map"),
    "sun": ("SUN397, accuracy", "accuracy"),
    "finetune": ("VOC2007, fine-tuned", "map"),
    "detection": ("VOC2007, detection", "map"),
    "correspondence": ("Correspondence", "accuracy"),
}


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


def picture_table(title: str, metric: str, values: Mapping[str, float]) -> list[str]:
    """Lines: a layer or mode a column, the trained network and its controls a row each."""
    columns = [key.removeprefix(metric) for key in values if key == metric or key.startswith(f"{metric}_")]
    lines = [f"{title:<20}" + "".join(f"{column.removeprefix('_') or NAMES[metric]:>10}" for column in columns)]
    for name, prefix in ROWS.items():
        scores = [values.get(f"{prefix}{metric}{column}") for column in columns]
        if any(score is not None for score in scores):
            lines.append(f"  {name:<18}" + "".join(_score(score) for score in scores))
    lines += [
        f"  {name:<18}{_score(values[key])}"
        for name, key in (("colour histogram", f"colour_{metric}"), ("chance", "chance"))
        if key in values
    ]
    return lines


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
        lines += [*picture_table(*PICTURES[name], values), ""] if values else []
    if esc50:
        rows = [f"  {_name(key):<18}{_score(value)}" for key, value in esc50.items() if _shown(key)]
        lines += ["ESC-50, accuracy", *rows, ""]
    if pretrain.get("val_accuracy") is not None:
        beside = "(majority {majority:.3f}, chance {chance:.3f})".format_map(pretrain)
        lines.append(f"The label of a sound, told from a held-out frame: {pretrain['val_accuracy']:.3f} {beside}")
    if extract:
        lines.append(f"Clips: {extract['clips_kept']} kept of {extract['clips_in']}; moments: {extract['moments']}")
    return "\n".join([*lines, "", *NEXT])


NEXT = [
    "Where to look next: numbers in metrics/, what was left out and why in data/*/ledger/, the network in models/.",
    "Change one idea:    dvc exp run -S clusters=15   then   dvc exp show   (activate .venv first)",
]


def _score(value: float | None) -> str:
    return f"{'':>10}" if value is None else f"{value:>10.3f}"


def _shown(key: str) -> bool:
    return key in ("accuracy", "chance") or key.endswith("_accuracy")


def _name(key: str) -> str:
    return {"accuracy": "descriptor", "chance": "chance"}.get(key, key.removesuffix("_accuracy"))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.insight.scores", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("."), metavar="DIR", help="where metrics/ is")
    try:
        print(table(parser.parse_args(arguments).root))
    except EarshotError as error:
        sys.exit(f"scores: {error}")


if __name__ == "__main__":
    main()
