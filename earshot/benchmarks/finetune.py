"""PASCAL VOC2007 classification by fine-tuning (Mahadev & Lu 2020, Table 1).

The protocol is that of the published code (rowhanm/ambient-sound-self-supervision, downstream_evaluation/
finetune_voc.py), which follows DeepCluster's and philkr/voc-classification. The fully connected layers start anew, with
one logit per class. In mode head only they train; in mode all everything trains. In both modes batch norm keeps its
statistics; its gains and offsets train in mode all. The random network in mode all is training from scratch with the
same number of steps.

Training uses random square crops of the images of train + val, cut from the full image and mirrored half of the time.
It minimizes sigmoid cross-entropy, summed over the classes that are not difficult in the image, in float32. Test scores
are summed over random crops of the same kind. `map_` is the mean of scikit-learn's average precision, difficult objects
ignored, as the code has it; `map_<mode>_11_point` is VOC2007's own for the same scores, which is higher as a rule.

Our changes: the order of the images is drawn anew in every epoch, and the crop of an image more than twice as long as
high stays inside it by losing width instead of by a new draw. No score selects anything: steps and rates are
parameters, and all networks train on the same crops in the same order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.modules.batchnorm import _BatchNorm

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import INDIFFERENT, ONCE, Amount, Count, CropShare, Decay, Positive, Share
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.evaluation.benchmark import Benchmark, Context, Result, beside_random
from earshot.evaluation.encoders import PREFIXES, load_encoders
from earshot.evaluation.image_files import ImageMemory, read_whole_image, require_images
from earshot.evaluation.images.sampling import batch_indices
from earshot.evaluation.images.voc_lists import Split, read_dataset
from earshot.evaluation.metrics import (
    Rule,
    average_precisions,
    has_all_classes,
    mean_average_precision,
    resampled_map,
)
from earshot.evaluation.significance import resampled_counts
from earshot.networks.crops import Changes, crop_images
from earshot.networks.device import on_device
from earshot.networks.files import load_network
from earshot.networks.network import Network
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.training.augmentation import Augmentation
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "VOC2007 fine-tuning, mAP"
RULES: dict[str, Rule] = {"": "steps", "_11_point": "11-point"}  # by the suffix of the metrics
TIE = 1e-5  # by which a positive's score is lowered, so that a tie counts against the network, as in the published code
DEVIATION, BIAS = 0.01, 0.1  # of the new layers' first weights, and their biases (published code)
TEST_IMAGES = 8  # images per test batch


class FineTuningParams(BenchmarkParams):
    """In mode `head` the fully connected layers train, in mode `all` everything.

    `first_weights` of the fully connected layers are those of the `published` code, or `he`: Gaussian ones that keep
    the variance (He 2015), and an output of zero: our choice for narrow layers, since with the published deviation of
    .01, outputs have n / 10,000 of the mean square of n inputs.

    A crop has `crop_min_scale` to `crop_max_scale` of an image's area; test scores are summed over `crops` crops. The
    rate is multiplied by `lr_gamma`, `lr_steps` times, evenly over the steps.
    """

    inputs: Literal["images"]
    modes: Annotated[tuple[Literal["head", "all"], ...], Field(min_length=1, strict=False), ONCE, INDIFFERENT]
    first_weights: Literal["published", "he"]
    steps: Positive
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Amount
    lr_steps: Count
    lr_gamma: Share
    weight_decay: Decay
    grad_clip_norm: Amount
    crop_min_scale: CropShare
    crop_max_scale: CropShare
    crops: Positive


@dataclass(frozen=True)
class FineTuning:
    """The arguments of the training processes.

    Args:
        context: the data_dir, the encoders, the parameters, the seed and the scratch folder.
        train, test: images and labels of train + val and of test.
        trainings: the encoder's name and the mode of each.
    """

    context: Context[FineTuningParams]
    train: Split
    test: Split
    trainings: Sequence[tuple[str, str]]

    def augmentation(self) -> Augmentation:
        p = self.context.params
        return Augmentation(crop_min_scale=p.crop_min_scale, crop_max_scale=p.crop_max_scale, flip_prob=0.5)

    def plan(self) -> Plan:
        fixed: dict[str, Any] = {"epochs": 1, "precision": "float32", "optimizer": "sgd", "schedule": "steps"}
        fixed["lr_step_epochs"] = 1 / (self.context.params.lr_steps + 1)
        fixed["checkpoint_selection"] = "last"
        return Plan.of(self.context.params, self.context.seed, **fixed)

    def path(self, name: str, mode: str, suffix: str) -> Path:
        """The file of a training's checkpoint or scores in the scratch folder."""
        return self.context.scratch / f"{name}.{mode}.{suffix}"


