"""DCASE acoustic scene classification with linear SVMs on windows of recordings.

Sixty windows of each recording of 30 s (Arandjelovic & Zisserman 2017, section 3.3). The official layouts:

    scenes_stereo/bus01.wav ...            2013: training
    scenes_stereo_testset/bus01.wav ...    2013: test
    TUT-acoustic-scenes-2016-development/meta.txt, audio/, evaluation_setup/fold1_train.txt, fold1_evaluate.txt ...
    TUT-acoustic-scenes-2016-evaluation/meta.txt, audio/

In 2016 the development set is for training and the evaluation set for test; without an evaluation set, each of the four
official folds of the development set is the test set in turn. C is selected by cross-validation over the training
recordings: over the official folds of 2016, which keep the recordings of one place together, and over five folds of
2013.

The paper has 10 training and 100 test clips per class; the public sets of 2013 hold 10 and 10. The benchmark uses all
recordings in the folders, and its metrics count them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.text import read_lines
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.recordings.recordings import DISPLAY, RecordingParams, Split, evaluate_recordings

TRAIN_2013, TEST_2013 = "scenes_stereo", "scenes_stereo_testset"
TRAIN_2016, TEST_2016 = "TUT-acoustic-scenes-2016-development", "TUT-acoustic-scenes-2016-evaluation"
NAME_2013 = re.compile(r"([a-z]+)\d+\.wav")
FOLDS_2013 = 5  # ours, of the training recordings
FOLDS_2016 = 4
LAYOUT = f"{TRAIN_2013} and {TEST_2013} (2013), or {TRAIN_2016} (2016)"


@dataclass(frozen=True)
class Scenes:
    """Recordings of acoustic scenes.

    Args:
        files: of the recordings.
        classes: the name of each recording's scene.
        splits: of training and test recordings.
        protocol: its name.
    """

    files: list[Path]
    classes: list[str]
    splits: list[Split]
    protocol: str


def evaluate(context: Context[RecordingParams]) -> Result:
    """The accuracy of the encoder, of its controls, and of chance."""
    scenes = read_dataset(context.data_dir)
    names, targets = np.unique(scenes.classes, return_inverse=True)
    result = evaluate_recordings(
        context, scenes.files, names.tolist(), targets, scenes.splits, f"{scenes.protocol} {{}} on windows"
    )
    result.metrics["recordings_train"] = round(np.mean([len(split.train) for split in scenes.splits]))
    result.metrics["recordings_test"] = sum(len(split.test) for split in scenes.splits)
    return result


def read_dataset(data_dir: Path) -> Scenes:
    """The recordings of 2013 or 2016 in `data_dir`.

    Raises EarshotError for another layout, for both years, and for incomplete lists.
    """
    old, new = (data_dir / TRAIN_2013).is_dir(), (data_dir / TRAIN_2016).is_dir()
    if old == new:
        actual = "both years" if old else "neither year"
        raise EarshotError(f"{data_dir}: holds {actual} of DCASE, expected {LAYOUT}; correct evaluate.dcase.data_dir")
    scenes = _read_2013(data_dir) if old else _read_2016(data_dir)
    for split in scenes.splits:
        train, test = ({scenes.classes[index] for index in part} for part in (split.train, split.test))
        missing = [f"no training recordings of {name}" for name in sorted(test - train)]
        missing += [f"no test recordings of {name}" for name in sorted(train - test)]
        missing += [f"{len(train)} scene for training"] if len(train) < 2 else []
        if missing:
            raise EarshotError(f"{data_dir}: {missing[0]}, expected two scenes or more, and all in training and test")
    return scenes


def _read_2013(data_dir: Path) -> Scenes:
    parts = []
    for folder in (data_dir / TRAIN_2013, data_dir / TEST_2013):
        listed = sorted(folder.glob("*.wav"))
        odd = [file for file in listed if not NAME_2013.fullmatch(file.name)]
        if odd or not listed:
            actual = odd[0].name if odd else "no recordings"
            raise EarshotError(f"{folder}: holds {actual}, expected names such as bus01.wav; restore the folder")
        parts.append(listed)
    files = [*parts[0], *parts[1]]
    classes = [NAME_2013.sub(r"\1", file.name) for file in files]
    train = np.arange(len(parts[0]))
    order = np.array([classes[:index].count(classes[index]) for index in train])  # within its scene
    split = Split(train, np.arange(len(train), len(files)), order % FOLDS_2013)
    return Scenes(files, classes, [split], "DCASE 2013")


def _read_2016(data_dir: Path) -> Scenes:
    development, evaluation = data_dir / TRAIN_2016, data_dir / TEST_2016
    listed = _read_list(development / "meta.txt")
    files, classes = list(listed), list(listed.values())
    indices = {file: index for index, file in enumerate(files)}
    setup = development / "evaluation_setup"
    trains: list[np.ndarray] = []
    tests: list[np.ndarray] = []
    for fold in range(1, FOLDS_2016 + 1):
        for part, name in ((trains, "train"), (tests, "evaluate")):
            part.append(_indices(setup / f"fold{fold}_{name}.txt", development, listed, indices))
    folds = np.zeros(len(files), int)  # a recording in no fold's test set belongs to the first fold
    for number, test in enumerate(tests):
        folds[test] = number
    for number, (train, test) in enumerate(zip(trains, tests, strict=True), 1):
        if shared := set(train) & set(test):
            raise EarshotError(
                f"{setup}: fold {number} has {files[min(shared)].name} in training and test; restore the lists"
            )
    if not evaluation.is_dir():
        splits = [Split(train, test, folds[train]) for train, test in zip(trains, tests, strict=True)]
        return Scenes(files, classes, splits, "DCASE 2016, four folds of the development set")
    last = _read_list(evaluation / "meta.txt")
    split = Split(np.arange(len(files)), np.arange(len(files), len(files) + len(last)), folds)
    return Scenes([*files, *last], [*classes, *last.values()], [split], "DCASE 2016, evaluation set")


def _indices(file: Path, root: Path, listed: dict[Path, str], indices: dict[Path, int]) -> np.ndarray:
    """The indices of the recordings of a list, whose scenes must agree with meta.txt."""
    scenes = _read_list(file)
    for recording, name in scenes.items():
        if listed.get(recording) != name:
            actual = f"{recording.name} is {name}, but {listed.get(recording, 'missing')} in {root.name}/meta.txt"
            raise EarshotError(f"{file}: {actual}; restore the lists")
    return np.array([indices[recording] for recording in scenes])


def _read_list(file: Path) -> dict[Path, str]:
    """The scenes of recordings, from lines such as audio/b020_90_120.wav, a tab, and beach."""
    root = file.parent.parent if file.parent.name == "evaluation_setup" else file.parent
    scenes = {}
    for number, line in enumerate(read_lines(file, "restore the official lists"), 1):
        name, scene = [*line.split("\t"), ""][:2]
        if not line:
            continue
        if not scene or not re.fullmatch(r"audio/[^/\\]+\.wav", name):
            expected = "a recording, a tab and its scene, such as audio/b020_90_120.wav and beach"
            raise EarshotError(f"{file}, line {number}: {line!r:.80}, expected {expected}")
        scenes[root / name] = scene.strip()
    if not scenes:
        raise EarshotError(f"{file}: lists no recordings; restore the official lists")
    return scenes


BENCHMARK = Benchmark(params=RecordingParams, evaluate=evaluate, title="DCASE", **DISPLAY)
