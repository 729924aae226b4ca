"""DCASE acoustic scene classification with linear SVMs on windows of recordings.

Sixty windows of each recording of 30 s (Arandjelovic & Zisserman 2017, section 3.3). The official layouts:

    scenes_stereo/bus01.wav ...            2013: trains
    scenes_stereo_testset/bus01.wav ...    and is asked
    TUT-acoustic-scenes-2016-development/meta.txt, audio/, evaluation_setup/fold1_train.txt, fold1_evaluate.txt ...
    TUT-acoustic-scenes-2016-evaluation/meta.txt, audio/

Of 2016 the development set trains and the evaluation set is asked; where that is not there, the four official folds of
the development set are asked in turn. C is chosen by cross-validation over the training recordings: over the official
folds of 2016, which keep the recordings of one place together, and over five of 2013.

The paper speaks of 10 training and 100 test clips a class; the public sets of 2013 hold 10 and 10. Whatever stands in
the folders is used, and the metrics count it.
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
        splits: which train and which are asked.
        protocol: its name.
    """

    files: list[Path]
    classes: list[str]
    splits: list[Split]
    protocol: str


def evaluate(context: Context[RecordingParams]) -> Result:
    """The accuracy of what is measured, of its controls, and of chance."""
    scenes = read_dataset(context.data_dir)
    names, targets = np.unique(scenes.classes, return_inverse=True)
    result = evaluate_recordings(
        context, scenes.files, names.tolist(), targets, scenes.splits, f"{scenes.protocol} linear SVM on windows"
    )
    result.metrics["recordings_train"] = round(np.mean([len(split.train) for split in scenes.splits]))
    result.metrics["recordings_test"] = sum(len(split.test) for split in scenes.splits)
    return result


def read_dataset(data_dir: Path) -> Scenes:
    """The recordings of 2013 or 2016 below `tree`.

    Raises EarshotError for another layout, for both at once, and for lists that are not whole.
    """
    old, new = (data_dir / TRAIN_2013).is_dir(), (data_dir / TRAIN_2016).is_dir()
    if old == new:
        found = "both years" if old else "neither year"
        raise EarshotError(f"{data_dir}: holds {found} of DCASE, wanted {LAYOUT}; mend evaluate.dcase.data_dir")
    scenes = _read_2013(data_dir) if old else _read_2016(data_dir)
    for split in scenes.splits:
        known = {scenes.classes[place] for place in split.train}
        unknown = sorted({scenes.classes[place] for place in split.test} - known)
        if unknown or len(known) < 2:
            found = f"recordings of {unknown[0]} are asked and none trains" if unknown else f"{len(known)} scene trains"
            raise EarshotError(f"{data_dir}: {found}, wanted two scenes or more, and all in both parts")
    return scenes


def _read_2013(data_dir: Path) -> Scenes:
    parts = []
    for folder in (data_dir / TRAIN_2013, data_dir / TEST_2013):
        listed = sorted(folder.glob("*.wav"))
        odd = [file for file in listed if not NAME_2013.fullmatch(file.name)]
        if odd or not listed:
            found = f"{odd[0].name} among the recordings" if odd else "no recordings"
            raise EarshotError(f"{folder}: holds {found}, wanted names such as bus01.wav; restore the folder")
        parts.append(listed)
    files = [*parts[0], *parts[1]]
    classes = [NAME_2013.sub(r"\1", file.name) for file in files]
    train = np.arange(len(parts[0]))
    order = np.array([classes[:place].count(classes[place]) for place in train])  # among those of its scene
    split = Split(train, np.arange(len(train), len(files)), order % FOLDS_2013)
    return Scenes(files, classes, [split], "DCASE 2013")


def _read_2016(data_dir: Path) -> Scenes:
    development, evaluation = data_dir / TRAIN_2016, data_dir / TEST_2016
    listed = _read_list(development / "meta.txt")
    files, classes = list(listed), list(listed.values())
    places = {file: place for place, file in enumerate(files)}
    setup = development / "evaluation_setup"
    trains: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    for fold in range(1, FOLDS_2016 + 1):
        for part, name in ((trains, "train"), (asked, "evaluate")):
            part.append(_places(setup / f"fold{fold}_{name}.txt", development, listed, places))
    folds = np.zeros(len(files), int)  # a recording that no fold asks counts with the first
    for number, test in enumerate(asked):
        folds[test] = number
    for number, (train, test) in enumerate(zip(trains, asked, strict=True), 1):
        if shared := set(train) & set(test):
            raise EarshotError(
                f"{setup}: fold {number} trains on {files[min(shared)].name} and asks it; restore the lists"
            )
    if not evaluation.is_dir():
        splits = [Split(train, test, folds[train]) for train, test in zip(trains, asked, strict=True)]
        return Scenes(files, classes, splits, "DCASE 2016, four folds of the development set")
    last = _read_list(evaluation / "meta.txt")
    split = Split(np.arange(len(files)), np.arange(len(files), len(files) + len(last)), folds)
    return Scenes([*files, *last], [*classes, *last.values()], [split], "DCASE 2016, evaluation set")


def _places(file: Path, root: Path, listed: dict[Path, str], places: dict[Path, int]) -> np.ndarray:
    """The numbers of the recordings of a list, which must say of them what meta.txt says."""
    found = _read_list(file)
    for recording, name in found.items():
        if listed.get(recording) != name:
            said = f"{recording.name} is {name}, and {listed.get(recording, 'nothing')} in {root.name}/meta.txt"
            raise EarshotError(f"{file}: {said}; restore the lists")
    return np.array([places[recording] for recording in found])


def _read_list(file: Path) -> dict[Path, str]:
    """The scenes of recordings, from lines such as audio/b020_90_120.wav, a tab, and beach."""
    root = file.parent.parent if file.parent.name == "evaluation_setup" else file.parent
    found = {}
    for number, line in enumerate(read_lines(file, "restore the official lists"), 1):
        name, scene = [*line.split("\t"), ""][:2]
        if not line:
            continue
        if not scene or not re.fullmatch(r"audio/[^/\\]+\.wav", name):
            wanted = "wanted a recording and its scene such as audio/b020_90_120.wav and beach, a tab between"
            raise EarshotError(f"{file}, line {number}: {line!r:.80}, {wanted}")
        found[root / name] = scene.strip()
    if not found:
        raise EarshotError(f"{file}: lists no recordings; restore the official lists")
    return found


BENCHMARK = Benchmark(params=RecordingParams, evaluate=evaluate, title="DCASE", **DISPLAY)
