"""A linear layer on the features of an encoder, for ImageNet or any data_dir with a folder of images per class.

Images are resized to 256 x 256 without cropping. conv4_2 after its ReLU (conv5 of other encoders) is max-pooled to at
most 4 x 4, 8192 dimensions of a tower of width 1, and one linear layer is trained on it by cross-entropy and Adam
(Arandjelovic & Zisserman 2017, section 3.4). Our changes: there is no augmentation and no label smoothing, the rate
falls linearly to zero, and one factor scales the mean norm of features to the root of their dimensions.

Features of all images are computed once, in half precision, in files of the scratch folder: 16 kB per image at width 1,
and 21 GB for ImageNet, one encoder at a time. Memory holds only the names of all images.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
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
from earshot.core.params import Amount, Decay, Pixels, Positive
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.corpus.split import split_of
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.encoders import PREFIXES, load_encoders
from earshot.evaluation.image_files import read_image
from earshot.evaluation.linear import feature_scale
from earshot.networks.device import get_device, on_device
from earshot.networks.files import load_encoder
from earshot.networks.network import require_convolutional
from earshot.networks.towers import pooled
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards

PROTOCOL = "linear layer on pooled conv features, accuracy"
IMAGES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
PARTS = ("train", "val")
LAYOUT = "train and val with a folder of images per class in each, or only such folders"
SIDE = 4  # positions per side after pooling
AT_ONCE = 32  # images per batch
SHARD = 4096  # images with features in one file, 64 MB at width 1
ROWS = 256  # test rows per batch
SAMPLED = 1024  # training images that define the scale of features


class Params(BenchmarkParams):
    """An image is resized to `resize` px without cropping; the rate falls linearly to zero."""

    inputs: Literal["images"]
    resize: Pixels
    epochs: Positive
    batch_size: Positive
    learning_rate: Amount
    weight_decay: Decay


@dataclass(frozen=True)
class Images:
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


def evaluate(context: Context[Params]) -> Result:
    """The accuracy of the trained network, of its controls, and of chance."""
    encoders = [name for name, prefix in PREFIXES.items() if prefix in load_encoders(context.encoder)]
    images = read_dataset(context.data_dir)
    metrics: dict[str, Any] = {}
    right: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = [{"class": name} for name in images.classes]
    test_labels = images.labels[images.train :]
    for name in encoders:
        correct = measure(name, context, images)
        metric = f"{PREFIXES[name]}accuracy"
        right[metric] = correct
        metrics[metric] = float(correct.mean())
        for number, row in enumerate(rows):
            of_class = correct[test_labels == number]
            row[metric] = float(of_class.mean()) if len(of_class) else None
    metrics["chance"] = 1 / len(images.classes)
    metrics |= {"images_train": images.train, "images_test": len(test_labels)}
    summary = f"{metrics['accuracy']:.3f} (random {metrics['random_accuracy']:.3f}); chance {metrics['chance']:.3f}"
    names = [str(Path(file).relative_to(context.data_dir)) for file in images.files[images.train :]]
    return Result(metrics, rows, f"{PROTOCOL} on {context.data_dir.name}", summary, names, item_scores=right)


def measure(name: str, context: Context[Params], images: Images) -> np.ndarray:
    """Which test images the linear layer on an encoder classifies correctly, bool; a killed evaluation resumes."""
    finished = context.scratch / f"{name}_correct.json"
    if not finished.exists():
        folder = context.scratch / f"{name}_features"
        shards = range(-(-len(images.files) // SHARD))
        for shard in shards:
            with write_atomically(_shard(folder, shard).with_suffix(".json")) as temporary_path:
                temporary_path.write_text(json.dumps(images.files[shard * SHARD : (shard + 1) * SHARD]))
        work = partial(describe_shard, name=name, context=context, folder=folder)
        map_shards(work, shards, folder / "finished", title=f"imagenet {name}")
        features = Features([_shard(folder, shard) for shard in shards])
        layer, scale = train_linear(features, images, context)
        correct = classify(layer, scale, features, images)
        with write_atomically(finished) as temporary_path:
            temporary_path.write_text(json.dumps(correct.tolist()))
        shutil.rmtree(folder)
    return np.array(json.loads(finished.read_text()), bool)


@torch.inference_mode()
def describe_shard(shard: int, name: str, context: Context[Params], folder: Path) -> dict[str, int]:
    """Write the features of up to SHARD images, float16 (images, dimensions), beside the list of their names."""
    torch.set_num_threads(1)  # sums, and so features, depend on their number
    device = get_device()
    encoder = on_device(require_convolutional(load_encoder(context.encoder, name)))
    files = json.loads(_shard(folder, shard).with_suffix(".json").read_text())
    read = partial(_read, files=files, side=context.params.resize)
    rows = []
    for batch in prefetch(read, range(0, len(files), AT_ONCE), settings().threads):
        maps = encoder.convolve(encoder.normalize(batch.to(device)))
        rows.append(pooled(maps, SIDE, SIDE).half().cpu().numpy())
    with write_atomically(_shard(folder, shard)) as temporary_path, temporary_path.open("wb") as file:
        np.save(file, np.concatenate(rows))
    return {"images": len(files)}


class Features:
    """Rows of features in files of SHARD rows each, read on access."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.opened = [np.load(file, mmap_mode="r") for file in files]
        self.dimensions = self.opened[0].shape[1]

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """float32 (indices, dimensions)."""
        rows = np.stack([self.opened[index // SHARD][index % SHARD] for index in indices.tolist()])
        return torch.from_numpy(rows).float()


def train_linear(features: Features, images: Images, context: Context[Params]) -> tuple[nn.Linear, float]:
    """A linear layer trained on the first `images.train` rows times a scale, and that scale."""
    p, device = context.params, get_device()
    drawn = generator("linear layer's scale", context.seed).permutation(images.train)[:SAMPLED]
    scale = feature_scale(features[drawn])
    layer = nn.Linear(features.dimensions, len(images.classes), device=device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    steps = p.epochs * -(-images.train // p.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = (
        batch for epoch in range(p.epochs) for batch in _shuffled(images.train, p.batch_size, context.seed, epoch)
    )
    for batch, rows in prefetch(lambda batch: (batch, features[batch]), batches, settings().threads):
        labels = torch.from_numpy(images.labels[batch]).to(device)
        loss = functional.cross_entropy(layer(rows.to(device) * scale), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return layer, scale


@torch.inference_mode()
def classify(layer: nn.Linear, scale: float, features: Features, images: Images) -> np.ndarray:
    """Which of the test images the layer classifies correctly: bool."""
    indices, device = np.arange(images.train, len(images.files)), layer.weight.device
    parts = [indices[first : first + ROWS] for first in range(0, len(indices), ROWS)]
    predicted = [layer(features[part].to(device) * scale).argmax(1).cpu().numpy() for part in parts]
    return np.concatenate(predicted) == images.labels[images.train :]


def read_dataset(data_dir: Path) -> Images:
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
    return Images([file for _, file in [*train, *test]], classes, labels, len(train))


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """Class and file name of every image in the class folders of a folder, in order."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        for file in sorted(inner.rglob("*")):
            if file.suffix.lower() in IMAGES:
                yield inner.name, str(file)


def _read(first: int, files: Sequence[str], side: int) -> Tensor:
    return torch.stack([read_image(Path(file), side, side) for file in files[first : first + AT_ONCE]])


def _shard(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.npy"


def _shuffled(count: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    order = generator("linear layer's batches", seed, epoch).permutation(count)
    return [order[first : first + batch] for first in range(0, count, batch)]


BENCHMARK = Benchmark(
    params=Params, evaluate=evaluate, title="ImageNet", scores="accuracy", leading="accuracy", at_a_glance=True
)
