"""ESC-50 sound classification with linear SVMs on a descriptor of sound.

The five given folds; ten equally spaced windows of 3.75 s a recording, trailing digital zeros trimmed; each dimension
z-scored on the training windows; one-vs-rest SVMs, C by cross-validation over the four training folds; the scores of a
recording's windows averaged (the protocol of Arandjelovic & Zisserman 2017, section 5.2, for a descriptor).
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import joblib
import numpy as np
import soundfile
import torch
from torch import Tensor
from tqdm import tqdm

from earshot.evaluation.benchmark import Answer, Question
from earshot.evaluation.linear import cross_validated_probe
from earshot.evaluation.metrics import accuracy
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.settings import settings
from earshot.sound.descriptors import describe_windows
from earshot.sound.windows import SHORTEST_SECONDS, WINDOW_SECONDS, UnfitSound, cut_windows, samples_of

PROTOCOL = "ESC-50 linear SVM on windows, five folds"
CONTROL = "spectrum"  # the smallest descriptor, whose score stands beside


def evaluate(question: Question) -> Answer:
    """The accuracy of the descriptor over the five folds, of the spectrum, and of chance."""
    recordings = read_table(question.tree)
    names = {int(row["target"]): row["category"] for row in recordings}
    targets = np.searchsorted(sorted(names), [int(row["target"]) for row in recordings])
    folds = np.array([int(row["fold"]) for row in recordings])
    metrics: dict[str, float] = {}
    rows = [{"class": names[target]} for target in sorted(names)]
    wanted = {"accuracy": question.descriptor}
    if question.descriptor != CONTROL:
        wanted["spectrum_accuracy"] = CONTROL
    for metric, descriptor in wanted.items():
        features = describe_recordings(question, recordings, descriptor)
        by_fold, told = classify(features, targets, folds, f"esc50 {descriptor}")
        metrics[metric] = float(np.mean(by_fold))
        if metric == "accuracy":
            metrics["accuracy_spread"] = float(np.std(by_fold))
        for number, row in enumerate(rows):
            row[metric] = float(told[targets == number].mean())
    metrics["chance"] = 1 / len(names)
    told = [f"{descriptor} {metrics[metric]:.3f}" for metric, descriptor in wanted.items()]
    return Answer(metrics, rows, PROTOCOL, f"{', '.join(told)}; chance {metrics['chance']:.3f}")


def classify(features: Tensor, targets: np.ndarray, folds: np.ndarray, name: str) -> tuple[list[float], np.ndarray]:
    """The accuracy of each fold, and which recordings were told, bool (recordings,).

    features: (recordings, windows, dimensions); targets, folds: (recordings,).
    """
    windows, dimensions = features.shape[1:]
    signs = torch.full((len(targets), int(targets.max()) + 1), -1.0)
    signs[torch.arange(len(targets)), torch.from_numpy(targets)] = 1
    told, by_fold = np.zeros(len(targets), bool), []
    for fold in np.unique(folds):
        train, test = torch.from_numpy(folds != fold), torch.from_numpy(folds == fold)
        rows = features[train].reshape(-1, dimensions)
        mean, deviation = rows.mean(0), rows.std(0)
        deviation = torch.where(deviation > 0, deviation, 1)  # a dimension that never changes stays at zero
        inner = np.repeat(folds[folds != fold], windows)
        asked = (features[test].reshape(-1, dimensions) - mean) / deviation
        labelled = (rows - mean) / deviation, signs[train].repeat_interleave(windows, 0)
        probe = cross_validated_probe(labelled, inner, asked, accuracy, name=f"{name}, fold {fold}")
        scores = probe.scores.reshape(-1, windows, signs.shape[1]).mean(1)  # (recordings, classes)
        told[folds == fold] = scores.argmax(1) == targets[folds == fold]
        by_fold.append(float(told[folds == fold].mean()))
    return by_fold, told


def describe_recordings(question: Question, recordings: list[dict[str, str]], descriptor: str) -> Tensor:
    """The descriptors of the windows of all recordings: float32 (recordings, windows, dimensions)."""
    files = [question.tree / "audio" / row["filename"] for row in recordings]
    how = question.params.windows, descriptor, question.switches
    with joblib.parallel_config("loky", n_jobs=settings().workers, inner_max_num_threads=1):
        described = joblib.Parallel(return_as="generator")(joblib.delayed(describe_recording)(f, *how) for f in files)
        bar = tqdm(described, total=len(files), desc=f"esc50 {descriptor}", unit="recording", leave=False)
        return torch.from_numpy(np.stack(list(bar)))


def describe_recording(file: Path, windows: int, descriptor: str, switches: Mapping[str, str]) -> np.ndarray:
    """The descriptors of equally spaced windows of one recording: float32 (windows, dimensions).

    A recording shorter than a window gives the same window several times. Raises EarshotError for a file that cannot be
    read or holds less than 1.5 s.
    """
    try:
        sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise EarshotError(f"{file}: cannot be read as sound ({error}); restore the file") from None
    heard = np.flatnonzero(sound.any(axis=1))
    kept = max(int(heard[-1]) + 1 if heard.size else 0, samples_of(SHORTEST_SECONDS, rate))
    sound = sound[:kept]
    last = max(len(sound) / rate - WINDOW_SECONDS, 0)
    centres = np.linspace(0, last, windows) + WINDOW_SECONDS / 2
    try:
        cut, places = cut_windows(sound, rate, centres)
        return describe_windows(cut, rate, descriptor, switches, places)[0]
    except UnfitSound as error:
        raise EarshotError(f"{file}: {error}") from None


def read_table(tree: Path) -> list[dict[str, str]]:
    """The rows of meta/esc50.csv, in order: filename, fold, target and category as they stand there.

    Where there is no such file, the only table in meta, as a part of ESC-50 may name it. Raises EarshotError for a
    missing table or column, a value that is none, or a name that leaves the folder.
    """
    file = tree / "meta" / "esc50.csv"
    others = list(file.parent.glob("*.csv"))
    if not file.exists() and len(others) == 1:
        file = others[0]
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); mend evaluate.esc50.tree") from None
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