class VocTask:
    """Random crops of annotated images as a task for the trainer.

    Args:
        network: trained in place, on its device.
        images: files and labels, float32 (images, classes), 1, -1 or 0.
        augmentation: the crops.
        batch_size, steps: images per step and number of steps.
        seed: of the order of the images and of the crops.
    """

    def __init__(
        self, network: Network, images: Split, augmentation: Augmentation, *, batch_size: int, steps: int, seed: int
    ) -> None:
        self.network, self.augmentation, self.batch_size, self.seed = network, augmentation, batch_size, seed
        self.files, self.labels = images
        self.images = ImageMemory()
        self.batches_per_epoch = steps
        self.device = next(network.parameters()).device

    def prepare(self) -> None:
        """Freeze the statistics of batch norm."""
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def batches(self, numbers: range) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 images (batch, 3, size, size) and their labels (batch, classes)."""
        return prefetch(self._batch, numbers, settings().threads)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean sigmoid cross-entropy per image, and the share of labels that the scores' signs predict."""
        images, labels = batch
        scores = self.network(images).float()  # (batch, classes)
        positive, counted = labels == 1, labels != 0
        costs = binary_cross_entropy_with_logits(scores, positive.float(), reduction="none")
        right = ((scores > 0) == positive) & counted
        return (costs * counted).sum() / len(labels), right.sum() / counted.sum().clamp(min=1)

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        count = len(self.files)
        indices = batch_indices("fine-tuning order", self.seed, number, batch_size=self.batch_size, count=count)
        changes = draw_crops(self.augmentation, self.batch_size, generator("fine-tuning crops", self.seed, number))
        files = [self.files[index] for index in indices]
        images = crop_images(map(self.images.read, files), len(files), self.network.image_size, changes)
        return images.to(self.device), torch.from_numpy(self.labels[indices]).to(self.device)


def evaluate(context: Context[FineTuningParams]) -> Result:
    """The scores of the trained network and its controls, fine-tuned in each mode, and of constant scores."""
    _check(context.params)
    encoders = load_encoders(context.encoder, load_network)
    names = [name for name, prefix in PREFIXES.items() if prefix in encoders]
    classes, splits = read_dataset(context.data_dir)
    require_images([file for files, _ in splits.values() for file in files])
    modes = context.params.modes
    # Mode all takes longest, so it comes first.
    trainings = [(name, mode) for mode in sorted(modes) for name in names]
    tuning = FineTuning(context, _joined(splits["train"], splits["val"]), splits["test"], trainings)
    work = partial(fine_tune, tuning=tuning)
    map_shards(work, range(len(trainings)), context.scratch / "finished", title="fine-tuning")

    labels = tuning.test[1]
    metrics: dict[str, Any] = {}
    drawn: dict[str, np.ndarray] = {}
    counts = resampled_counts(len(labels), lambda drawn_counts: has_all_classes(labels, drawn_counts))
    rows: list[dict[str, Any]] = [{"class": name} for name in classes]
    for name in names:
        for mode in modes:
            scores = np.load(tuning.path(name, mode, "npy")) - TIE * (labels == 1)
            for suffix, rule in RULES.items():
                precisions = average_precisions(scores, labels, rule)
                metrics[f"{PREFIXES[name]}map_{mode}{suffix}"] = float(precisions.mean())
                drawn[f"{PREFIXES[name]}map_{mode}{suffix}"] = resampled_map(scores, labels, counts, rule)
                for row, precision in zip(rows, precisions, strict=True):
                    row[f"{PREFIXES[name]}ap_{mode}{suffix}"] = float(precision)
    metrics["chance"] = mean_average_precision(np.zeros_like(labels), labels)  # by both rules
    drawn["chance"] = resampled_map(np.zeros_like(labels), labels, counts)
    metrics["steps"] = context.params.steps
    protocol = f"{PROTOCOL} after {context.params.steps} steps"
    items = [file.stem for file in tuning.test[0]]
    return Result(metrics, rows, protocol, beside_random(metrics, "map", modes), items, drawn=drawn)


