"""PASCAL VOC2007 semantic segmentation with a fully convolutional head on an encoder, mean IoU.

Mahadev & Lu (2020, section 6) name segmentation as a further test of their features, without a protocol. This one is
that of fully convolutional networks (Long, Shelhamer and Darrell 2015), by which Zhang, Isola and Efros (2016, Table 2)
compare self-supervised networks:

- A head scores each position of conv5 for the background and the classes; bilinear interpolation brings the scores to
  the px of the mask (Long, section 3.3). The head is torchvision's `FCNHead`: a convolution of 3 x 3 with a quarter of
  the channels, batch norm, ReLU, dropout of .1, and a convolution of 1 x 1, which starts at zero (Long, section 4.1).
- Training minimizes the cross-entropy per px of train + val, by SGD with momentum .9 and a fixed rate if `lr_steps`
  is 0. Images are squeezed to `resize` px and mirrored half of the time.
- The score is the mean over the background and all classes of intersection over union, summed over the px of all test
  images at their own size (Long, section 5). Px of value 255, which VOC puts around objects, count nowhere.

In mode head the encoder is frozen, in mode all it trains too. In both, its batch norm keeps its statistics. No test
score selects anything: steps and rates are parameters, and all networks train on the same images in the same order.
With `split` val, training takes train alone and val is scored; choose the rate by that. Chance takes every px as
background.
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
from torch.nn.functional import cross_entropy, interpolate
from torch.nn.modules.batchnorm import _BatchNorm

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import INDIFFERENT, ONCE, Amount, Count, Decay, Pixels, Positive, Share
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.core.text import read_lines
from earshot.evaluation.benchmark import Benchmark, Context, Result, beside_random
from earshot.evaluation.encoders import PREFIXES, load_encoders
from earshot.evaluation.image_files import ImageMemory, read_image, read_whole_image, require_images
from earshot.evaluation.images.sampling import batch_indices
from earshot.evaluation.images.voc_lists import read_dataset
from earshot.media.guarded_files import read_mask_file
from earshot.networks.device import on_device
from earshot.networks.files import load_encoder
from earshot.networks.network import Convolutional, require_convolutional
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "VOC2007 segmentation, mean IoU"
VOID = 255  # px of a mask that count nowhere
BACKGROUND = "background"


class SegmentationParams(BenchmarkParams):
    """In mode `head` the new head trains, in mode `all` everything.

    Training takes train + val and `split` test is scored; or `split` val is, after training on train alone.

    Images are squeezed to `resize` x `resize` px. The rate is multiplied by `lr_gamma`, `lr_steps` times, evenly over
    the steps.
    """

    inputs: Literal["images"]
    modes: Annotated[tuple[Literal["head", "all"], ...], Field(min_length=1, strict=False), ONCE, INDIFFERENT]
    split: Literal["test", "val"]
    resize: Pixels
    steps: Positive
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Amount
    lr_steps: Count
    lr_gamma: Share
    weight_decay: Decay
    grad_clip_norm: Amount


@dataclass(frozen=True)
class Segmentation:
    """The arguments of the training processes.

    Args:
        context: the data_dir, the encoders, the parameters, the seed and the scratch folder.
        classes: the background and the classes, by the values of a mask's px.
        train, test: the images that are trained on, and those that are scored.
        trainings: the encoder's name and the mode of each.
    """

    context: Context[SegmentationParams]
    classes: Sequence[str]
    train: Sequence[Path]
    test: Sequence[Path]
    trainings: Sequence[tuple[str, str]]

    def path(self, name: str, mode: str, suffix: str) -> Path:
        """The file of a training's checkpoint or counts in the scratch folder."""
        return self.context.scratch / f"{name}.{mode}.{suffix}"


