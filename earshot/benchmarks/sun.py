"""SUN397 scene classification with linear SVMs on the layers of an encoder (Owens 2016, section 4.2).

Each split has 20 training and 20 test images per category, drawn by the seed from the official 50. The one-vs-rest SVMs
have C from 3-fold cross-validation on the training images. The score is the accuracy averaged over the splits. Other
probes take the place of the SVMs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from earshot.core.errors import EarshotError
from earshot.core.params import Positive
from earshot.core.text import read_lines
from earshot.evaluation.benchmark import Benchmark, Context, Result, beside_random
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.images.image_features import ProbeParams, color_features, layer_features
from earshot.evaluation.metrics import accuracy
from earshot.evaluation.probing import (
    PROBES,
    ProbeResult,
    cross_validated_probe,
    in_words,
    one_vs_rest,
    scored_as,
    selected_as,
)
from earshot.networks.network import ImageEncoder

PROTOCOL = "SUN397 {}, accuracy"
SPLITS = 3
FOLDS = 3
LAYOUT = "Partitions/Training_01.txt, Testing_01.txt and so on, with the images below SUN397"
FEWEST = {"Training": FOLDS, "Testing": 1}  # images of a category: each fold of the cross-validation requires one
Part = tuple[list[Path], np.ndarray]  # images, and the category index of each


class SunParams(ProbeParams):
    """`images_per_class` counts the images of a category in a split, both for training and for test."""

    images_per_class: Positive


def evaluate(context: Context[SunParams]) -> Result:
    """The mean scores over the splits of every layer and probe of the trained network, its controls and colors."""
    encoders = load_encoders(context.encoder)
    scores: dict[str, list[float]] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)  # that cross-validation selected
    right: dict[str, list[np.ndarray]] = defaultdict(list)  # shares of correct images by class
    of_items: dict[str, list[np.ndarray]] = defaultdict(list)  # which images are classified correctly
    items: list[str] = []
    confusion: list[tuple[str, str]] = []
    layers, probes = context.params.layers, context.params.probes
    confused = scored_as(f"accuracy_{'pool5' if 'pool5' in layers else layers[0]}", probes[0])
    for split in range(1, SPLITS + 1):
        classes, train, test = read_split(context.data_dir, split, context.params.images_per_class, context.seed)
        items += [f"{split}/{file.relative_to(context.data_dir)}" for file in test[0]]
        for plain, features in split_features(encoders, train[0] + test[0], context, split):
            for kind in probes:
                metric = scored_as(plain, kind)
                result = probe_split(kind, features, train[1], f"sun split {split} {metric}")
                predicted = result.scores.argmax(1)
                correct = predicted == test[1]
                if metric == confused:
                    pairs = zip(test[1], predicted, strict=True)
                    confusion += [(classes[true], classes[number]) for true, number in pairs]
                scores[metric].append(float(correct.mean()))
                of_items[metric].append(correct)
                right[metric].append(np.array([correct[test[1] == number].mean() for number in range(len(classes))]))
                values[metric].append(result.value)
    metrics = {metric: float(np.mean(of_splits)) for metric, of_splits in scores.items()}
    columns = {(kind, layer): scored_as(layer, kind) for kind in probes for layer in layers}
    metrics |= {
        f"{selected_as(kind)}_{layer}": float(np.median(values[f"accuracy_{column}"]))
        for (kind, layer), column in columns.items()
    }
    metrics["chance"] = 1 / len(classes)
    by_class = {metric: np.mean(of_splits, axis=0) for metric, of_splits in right.items()}
    rows = [{"class": name} | {m: float(v[number]) for m, v in by_class.items()} for number, name in enumerate(classes)]
    scored = beside_random(metrics, "accuracy", list(columns.values()))
    item_scores = {metric: np.concatenate(parts) for metric, parts in of_items.items()}
    protocol = f"{PROTOCOL.format(in_words(probes))} over {SPLITS} splits"
    return Result(metrics, rows, protocol, scored, items, confusion, item_scores)


def split_features(
    encoders: Mapping[str, ImageEncoder], files: list[Path], context: Context[SunParams], split: int
) -> Iterator[tuple[str, Tensor]]:
    """The metric's name and the features of a split's images, for each layer of each encoder and for colors."""
    resize = context.params.resize
    for prefix, encoder in encoders.items():
        title = f"sun {split} {prefix or 'encoder'}"
        for layer, features in layer_features(encoder, files, context.params.layers, resize, title).items():
            yield f"{prefix}accuracy_{layer}", features
    yield "color_histogram_accuracy", color_features(files, resize, encoders[""].image_size)


def probe_split(kind: str, features: Tensor, train: np.ndarray, name: str) -> ProbeResult:
    """The probe of one split, with its scores of the test images.

    `features` holds the training rows, then the test rows; `train` has the category indices of the training rows.
    """
    folds = np.arange(len(train)) % FOLDS  # images are sorted by category, so each fold has its share
    labeled = features[: len(train)], one_vs_rest(train)
    return cross_validated_probe(PROBES[kind], labeled, folds, features[len(train) :], accuracy, name=name)


def read_split(data_dir: Path, split: int, images_per_class: int, seed: int) -> tuple[list[str], Part, Part]:
    """The categories of a split, and `images_per_class` training and test images of each, sorted by category.

    Raises EarshotError for another layout, for an image that is listed twice, and for a category with fewer than three
    training images, no test image or fewer than `images_per_class`.
    """
    parts = {}
    for part, fewest in FEWEST.items():
        file = data_dir / "Partitions" / f"{part}_{split:02d}.txt"
        listed = _read_partition(file)
        parts[part] = {name: listed[name] for name in sorted(listed)}
        for name, listed_images in parts[part].items():
            if len(listed_images) < fewest:
                raise EarshotError(
                    f"{file}: {len(listed_images)} images of {name}, expected {fewest} or more; restore the lists"
                )
        scarcest = min(listed, key=lambda name: len(listed[name]), default="")
        if scarcest and len(listed[scarcest]) < images_per_class:
            raise EarshotError(
                f"{file}: {len(listed[scarcest])} images of {scarcest}, expected {images_per_class}; "
                f"restore the lists, or set evaluate.sun.images_per_class to at most {len(listed[scarcest])}"
            )
    classes = list(parts["Training"])
    if classes != list(parts["Testing"]):
        odd = sorted(set(classes) ^ set(parts["Testing"]))[0]
        raise EarshotError(f"{data_dir}, split {split}: {odd} is in only one of Training and Testing, expected in both")
    shared = [path for name in classes for path in set(parts["Training"][name]) & set(parts["Testing"][name])]
    if shared:
        raise EarshotError(
            f"{data_dir}, split {split}: {min(shared)} is in Training and Testing, expected in one; restore the lists"
        )
    if len(classes) < 2:
        raise EarshotError(f"{data_dir}, split {split}: {len(classes)} category, expected at least two")
    train, test = (
        _draw(data_dir, parts[part], images_per_class, (seed, split, order)) for order, part in enumerate(parts)
    )
    return classes, train, test


def _draw(data_dir: Path, listed: dict[str, list[str]], images_per_class: int, seed: Sequence[int]) -> Part:
    files, labels = [], []
    for number, names in enumerate(listed.values()):
        drawn = np.random.default_rng([*seed, number]).permutation(len(names))[:images_per_class]
        files += [data_dir / "SUN397" / names[index] for index in sorted(drawn)]
        labels += [number] * len(drawn)
    return files, np.array(labels)


def _read_partition(file: Path) -> dict[str, list[str]]:
    """The images of each category, as paths below SUN397, from lines such as /a/abbey/sun_aobrzbkvqmzltksk.jpg."""
    lines = read_lines(file, f"expected {LAYOUT}; correct evaluate.sun.data_dir")
    images: dict[str, list[str]] = defaultdict(list)
    first: dict[str, int] = {}  # the line of each image
    for number, line in enumerate(lines, 1):
        path = line.lstrip("/")
        if line and (path.count("/") < 2 or ".." in path.split("/")):
            raise EarshotError(f"{file}, line {number}: {line!r}, expected a path such as /a/abbey/sun_a.jpg")
        if first.setdefault(path, number) != number and line:
            raise EarshotError(
                f"{file}, line {number}: lists {path} again after line {first[path]}, expected once; remove one of them"
            )
        if line:
            images[path.rpartition("/")[0]].append(path)
    return images


BENCHMARK = Benchmark(
    params=SunParams,
    evaluate=evaluate,
    title="SUN397",
    scores="accuracy",
    leading="accuracy_pool5",
    metric="accuracy",
    alike={"color histogram": "color_histogram_"},
    class_score="accuracy",
    at_a_glance=True,
    on_console=True,
)
