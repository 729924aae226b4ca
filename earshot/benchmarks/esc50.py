"""ESC-50 sound classification with linear SVMs: of a sound tower, or of a descriptor.

The five given folds: each is asked once of SVMs trained on the other four, over which C is chosen by cross-validation.
Ten windows a recording (Arandjelovic & Zisserman 2017, section 3.3).
"""

import csv
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.recordings.recordings import DISPLAY, RecordingParams, Split, evaluate_recordings

PROTOCOL = "ESC-50 linear SVM on windows, five folds"


def evaluate(context: Context[RecordingParams]) -> Result:
    """The mean accuracy over the five folds of what is measured, of its controls, and of chance."""
    recordings = read_table(context.data_dir)
    names = {int(row["target"]): row["category"] for row in recordings}
    targets = np.searchsorted(sorted(names), [int(row["target"]) for row in recordings])
    files = [context.data_dir / "audio" / row["filename"] for row in recordings]
    classes = [names[target] for target in sorted(names)]
    splits = folds_of(np.array([int(row["fold"]) for row in recordings]))
    return evaluate_recordings(context, files, classes, targets, splits, PROTOCOL)


def folds_of(folds: np.ndarray) -> list[Split]:
    """A split a fold, of the fold of each recording, (recordings,)."""
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    return [Split(train, test, folds[train]) for train, test in parts]


def read_table(data_dir: Path) -> list[dict[str, str]]:
    """The rows of meta/esc50.csv, in order: filename, fold, target and category as they stand there.

    Where there is no such file, the only table in meta, as a part of ESC-50 may name it. Raises EarshotError for a
    missing table or column, a value that is none, or a name that leaves the folder.
    """
    file = data_dir / "meta" / "esc50.csv"
    others = list(file.parent.glob("*.csv"))
    if not file.exists() and len(others) == 1:
        file = others[0]
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); mend evaluate.esc50.data_dir") from None
    for number, row in enumerate(rows, 2):
        for field in ("filename", "fold", "target", "category"):
            value = row.get(field)
            wrong = field in ("fold", "target") and not str(value).isdigit()
            if not value or wrong or (field == "filename" and Path(value).name != value):
                wanted = "a whole number" if field in ("fold", "target") else "a plain name"
                raise EarshotError(f"{file}, line {number}: {field} is {value!r}, wanted {wanted}")
    if len({row["fold"] for row in rows}) < 3 or len({row["target"] for row in rows}) < 2:
        raise EarshotError(f"{file}: {len(rows)} recordings, wanted some in at least three folds and two classes")
    return rows


BENCHMARK = Benchmark(params=RecordingParams, evaluate=evaluate, title="ESC-50", **DISPLAY, on_console=True)