class FullyConvolutional(nn.Module):
    """An encoder with a head that scores every px.

    Args:
        encoder: gives conv5.
        classes: number of classes with the background.
        mode: `head` freezes the encoder.
    """

    def __init__(self, encoder: Convolutional, classes: int, mode: str) -> None:
        from torchvision.models.segmentation.fcn import FCNHead  # takes as long to import as torch

        super().__init__()
        self.encoder = encoder.requires_grad_(mode == "all")
        conv5 = encoder.convolve(torch.zeros(1, 3, encoder.image_size, encoder.image_size))
        self.head = FCNHead(conv5.shape[1], classes)
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores (images, classes, *size) of uint8 images (images, 3, height, width) of any size."""
        scores = self.head(self.encoder.convolve(self.encoder.normalize(images)))
        return interpolate(scores.float(), size, mode="bilinear", align_corners=False)


class SegmentationTask:
    """Images with masks as a task for the trainer.

    Args:
        network: trained in place, on its device.
        segmentation: the images and the parameters.
    """

    def __init__(self, network: FullyConvolutional, segmentation: Segmentation) -> None:
        self.network, self.segmentation = network, segmentation
        self.batches_per_epoch = segmentation.context.params.steps
        self.device = next(network.parameters()).device
        side = segmentation.context.params.resize
        self.images, self.masks = ImageMemory(partial(read_image, resize=side, crop=side)), ImageMemory(self._mask)

    def prepare(self) -> None:
        """Freeze the encoder's batch norm; that of the head trains."""
        for module in self.network.encoder.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def batches(self, numbers: range) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 images (batch, 3, resize, resize) and masks, int64 (batch, resize, resize)."""
        return prefetch(self._batch, numbers, settings().threads)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy of the px that count, and the share of them that is right."""
        images, masks = batch
        scores, counted = self.network(images, masks.shape[1:]), masks != VOID
        loss = cross_entropy(scores, masks, ignore_index=VOID, reduction="sum") / counted.sum().clamp(min=1)
        return loss, ((scores.argmax(1) == masks) & counted).sum() / counted.sum().clamp(min=1)

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        context, files = self.segmentation.context, self.segmentation.train
        p = context.params
        indices = batch_indices("segmentation order", context.seed, number, batch_size=p.batch_size, count=len(files))
        flips = generator("segmentation flips", context.seed, number).random(p.batch_size) < 0.5
        images, masks = [], []
        for index, flip in zip(indices.tolist(), flips.tolist(), strict=True):
            image, mask = self.images.read(files[index]), self.masks.read(files[index]).long()
            images.append(image.flip(-1) if flip else image)
            masks.append(mask.flip(-1) if flip else mask)
        return torch.stack(images).to(self.device), torch.stack(masks).to(self.device)

    def _mask(self, file: Path) -> Tensor:
        side = self.segmentation.context.params.resize
        mask = torch.from_numpy(read_mask(mask_of(file), len(self.segmentation.classes)).astype(np.float32))
        return interpolate(mask[None, None], (side, side), mode="nearest-exact")[0, 0].byte()


def evaluate(context: Context[SegmentationParams]) -> Result:
    """The scores of the trained network and its controls in each mode, and of the background everywhere."""
    encoders = load_encoders(context.encoder, load_encoder)
    require_convolutional(encoders[""])
    names = [name for name, prefix in PREFIXES.items() if prefix in encoders]
    classes, splits = read_dataset(context.data_dir)
    root = splits["train"][0][0].parent.parent
    files = read_lists(root)
    everything = [file for part in files.values() for file in part]
    require_images(everything)
    require_images([mask_of(file) for file in everything])
    modes = context.params.modes
    # Mode all takes longest, so it comes first.
    trainings = [(name, mode) for mode in sorted(modes) for name in names]
    scored = context.params.split
    train = [*files["train"], *(files["val"] if scored == "test" else ())]
    segmentation = Segmentation(context, [BACKGROUND, *classes], train, files[scored], trainings)
    work = partial(segment, segmentation=segmentation)
    map_shards(work, range(len(trainings)), context.scratch / "finished", title="segmenting")

    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = [{"class": name} for name in segmentation.classes]
    for name in names:
        for mode in modes:
            counts = np.load(segmentation.path(name, mode, "npy"))
            ious = intersection_over_union(counts)
            metrics[f"{PREFIXES[name]}miou_{mode}"] = mean_iou(counts)
            for row, iou in zip(rows, ious, strict=True):
                row[f"{PREFIXES[name]}iou_{mode}"] = float(iou)
    background = np.zeros_like(counts)
    background[:, 0] = counts.sum(1)
    metrics["chance"] = mean_iou(background)
    metrics["steps"] = context.params.steps
    protocol = f"{PROTOCOL} of the split {scored} after {context.params.steps} steps"
    return Result(metrics, rows, protocol, beside_random(metrics, "miou", modes), [file.stem for file in files[scored]])


def read_lists(root: Path) -> dict[str, list[Path]]:
    """The images of train, val and test.

    Raises EarshotError as `read_list` does, and for an image that is listed twice or in two lists.
    """
    files: dict[str, list[Path]] = {}
    lists: dict[Path, str] = {}  # of each image, the list that names it
    for split in ("train", "val", "test"):
        files[split] = read_list(root, split)
        for image in files[split]:
            if image in lists:
                file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
                other = "there more than once" if lists[image] == split else f"in {lists[image]}.txt too"
                raise EarshotError(
                    f"{file}: {image.stem} is {other}, expected once; restore VOC's ImageSets/Segmentation"
                )
            lists[image] = split
    return files


