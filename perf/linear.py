"""How much faster the linear probe is than the same protocol on scikit-learn, at the same score.

    EARSHOT_REAL_DATA=DIR python -m perf.linear            # about a quarter of an hour on one core
    python -m perf.linear --quick                          # seconds: small parts, 256 dimensions
    python -m perf.linear --classes 20                     # scikit-learn on all classes, nothing extrapolated
    python -m perf.linear --assert                         # exits with 1 if a bound does not hold

The protocol of one layer: 16 C, 20 classes, the choice of C by validation mean AP, the refit and the test. The rows are
those of a random full-width AlexNet on crops of the VOC2007-like photographs of EARSHOT_REAL_DATA, or, without them,
rows drawn with the spectrum and the sparseness of such features. Both take them scaled and centered. scikit-learn fits
`--classes` of the 20 (its cost is linear in them) and its time is multiplied up; C is chosen by, and the scores are
compared on, those classes. One thread; processor time.
"""

import argparse
import os
import time
import warnings
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import LinearSVC
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from earshot.evaluation.metrics import mean_average_precision
from earshot.evaluation.probing import PROBES, feature_scale, validated_probe
from earshot.networks.backbones.alexnet import AlexNet
from perf.rounds import end, parser_of

SVM = PROBES["svm"]
PARTS = {"train": 2501, "val": 2510, "test": 2452}  # rows as VOC2007 has, of test half as many
CLASSES = 20
LAYERS = {"max5": 256, "fc6": 4096, "pool5": 9216}
MIN_SPEEDUP = {"max5": 10, "fc6": 20, "pool5": 40}  # minimum speed-up
MAP_WITHIN = 0.003

