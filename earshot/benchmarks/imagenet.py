"""A linear layer on the features of an encoder, for ImageNet or any data_dir with a folder of images per class.

Two published probes differ in three parameters. Both train one linear layer by cross-entropy on the last map, after its
ReLU: conv4_2 of L3's tower, conv5 of other encoders.

- Arandjelovic & Zisserman (2017, section 3.4): images are resized to 256 x 256 without cropping, the map is max-pooled
  to at most 4 x 4 (`pool` maximum), 8192 dimensions of a tower of width 1, and the optimizer is Adam. Our changes:
  there is no augmentation and no label smoothing, the rate falls linearly to zero, and one factor scales the mean norm
  of features to the root of their dimensions.
- Mahadev & Lu (2020), by the published code (rowhanm/ambient-sound-self-supervision, downstream_evaluation/
  linear_imagenet_classifier.py, which follows DeepCluster's): the shorter side is resized to 256 px, the map is
  averaged over windows of 2 x 2 (`pool` average), the optimizer is SGD with momentum .9 whose rate falls as
  rate / sqrt(1 + rate * decay * step), and scores are the mean of the softmax over ten crops (`crops` 10). Our
  changes: training sees the center crop, not random ones, since features are computed once; and the test images are
  ImageNet's own instead of a fifth of the training images.

`supervised_epochs` of more than 0 train the whole network on the classes too, from the control's random weights on
(`earshot.evaluation.images.supervised`): `supervised_accuracy`, which the L3 paper gives beside its probe.

Features of all images are computed once, in half precision, in files of the scratch folder: 16 kB per image for a tower
of width 1, and 21 GB for ImageNet, one encoder at a time (ResNet-50 with ten crops: 37 kB per crop, 66 GB). Memory
holds only the names of all images.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import Amount, Count, Decay, Pixels, Positive
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.corpus.split import split_of
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.encoders import PREFIXES, load_encoders
from earshot.evaluation.image_files import read_image, read_whole_image
from earshot.evaluation.images.supervised import SIDE, Classifier, ClassTask, predict
from earshot.evaluation.probing import feature_scale
from earshot.media.guarded_files import IMAGE_SUFFIXES
from earshot.networks.device import get_device, on_device
from earshot.networks.files import load_encoder
from earshot.networks.network import require_convolutional
from earshot.networks.towers import pooled
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "linear layer on pooled conv features, accuracy"
PARTS = ("train", "val")
LAYOUT = "train and val with a folder of images per class in each, or only such folders"
MOMENTUM = 0.9  # of SGD
AT_ONCE = 32  # images per batch
SHARD = 4096  # images with features in one file, 64 MB at width 1
ROWS = 256  # test rows per batch
SAMPLED = 1024  # training images that define the scale of features


class ImageNetParams(BenchmarkParams):
    """An image is resized to `resize` px, whole for one of `crops`, and by its shorter side for ten.

    0 `supervised_epochs` leaves out the supervised reference, which has the probe's `batch_size`.
    """

    inputs: Literal["images"]
    resize: Pixels
    pool: Literal["maximum", "average"]
    crops: Literal[1, 10]
    optimizer: Literal["adam", "sgd"]
    epochs: Positive
    batch_size: Positive
    learning_rate: Amount
    weight_decay: Decay
    supervised_epochs: Count
    supervised_learning_rate: Amount


@dataclass(frozen=True)
class LabeledImages:
    """The images of a data_dir: first the training images, then the test images.

    Args:
        files: their names.
        classes: names.
        labels: the class index of each image, (images,).
        train: the number of training images.
    """

    files: list[str]
    classes: list[str]
    labels: np.ndarray
    train: int


def evaluate(context: Context[ImageNetParams]) -> Result:
    """The accuracy of the trained network, of its controls, and of chance."""
    encoders = [name for name, prefix in PREFIXES.items() if prefix in load_encoders(context.encoder)]
    images = read_dataset(context.data_dir)
    metrics: dict[str, Any] = {}
    right: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = [{"class": name} for name in images.classes]
    test_labels = images.labels[images.train :]
    measured: dict[str, Callable[[Context[ImageNetParams], LabeledImages], np.ndarray]] = {
        f"{PREFIXES[name]}accuracy": partial(measure, name) for name in encoders
    }
    if context.params.supervised_epochs:
        measured["supervised_accuracy"] = measure_supervised
    for metric, measure_one in measured.items():
        correct = right[metric] = measure_one(context, images)
        metrics[metric] = float(correct.mean())
        for number, row in enumerate(rows):
            of_class = correct[test_labels == number]
            row[metric] = float(of_class.mean()) if len(of_class) else None
    metrics["chance"] = 1 / len(images.classes)
    metrics |= {"images_train": images.train, "images_test": len(test_labels)}
    summary = f"{metrics['accuracy']:.3f} (random {metrics['random_accuracy']:.3f}); chance {metrics['chance']:.3f}"
    names = [str(Path(file).relative_to(context.data_dir)) for file in images.files[images.train :]]
    return Result(metrics, rows, f"{PROTOCOL} on {context.data_dir.name}", summary, names, item_scores=right)


def measure(name: str, context: Context[ImageNetParams], images: LabeledImages) -> np.ndarray:
    """Which test images the linear layer on an encoder classifies correctly, bool; a killed evaluation resumes."""
    finished = context.scratch / f"{name}_correct.json"
    if not finished.exists():
        folder = context.scratch / f"{name}_features"
        train, test = images.files[: images.train], images.files[images.train :]
        parts = [(part[first : first + SHARD], crops) for part, crops in ((train, 1), (test, context.params.crops))
                 for first in range(0, len(part), SHARD)]  # fmt: skip
        for shard, (files, crops) in enumerate(parts):
            with write_atomically(_shard(folder, shard).with_suffix(".json")) as temporary_path:
                temporary_path.write_text(json.dumps({"files": files, "crops": crops}))
        work = partial(describe_shard, name=name, context=context, folder=folder)
        map_shards(work, range(len(parts)), folder / "finished", title=f"imagenet {name}")
        written = [_shard(folder, shard) for shard in range(len(parts))]
        of_train = -(-len(train) // SHARD)
        layer, scale = train_linear(Features(written[:of_train]), images, context)
        correct = classify(layer, scale, Features(written[of_train:]), images)
        with write_atomically(finished) as temporary_path:
            temporary_path.write_text(json.dumps(correct.tolist()))
        shutil.rmtree(folder)
    return np.array(json.loads(finished.read_text()), bool)


def measure_supervised(context: Context[ImageNetParams], images: LabeledImages) -> np.ndarray:
    """Which test images the network classifies correctly, trained on the classes from its random weights on."""
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    p, seed = context.params, context.seed
    network = require_convolutional(load_encoder(context.encoder, "random"))
    classifier = on_device(Classifier(network, len(images.classes), p.resize))
    files, labels = images.files[: images.train], images.labels[: images.train]
    task = ClassTask(classifier, files, labels, size=p.resize, batch_size=p.batch_size, seed=seed)
    plan = Plan(
        epochs=p.supervised_epochs,
        learning_rate=p.supervised_learning_rate,
        weight_decay=p.weight_decay,
        grad_clip_norm=5.0,  # as of pretrain and correspond
        precision="auto",
        seed=seed,
        optimizer="adam",
    )
    Trainer(task, plan, context.scratch / "supervised.checkpoint.safetensors").train("supervised")
    return predict(classifier, images.files[images.train :], p.resize) == images.labels[images.train :]


@torch.inference_mode()
def describe_shard(shard: int, name: str, context: Context[ImageNetParams], folder: Path) -> dict[str, int]:
    """Write the features of up to SHARD images, float16 (images, crops, dimensions), beside the list of their names.

    Raises EarshotError if the crops are larger than the resized images.
    """
    torch.set_num_threads(1)  # sums, and so features, depend on their number
    device = get_device()
    encoder = on_device(require_convolutional(load_encoder(context.encoder, name)))
    p, listed = context.params, json.loads(_shard(folder, shard).with_suffix(".json").read_text())
    files, crops = listed["files"], listed["crops"]
    side = encoder.image_size if p.crops > 1 else 0
    if side > p.resize:
        raise EarshotError(f"resize is {p.resize} px, expected at least the encoder's {side}; set it in params.yaml")
    read = partial(_read, files=files, resize=p.resize, side=side, crops=crops)
    rows = []
    for batch in prefetch(read, range(0, len(files), AT_ONCE), settings().threads):
        maps = encoder.convolve(encoder.normalize(batch.to(device)))
        flat = pooled(maps, SIDE, SIDE) if p.pool == "maximum" else average_pooled(maps)
        rows.append(flat.unflatten(0, (-1, crops)).half().cpu().numpy())
    with write_atomically(_shard(folder, shard)) as temporary_path, temporary_path.open("wb") as file:
        np.save(file, np.concatenate(rows))
    return {"images": len(files)}


class Features:
    """Rows of features in files of SHARD rows each, read on access."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.opened = [np.load(file, mmap_mode="r") for file in files]
        self.dimensions = self.opened[0].shape[2]

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """float32 (indices, crops, dimensions)."""
        rows = np.stack([self.opened[index // SHARD][index % SHARD] for index in indices.tolist()])
        return torch.from_numpy(rows).float()


def train_linear(
    features: Features, images: LabeledImages, context: Context[ImageNetParams]
) -> tuple[nn.Linear, float]:
    """A linear layer trained on the features of the training images times a scale, and that scale; 1 for SGD."""
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    p, device = context.params, get_device()
    drawn = generator("linear layer's scale", context.seed).permutation(images.train)[:SAMPLED]
    scale = feature_scale(features[drawn][:, 0]) if p.optimizer == "adam" else 1.0
    layer = nn.Linear(features.dimensions, len(images.classes), device=device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer: torch.optim.Optimizer
    if p.optimizer == "adam":
        optimizer = torch.optim.Adam(layer.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    else:
        optimizer = torch.optim.SGD(layer.parameters(), p.learning_rate, MOMENTUM, weight_decay=p.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_at, params=p, images=images.train))
    batches = (
        batch for epoch in range(p.epochs) for batch in _shuffled(images.train, p.batch_size, context.seed, epoch)
    )
    for batch, rows in prefetch(lambda batch: (batch, features[batch][:, 0]), batches, settings().threads):
        labels = torch.from_numpy(images.labels[batch]).to(device)
        loss = functional.cross_entropy(layer(rows.to(device) * scale), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return layer, scale


def rate_at(step: int, params: ImageNetParams, images: int) -> float:
    """The learning rate of a step as a share of the first one: Adam's falls to zero, SGD's as its code has it."""
    if params.optimizer == "sgd":
        return float((1 + params.learning_rate * params.weight_decay * step) ** -0.5)
    return 1 - step / (params.epochs * -(-images // params.batch_size))


def average_pooled(maps: Tensor) -> Tensor:
    """Maps (n, channels, h, w) averaged over windows of 2 x 2, flat: (n, channels * (h // 2) * (w // 2))."""
    return functional.avg_pool2d(maps, min(2, maps.shape[2], maps.shape[3])).flatten(1)


@torch.inference_mode()
def classify(layer: nn.Linear, scale: float, features: Features, images: LabeledImages) -> np.ndarray:
    """Which of the test images the layer classifies correctly, by the mean softmax of their crops: bool."""
    indices, device = np.arange(len(images.files) - images.train), layer.weight.device
    parts = [indices[first : first + ROWS] for first in range(0, len(indices), ROWS)]
    predicted = [layer(features[part].to(device) * scale).softmax(2).mean(1).argmax(1).cpu().numpy() for part in parts]
    return np.concatenate(predicted) == images.labels[images.train :]


def read_dataset(data_dir: Path) -> LabeledImages:
    """The images of the class folders in train and val; without these, a hash selects four fifths for training.

    Raises EarshotError for another layout, fewer than two classes, and test classes without training images.
    """
    if all((data_dir / part).is_dir() for part in PARTS):
        train, test = (list(_listed(data_dir / part)) for part in PARTS)
    else:
        both = list(_listed(data_dir))
        kept = [split_of(str(Path(file).relative_to(data_dir))) == "train" for _, file in both]
        train = [image for image, trains in zip(both, kept, strict=True) if trains]
        test = [image for image, trains in zip(both, kept, strict=True) if not trains]
    classes = sorted({name for name, _ in train})
    if unknown := sorted({name for name, _ in test} - set(classes)):
        raise EarshotError(
            f"{data_dir}: {unknown[0]} has test images but no training images; correct evaluate.imagenet.data_dir"
        )
    if len(classes) < 2 or not test:
        actual = f"{len(classes)} classes and {len(test)} test images"
        raise EarshotError(f"{data_dir}: holds {actual}, expected {LAYOUT}; correct evaluate.imagenet.data_dir")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for name, _ in [*train, *test]])
    return LabeledImages([file for _, file in [*train, *test]], classes, labels, len(train))


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """Class and file name of every image in the class folders of a folder, in order."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        for file in sorted(inner.rglob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                yield inner.name, str(file)


def _read(first: int, files: Sequence[str], resize: int, side: int, crops: int) -> Tensor:
    """Some images, each whole, or `crops` crops of it if `side` is theirs: uint8 (images * crops, 3, ...)."""
    return torch.cat([read_crops(Path(file), resize, side, crops) for file in files[first : first + AT_ONCE]])


def read_crops(file: Path, resize: int, side: int, crops: int) -> Tensor:
    """An image squeezed to a square if `side` is 0; or its center, or the corners and the center, mirrored too.

    Returns uint8 (crops, 3, resize, resize), or of `side` px. Raises EarshotError for a file that is no image.
    """
    if not side:
        return read_image(file, resize, resize)[None]
    from torchvision.transforms import functional as transforms  # takes as long to import as torch

    scaled = transforms.resize(read_whole_image(file), [resize], antialias=True)  # the shorter side
    if crops > 1:
        return torch.stack(transforms.ten_crop(scaled, [side]))
    return transforms.center_crop(scaled, [side])[None]


def _shard(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.npy"


def _shuffled(count: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    order = generator("linear layer's batches", seed, epoch).permutation(count)
    return [order[first : first + batch] for first in range(0, count, batch)]


BENCHMARK = Benchmark(
    params=ImageNetParams, evaluate=evaluate, title="ImageNet", scores="accuracy", leading="accuracy", at_a_glance=True
)