def fine_tune(number: int, tuning: FineTuning) -> dict[str, int]:
    """Fine-tune one network in one mode, or resume, and write its scores of the test images."""
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    name, mode = tuning.trainings[number]
    p, seed = tuning.context.params, tuning.context.seed
    network = load_network(tuning.context.encoder, name)
    renew(network, tuning.train[1].shape[1], mode, seed, p.first_weights)
    on_device(network)
    task = VocTask(network, tuning.train, tuning.augmentation(), batch_size=p.batch_size, steps=p.steps, seed=seed)
    checkpoint = tuning.path(name, mode, "checkpoint.safetensors")
    title = f"{name} {mode}".replace("_", " ")
    progress = Trainer(task, tuning.plan(), checkpoint).train(title, position=number + 1)
    scores = score_images(network, tuning.test[0], tuning.augmentation(), p.crops, seed)
    with write_atomically(tuning.path(name, mode, "npy")) as temporary_path, temporary_path.open("wb") as file:
        np.save(file, scores)
    checkpoint.unlink(missing_ok=True)  # half a gigabyte at the papers' size
    return {"steps": progress.step}


def renew(network: Network, classes: int, mode: str, seed: int, first_weights: str) -> None:
    """Draw new fully connected layers with `classes` outputs; in mode head freeze all other layers. In place.

    The published code draws hidden layers from N(0, .01), and the output layer as PyTorch does; all biases are .1.
    """
    torch.manual_seed(int(generator("fine-tuning layers", seed).integers(2**63)))
    network.renew_fully_connected(classes)
    if first_weights == "published":
        *hidden, output = network.fully_connected
        for layer in hidden:
            nn.init.normal_(layer.weight, 0, DEVIATION)
        output.reset_parameters()
        for layer in network.fully_connected:
            nn.init.constant_(layer.bias, BIAS)
    network.requires_grad_(mode == "all")
    for layer in network.fully_connected:
        layer.requires_grad_(True)


def draw_crops(augmentation: Augmentation, crops: int, chances: np.random.Generator) -> Changes:
    """Random square crops, mirrored half of the time."""
    changes = augmentation.draw(crops, chances)
    if changes.boxes is not None:
        changes.boxes[:, 1] = 1  # the aspect ratio
    return changes


@torch.inference_mode()
def score_images(
    network: Network, files: Sequence[Path], augmentation: Augmentation, crops: int, seed: int
) -> np.ndarray:
    """The scores of images, each summed over random crops: float32 (images, classes)."""
    network.eval()
    device = next(network.parameters()).device

    def cut(first: int) -> Tensor:
        batch = files[first : first + TEST_IMAGES]
        changes = draw_crops(augmentation, len(batch) * crops, generator("test crops", seed, first))
        return crop_images(map(read_whole_image, batch), len(batch), network.image_size, changes, crops)

    batches = prefetch(cut, range(0, len(files), TEST_IMAGES), settings().threads)
    scores = [network(images.to(device)).cpu() for images in batches]
    return torch.cat(scores).view(len(files), crops, -1).sum(1).numpy()


def _joined(first: Split, second: Split) -> Split:
    return [*first[0], *second[0]], np.concatenate([first[1], second[1]])


def _check(params: FineTuningParams) -> None:
    if params.crop_min_scale > params.crop_max_scale:
        actual = f"evaluate.finetune.crop_min_scale is {params.crop_min_scale}"
        raise EarshotError(
            f"{actual}, expected at most crop_max_scale, which is {params.crop_max_scale}; correct params.yaml"
        )


BENCHMARK = Benchmark(
    params=FineTuningParams,
    evaluate=evaluate,
    title="VOC2007, fine-tuned",
    scores="map",
    leading="map_all",
    columns={f"{mode}_11_point": f"{mode} 11pt" for mode in ("head", "all")},
    class_score="ap",
    on_console=True,
)
