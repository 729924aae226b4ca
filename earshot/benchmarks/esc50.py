"""ESC-50 sound classification with linear SVMs on an audio tower or on a descriptor.

Each of the five official folds is the test set once. The SVMs train on the other four, over which cross-validation
selects C; other probes likewise. Ten windows per recording (Arandjelovic & Zisserman 2017, section 3.3).
"""

import csv
import itertools
import re
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.text import encoding_of, separator_of
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.recordings.recordings import DISPLAY, RecordingParams, Split, evaluate_recordings

PROTOCOL = "ESC-50 {{}} on windows, {} folds"
FOLDS = 5  # of the official table
COLUMNS = ("filename", "fold", "target", "category")


def evaluate(context: Context[RecordingParams]) -> Result:
    """The mean accuracy over the five folds of the encoder, of its controls, and of chance."""
    recordings = read_table(context.data_dir)
    names = {int(row["target"]): row["category"] for row in recordings}
    targets = np.searchsorted(sorted(names), [int(row["target"]) for row in recordings])
    files = [context.data_dir / "audio" / row["filename"] for row in recordings]
    classes = [names[target] for target in sorted(names)]
    splits = folds_of(np.array([int(row["fold"]) for row in recordings]))
    number = "five" if len(splits) == FOLDS else str(len(splits))
    return evaluate_recordings(context, files, classes, targets, splits, PROTOCOL.format(number))


def folds_of(folds: np.ndarray) -> list[Split]:
    """One split per fold, from the fold of each recording, (recordings,)."""
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    return [Split(train, test, folds[train]) for train, test in parts]


def read_table(data_dir: Path) -> list[dict[str, str]]:
    """The rows of meta/esc50.csv, in order, with filename, fold, target and category.

    Without that file, it reads the only table in meta, as subsets of ESC-50 name it differently. Raises EarshotError
    for a missing table or column, an invalid value, a name that leaves the folder, a recording that is listed twice,
    and a target with two categories.
    """
    file = data_dir / "meta" / "esc50.csv"
    others = list(file.parent.glob("*.csv"))
    if not file.exists() and len(others) == 1:
        file = others[0]
    try:
        with file.open(newline="", encoding=encoding_of(file)) as lines:
            header = lines.readline()
            separator = separator_of(header, lambda columns: set(COLUMNS) <= set(columns))
            rows = list(csv.DictReader(itertools.chain([header], lines), delimiter=separator))
    except (OSError, UnicodeError, csv.Error) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); correct evaluate.esc50.data_dir") from None
    lines_of: dict[str, int] = {}  # of each recording
    categories: dict[int, str] = {}
    for number, row in enumerate(rows, 2):
        for field in COLUMNS:
            value = row.get(field)
            wrong = field in ("fold", "target") and not re.fullmatch("[0-9]{1,9}", str(value))
            if not value or wrong or (field == "filename" and Path(value).name != value):
                expected = "a whole number" if field in ("fold", "target") else "a plain name"
                raise EarshotError(f"{file}, line {number}: {field} is {value!r}, expected {expected}")
        name, category = row["filename"], categories.setdefault(int(row["target"]), row["category"])
        if lines_of.setdefault(name, number) != number:
            raise EarshotError(
                f"{file}, line {number}: lists {name} again after line {lines_of[name]}, expected once; "
                "remove one of them"
            )
        if row["category"] != category:
            raise EarshotError(
                f"{file}, line {number}: target {row['target']} is {row['category']!r}, expected {category!r} as above"
                "; restore the official table"
            )
    if len({row["fold"] for row in rows}) < 3 or len({row["target"] for row in rows}) < 2:
        raise EarshotError(f"{file}: {len(rows)} recordings, expected some in at least three folds and two classes")
    return rows


BENCHMARK = Benchmark(params=RecordingParams, evaluate=evaluate, title="ESC-50", **DISPLAY, on_console=True)