def read_list(root: Path, split: str) -> list[Path]:
    """The images of ImageSets/Segmentation. Raises EarshotError for a missing or empty list, and for a path in it."""
    file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    names = [line for line in read_lines(file, "restore VOC's ImageSets/Segmentation and SegmentationClass") if line]
    wrong = [name for name in names if Path(name).name != name or name.startswith(".")]
    if wrong:
        raise EarshotError(f"{file}: names image {wrong[0]!r}, expected a plain name such as 000005")
    if not names:
        raise EarshotError(f"{file}: names no images; restore VOC's ImageSets/Segmentation")
    return [root / "JPEGImages" / f"{name}.jpg" for name in names]


def mask_of(image: Path) -> Path:
    """The mask of an image in JPEGImages."""
    return image.parent.parent / "SegmentationClass" / f"{image.stem}.png"


def read_mask(file: Path, classes: int) -> np.ndarray:
    """The class of each px, uint8 (height, width): 0 for the background, or VOID.

    Raises EarshotError for a file that is no image with a palette, and for a value that is no class.
    """
    mask = read_mask_file(file)
    unknown = mask[(mask >= classes) & (mask != VOID)]
    if unknown.size:
        raise EarshotError(f"{file}: has a px of class {unknown[0]}, expected at most {classes - 1}, or {VOID}")
    return mask


def segment(number: int, segmentation: Segmentation) -> dict[str, int]:
    """Train one network in one mode, or resume, and write the counts of its px in the test images."""
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    name, mode = segmentation.trainings[number]
    p, seed = segmentation.context.params, segmentation.context.seed
    torch.manual_seed(int(generator("segmentation head", seed).integers(2**63)))
    encoder = require_convolutional(load_encoder(segmentation.context.encoder, name))
    network = on_device(FullyConvolutional(encoder, len(segmentation.classes), mode))
    fixed = {"epochs": 1, "precision": "auto", "optimizer": "sgd", "schedule": "steps"}
    plan = Plan.of(p, seed, **fixed, lr_step_epochs=1 / (p.lr_steps + 1), checkpoint_selection="last")
    checkpoint = segmentation.path(name, mode, "checkpoint.safetensors")
    trainer = Trainer(SegmentationTask(network, segmentation), plan, checkpoint)
    progress = trainer.train(f"{name} {mode}".replace("_", " "), position=number + 1)
    counts = count_pixels(network, segmentation)
    with write_atomically(segmentation.path(name, mode, "npy")) as temporary_path, temporary_path.open("wb") as file:
        np.save(file, counts)
    checkpoint.unlink(missing_ok=True)
    return {"steps": progress.step}


@torch.inference_mode()
def count_pixels(network: FullyConvolutional, segmentation: Segmentation) -> np.ndarray:
    """The px of the test images by actual and predicted class, int64 (classes, classes), without VOID.

    Raises EarshotError for a mask that is not as large as its image.
    """
    network.eval()
    device, classes = next(network.parameters()).device, len(segmentation.classes)
    side = segmentation.context.params.resize

    def read(file: Path) -> tuple[Tensor, np.ndarray]:
        mask, size = read_mask(mask_of(file), classes), tuple(read_whole_image(file).shape[1:])
        if mask.shape != size:
            shapes = " x ".join(map(str, mask.shape)), " x ".join(map(str, size))
            raise EarshotError(f"{mask_of(file)}: has {shapes[0]} px, expected {shapes[1]} as its image; restore it")
        return read_image(file, side, side), mask

    counts = np.zeros((classes, classes), np.int64)
    for image, mask in prefetch(read, segmentation.test, settings().threads):
        predicted = network(image[None].to(device), mask.shape)[0].argmax(0).cpu().numpy()
        counts += confusion(mask, predicted, classes)
    return counts


def confusion(mask: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The px by actual and predicted class, int64 (classes, classes), without VOID."""
    counted = mask != VOID
    pairs = mask[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
    """The IoU of each class, (classes,); 0 for a class that neither a mask nor a prediction has."""
    both = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - both
    return both / np.maximum(union, 1)


def mean_iou(counts: np.ndarray) -> float:
    """The mean over the classes that the masks have, so that all networks share it."""
    return float(intersection_over_union(counts)[counts.sum(1) > 0].mean())


BENCHMARK = Benchmark(
    params=SegmentationParams,
    evaluate=evaluate,
    title="VOC2007, segmentation",
    scores="miou",
    leading="miou_all",
    metric="mean IoU",
    columns={"head": "head", "all": "all layers"},
    class_score="iou",
    on_console=True,
)