Part = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """Processor seconds, and the mean AP of the compared classes on validation (per C) and test."""

    seconds: float
    choice: tuple[float, ...]
    test: float


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    folder = os.environ.get("EARSHOT_REAL_DATA")
    parts = {name: size // 8 if options.quick else size for name, size in PARTS.items()}
    layers = ["max5"] if options.quick else list(LAYERS)
    tables = _photographs(Path(folder), parts, layers) if folder else _drawn(parts, layers)
    faults = []
    for layer in layers:
        ours, theirs = _ours(tables[layer], options.classes), _theirs(tables[layer], options.classes)
        faults += report(layer, ours, theirs, options.classes)
    end(options, faults)


def report(layer: str, ours: Outcome, theirs: Outcome, classes: int) -> list[str]:
    """Print the comparison; return the bounds that do not hold, a phrase each."""
    print(_compared(layer, ours, theirs, classes), flush=True)
    times, points = theirs.seconds / ours.seconds, 100 * (ours.test - theirs.test)
    faults = [f"{layer}: {times:.1f} times, expected {MIN_SPEEDUP[layer]}"] if times < MIN_SPEEDUP[layer] else []
    return faults + ([f"{layer}: {points:+.2f} points of mAP"] if abs(points) > 100 * MAP_WITHIN else [])


def _compared(layer: str, ours: Outcome, theirs: Outcome, classes: int) -> str:
    choices = 100 * np.abs(np.subtract(ours.choice, theirs.choice)).max()
    return (
        f"{layer} ({LAYERS[layer]}): earshot {ours.seconds:.2f} s, scikit-learn {theirs.seconds:.1f} s ({classes} of "
        f"{CLASSES} classes timed): {theirs.seconds / ours.seconds:.0f} times (bound {MIN_SPEEDUP[layer]}); test mAP "
        f"{ours.test:.4f} against {theirs.test:.4f}: {100 * (ours.test - theirs.test):+.2f} points (expected within "
        f"{100 * MAP_WITHIN:.1f}); validation mAP differs by {choices:.2f} points at most"
    )


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the rows, 256 dimensions only")
    parser.add_argument("--classes", type=int, default=4, help="classes that scikit-learn fits (default 4)")
    return parser.parse_args()


def _ours(parts: dict[str, Part], compared: int) -> Outcome:
    def score(scores: np.ndarray, labels: np.ndarray) -> float:
        mean_average_precision(scores, labels)  # of all classes, for the time it takes
        return mean_average_precision(scores[:, :compared], labels[:, :compared])

    began = time.process_time()
    probe = validated_probe(SVM, parts["train"], parts["val"], parts["test"][0], score, name="benchmark")
    seconds = time.process_time() - began
    test = mean_average_precision(probe.scores[:, :compared], parts["test"][1][:, :compared].numpy())
    return Outcome(seconds, probe.choice, test)


def _theirs(parts: dict[str, Part], compared: int) -> Outcome:
    """The same protocol with LinearSVC."""
    labels = {name: part[1][:, :compared].numpy() for name, part in parts.items()}
    began = time.process_time()
    scale = feature_scale(parts["train"][0])
    mean = parts["train"][0].mean(0)
    rows = {name: ((part[0] - mean) * scale).numpy() for name, part in parts.items()}
    choice = tuple(
        mean_average_precision(_fit_all(rows["train"], labels["train"], cost, rows["val"]), labels["val"])
        for cost in SVM.grid
    )
    cost = SVM.grid[int(np.argmax(choice))]
    both = np.concatenate([rows["train"], rows["val"]])
    mean = both.mean(0)
    scores = _fit_all(both - mean, np.concatenate([labels["train"], labels["val"]]), cost, rows["test"] - mean)
    test = mean_average_precision(scores, labels["test"])
    return Outcome((time.process_time() - began) * CLASSES / compared, choice, test)


def _fit_all(rows: np.ndarray, labels: np.ndarray, cost: float, test_rows: np.ndarray) -> np.ndarray:
    """Scores (asked, classes); `dual="auto"` takes the faster side, the dual where rows are fewer than dimensions."""
    scores = np.empty((len(test_rows), labels.shape[1]), np.float32)
    for column, signs in enumerate(labels.T):
        counted = signs != 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of not having converged in 1,000 steps
            machine = LinearSVC(C=cost, dual="auto", random_state=0).fit(rows[counted], signs[counted])
        scores[:, column] = machine.decision_function(test_rows)
    return scores


def _photographs(folder: Path, sizes: dict[str, int], layers: list[str]) -> dict[str, dict[str, Part]]:
    """Features of random crops of the photographs: each photograph is cropped until the part has its size."""
    data_dir = folder / "voc2007" / "VOCdevkit" / "VOC2007"
    torch.manual_seed(0)
    network = AlexNet(classes=2)
    crops = {}
    for part, size in sizes.items():
        names = (data_dir / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
        crops[part] = [names[row % len(names)] for row in range(size)]
    _estimate_batch_norm(network, torch.stack([_crop(data_dir, name) for name in crops["train"][:128]]))
    tables: dict[str, dict[str, Part]] = {layer: {} for layer in layers}
    for part, names in crops.items():
        labels = torch.stack([_signs(data_dir, name) for name in names])
        batches = [names[start : start + 64] for start in range(0, len(names), 64)]
        with torch.inference_mode():
            features = [
                network.features(torch.stack([_crop(data_dir, name) for name in batch]), layers) for batch in batches
            ]
        for layer in layers:
            tables[layer][part] = torch.cat([each[layer] for each in features]).clone(), labels
    return tables


def _crop(data_dir: Path, name: str) -> torch.Tensor:
    image = decode_jpeg(read_file(str(data_dir / "JPEGImages" / f"{name}.jpg")), mode=ImageReadMode.RGB)
    height, width = (int(side * (0.6 + 0.4 * torch.rand(()).item())) for side in image.shape[1:])
    top = int(torch.randint(image.shape[1] - height + 1, ()))
    left = int(torch.randint(image.shape[2] - width + 1, ()))
    image = image[:, top : top + height, left : left + width]
    return functional.interpolate(image[None], (227, 227), mode="bilinear", antialias=True)[0]


_classes: list[str] = []


def _signs(data_dir: Path, name: str) -> torch.Tensor:
    """1, -1, or 0 where all objects of the class are difficult; classes in the order of the alphabet."""
    if not _classes:
        files = (data_dir / "ImageSets" / "Main").glob("*_val.txt")
        _classes.extend(sorted(file.stem.removesuffix("_val") for file in files))
    signs = torch.full((len(_classes),), -1.0)
    for thing in ElementTree.parse(data_dir / "Annotations" / f"{name}.xml").iter("object"):
        column = _classes.index(thing.findtext("name", ""))
        easy = thing.findtext("difficult", "0").strip() != "1"
        signs[column] = 1.0 if easy or signs[column] == 1 else 0.0
    return signs


def _estimate_batch_norm(network: AlexNet, images: torch.Tensor) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    network.train()
    with torch.inference_mode():
        network.features(images, ("pool5",))
    network.eval()


def _drawn(sizes: dict[str, int], layers: list[str]) -> dict[str, dict[str, Part]]:
    """Rows with a power-law spectrum after a ReLU, and classes that a noisy linear rule decides."""
    rng = torch.Generator().manual_seed(0)
    tables: dict[str, dict[str, Part]] = {layer: {} for layer in layers}
    for layer in layers:
        dimensions, factors = LAYERS[layer], 512
        mixing = torch.randn(factors, dimensions, generator=rng) * torch.arange(1, factors + 1)[:, None] ** -0.5
        rule = torch.randn(factors, CLASSES, generator=rng) * torch.arange(1, factors + 1)[:, None] ** -0.5
        for part, size in sizes.items():
            factor = torch.randn(size, factors, generator=rng)
            rows = (factor @ mixing + torch.randn(size, dimensions, generator=rng) + 1).relu()
            noisy = factor @ rule + 3 * torch.randn(size, CLASSES, generator=rng)
            tables[layer][part] = rows, torch.where(noisy > noisy.quantile(0.93, dim=0), 1.0, -1.0)
    return tables


if __name__ == "__main__":
    main()
