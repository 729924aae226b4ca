"""PASCAL VOC2007 detection with Fast R-CNN on the weights of an encoder (Owens 2016, section 4.2 and Table 2b).

Convolutions and hidden layers start with the encoder's weights, and all of them train; batch norm keeps its statistics
and gains. A step uses regions of a few images of train + val, mirrored half of the time: a quarter on objects,
including difficult ones, the others near objects (Girshick 2015, section 2.3). A training image is scaled to one of
`train_scales`, drawn anew, and a test image to one size (Owens follows Krähenbühl 2016, who trains at five scales).
Regions become detections as in rbgirshick/fast-rcnn (lib/fast_rcnn/test.py): the 100 best of a class in an image, at
most 40 an image over all images, then suppression; there is no least score.

The score is the mAP on test: a detection is correct if it overlaps an object by half or more, and difficult objects do
not count. `map` has VOC2007's 11 points, as in the paper. One right detection on top makes it jump by .091, so
`map_area` stands beside it, the area under the same curve (rbgirshick/py-faster-rcnn, lib/datasets/voc_eval.py).

Our changes: gradients are clipped, biases have the rate of the weights, and box offsets are divided by constants
instead of their deviations on the training set. The control `proposals_` takes all proposals as detections of every
class. No score selects anything: steps and rates are parameters, and all networks train on the same regions in the
same order.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import Amount, Count, Decay, Pixels, Positive, Share
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.evaluation.benchmark import NETWORK_CONTROLS, Benchmark, Context, Result
from earshot.evaluation.encoders import PREFIXES, load_encoders
from earshot.evaluation.image_files import ImageMemory, read_whole_image, require_images
from earshot.evaluation.images.fast_rcnn import (
    FastRcnn,
    detect,
    draw_rois,
    offsets_between,
    scaled,
    select,
    size_of,
)
from earshot.evaluation.images.proposals import Proposals, from_files, search_proposals
from earshot.evaluation.images.sampling import batch_indices
from earshot.evaluation.images.voc_annotations import Objects, annotation_of, read_objects
from earshot.evaluation.images.voc_lists import read_dataset
from earshot.evaluation.metrics import SAME_OBJECT, Detections, GroundTruth, Rule, detection_precision, overlap
from earshot.networks.device import on_device
from earshot.networks.files import load_convolutional
from earshot.networks.network import Convolutional
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "VOC2007 Fast R-CNN, 11-point mAP and area"
RULES: dict[str, Rule] = {"map": "11-point", "map_area": "area"}
PROPOSALS = "proposals_"
SHARD_IMAGES = 100  # test images of one task

Batch = tuple[list[Tensor], list[Tensor], Tensor, Tensor]


class DetectionParams(BenchmarkParams):
    """A step uses `rois_per_step` regions of `images_per_step` images; an image has `proposals_kept` proposals.

    A test image is scaled until its shorter side has `shorter_side` px, or its longer side `longer_side` px; a training
    image until its shorter side has one of `train_scales`, or its longer side `train_longer_side`.
    """

    inputs: Literal["images"]
    proposals: Literal["selective-search", "files"]
    proposals_kept: Positive
    train_scales: Annotated[tuple[Pixels, ...], Field(min_length=1, strict=False)]
    train_longer_side: Pixels
    shorter_side: Pixels
    longer_side: Pixels
    steps: Positive
    images_per_step: Positive
    rois_per_step: Positive
    learning_rate: Amount
    lr_steps: Count
    lr_gamma: Share
    weight_decay: Decay
    grad_clip_norm: Amount


@dataclass(frozen=True)
class DetectionImages:
    """Annotated images: files, and the objects of each."""

    files: Sequence[Path]
    objects: Sequence[Objects]

    def pairs(self, shard: int | None = None) -> Iterator[tuple[Path, Objects]]:
        """Files with their objects, all or those of a shard."""
        part = slice(None) if shard is None else slice(shard * SHARD_IMAGES, (shard + 1) * SHARD_IMAGES)
        return zip(self.files[part], self.objects[part], strict=True)

    def with_objects(self) -> "DetectionImages":
        """The images with objects."""
        pairs = [(file, objects) for file, objects in self.pairs() if len(objects.boxes)]
        return DetectionImages([file for file, _ in pairs], [objects for _, objects in pairs])


@dataclass(frozen=True)
class Detection:
    """The arguments of the training and test processes.

    Args:
        context: the data_dir, the encoders, the parameters, the seed and the scratch folder.
        classes: their names.
        train, test: images of train + val with objects, and of test.
        proposals: of all images that are used.
        names: of the encoders.
    """

    context: Context[DetectionParams]
    classes: Sequence[str]
    train: DetectionImages
    test: DetectionImages
    proposals: Proposals
    names: Sequence[str]

    def shards(self) -> range:
        """The shard numbers of the test images."""
        return range(-(-len(self.test.files) // SHARD_IMAGES))

    def path(self, name: str, shard: int) -> Path:
        """The file with the candidates of an encoder in a shard of the test images."""
        return self.context.scratch / "detections" / f"{name}.{shard}.safetensors"


class DetectionTask:
    """Regions of images as a task for the trainer.

    Args:
        detector: trained in place, on its device.
        detection: the images, their proposals and the parameters.
    """

    def __init__(self, detector: FastRcnn, detection: Detection) -> None:
        self.network, self.detection = detector, detection
        self.batches_per_epoch = detection.context.params.steps
        self.device = next(detector.parameters()).device
        self.images = ImageMemory()

    def prepare(self) -> None:
        """Freeze batch norm."""
        for norm in self.network.batch_norms():
            norm.eval()

    def batches(self, numbers: range) -> Iterator[Batch]:
        """Images, the regions of each, and the classes (0 for background) and offsets of all regions."""
        return prefetch(self._batch, numbers, settings().threads)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy and the offsets' smooth L1 (Girshick 2015, equation 1), and the accuracy on regions."""
        images, rois, classes, offsets = batch
        scores, predicted = self.network(images, rois)
        foreground = classes.nonzero().squeeze(1)
        predicted = predicted.float()[foreground, classes[foreground] - 1]  # (regions on objects, 4)
        box_loss = smooth_l1_loss(predicted, offsets[foreground], reduction="sum") / len(classes)
        return cross_entropy(scores.float(), classes) + box_loss, (scores.argmax(1) == classes).float().mean()

    def _batch(self, number: int) -> Batch:
        context, count = self.detection.context, len(self.detection.train.files)
        chances = generator("detection regions", context.seed, number)
        drawn = [self._draw(index, chances) for index in image_indices(context, count, number)]
        images, rois, classes, offsets = zip(*drawn, strict=True)
        images_on_device, rois_on_device = ([each.to(self.device) for each in part] for part in (images, rois))
        return images_on_device, rois_on_device, torch.cat(classes).to(self.device), torch.cat(offsets).to(self.device)

    def _draw(self, index: int, chances: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """An image, mirrored or not, with regions drawn from its objects and proposals."""
        p = self.detection.context.params
        file, objects = self.detection.train.files[index], self.detection.train.objects[index]
        proposals = self.detection.proposals.of(file.stem, objects.width, objects.height)
        candidates = np.concatenate([objects.boxes, proposals])
        rows, classes, nearest = draw_rois(candidates, objects, max(p.rois_per_step // p.images_per_step, 1), chances)
        boxes = torch.from_numpy(np.stack([candidates[rows], objects.boxes[nearest]])).float()
        scale = p.train_scales[chances.integers(len(p.train_scales))]
        image = scaled(read_annotated(file, objects, self.images.read), scale, p.train_longer_side)
        if chances.random() < 0.5:
            image = image.flip(-1)
            boxes = boxes[..., [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
            boxes += boxes.new_tensor([objects.width, 0] * 2)
        rois, targets = boxes
        return image, rois / size_of(objects), torch.from_numpy(classes), offsets_between(rois, targets)


def evaluate(context: Context[DetectionParams]) -> Result:
    """The scores of detectors on the trained network and its controls, and of all proposals as detections."""
    detection = prepare(context)
    names, tests = detection.names, range(len(detection.names) * len(detection.shards()))
    training, testing = (partial(work, detection=detection) for work in (train_detector, detect_shard))
    map_shards(training, range(len(names)), context.scratch / "finished" / "training", title="training detectors")
    map_shards(testing, tests, context.scratch / "finished" / "testing", title="detecting")

    proposed = [detection.proposals.of(file.stem, o.width, o.height) for file, o in detection.test.pairs()]
    detections = {PREFIXES[name]: read_detections(detection, name) for name in names}
    alike = [Detections(boxes, np.zeros(len(boxes))) for boxes in proposed]
    detections[PROPOSALS] = [alike] * len(detection.classes)
    precisions, rows = score(detections, detection)
    metrics = {metric: float(np.mean(values)) for metric, values in precisions.items()}
    summary = ", ".join(f"{metric} {value:.3f}".replace("_", " ") for metric, value in metrics.items())
    metrics["proposals_recall"] = recall(proposed, detection.test.objects)
    metrics["steps"] = context.params.steps
    items = [file.stem for file in detection.test.files]
    return Result(metrics, rows, f"{PROTOCOL} after {context.params.steps} steps", summary, items)


def score(
    detections: dict[str, list[list[Detections]]], detection: Detection
) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    """The average precisions of each class by metric, and a row per class with the number of its objects.

    `detections`: by the prefix of the metrics, then by class, an entry per test image.
    """
    truths = [
        [objects_of_class(each, number) for each in detection.test.objects] for number in range(len(detection.classes))
    ]
    precisions = {
        f"{prefix}{metric}": [detection_precision(*both, rule) for both in zip(by_class, truths, strict=True)]
        for prefix, by_class in detections.items()
        for metric, rule in RULES.items()
    }
    rows = [
        {"class": name, "objects": sum(int((~each.difficult).sum()) for each in truths[number])}
        | {metric.replace("map", "ap"): values[number] for metric, values in precisions.items()}
        for number, name in enumerate(detection.classes)
    ]
    return precisions, rows


def prepare(context: Context[DetectionParams]) -> Detection:
    """The images with their objects, and the proposals of the images that training will use and of all test images.

    Raises EarshotError for an incomplete data_dir, and for images too small for the network.
    """
    encoders = load_encoders(context.encoder, load_convolutional)
    check_size(encoders[""], min(context.params.shorter_side, *context.params.train_scales))
    classes, splits = read_dataset(context.data_dir)
    files = {"trainval": splits["train"][0] + splits["val"][0], "test": splits["test"][0]}
    require_images([file for part in files.values() for file in part])
    parts = {part: read_images(listed, classes) for part, listed in files.items()}
    parts["trainval"] = parts["trainval"].with_objects()
    for part, images in parts.items():
        _check_objects(context.data_dir, part, images, classes)
    count = len(parts["trainval"].files)
    used = {index for step in range(context.params.steps) for index in image_indices(context, count, step)}
    files["trainval"] = [parts["trainval"].files[index] for index in sorted(used)]
    kept, scratch = context.params.proposals_kept, context.scratch
    if context.params.proposals == "files":
        proposals = from_files(context.data_dir, files, kept, scratch)
    else:
        proposals = search_proposals(files["trainval"] + files["test"], kept, scratch)
    names = [name for name, prefix in PREFIXES.items() if prefix in encoders]
    return Detection(context, classes, parts["trainval"], parts["test"], proposals, names)


def read_images(files: Sequence[Path], classes: Sequence[str]) -> DetectionImages:
    """Images with their annotations."""
    return DetectionImages(files, [read_objects(annotation_of(file), classes) for file in files])


def train_detector(number: int, detection: Detection) -> dict[str, int]:
    """Train one detector, or resume its training; the checkpoint holds the result."""
    trained_detector(detection, detection.names[number], position=number + 1)
    return {"detectors": 1}


def trained_detector(detection: Detection, name: str, position: int = 0) -> FastRcnn:
    """The trained detector of an encoder, in eval mode; training resumes from the checkpoint."""
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    p, seed = detection.context.params, detection.context.seed
    encoder = load_convolutional(detection.context.encoder, name)
    detector = on_device(FastRcnn(encoder, len(detection.classes), seed))
    fixed = {"epochs": 1, "precision": "float32", "optimizer": "sgd", "schedule": "steps"}
    plan = Plan.of(p, seed, **fixed, lr_step_epochs=1 / (p.lr_steps + 1), checkpoint_selection="last")
    checkpoint = detection.context.scratch / f"{name}.checkpoint.safetensors"
    Trainer(DetectionTask(detector, detection), plan, checkpoint).train(f"detection {name}", position=position)
    return detector.eval()


def detect_shard(number: int, detection: Detection) -> dict[str, int]:
    """Write the candidates of one detector in one shard of the test images."""
    shard, index = divmod(number, len(detection.names))
    detector = trained_detector(detection, detection.names[index])
    p, tensors = detection.context.params, {}
    for file, objects in detection.test.pairs(shard):
        proposals = torch.from_numpy(detection.proposals.of(file.stem, objects.width, objects.height))
        image = scaled(read_annotated(file, objects), p.shorter_side, p.longer_side)
        for name, values in detect(detector, image, proposals, objects).items():
            tensors[f"{file.stem}.{name}"] = values
    with write_atomically(detection.path(detection.names[index], shard)) as temporary_path:
        temporary_path.write_bytes(save(tensors))
    return {"images": len(tensors) // 2}


def read_detections(detection: Detection, name: str) -> list[list[Detections]]:
    """The detections of an encoder's detector: by class, an entry per test image."""
    tensors: dict[str, np.ndarray] = {}
    for shard in detection.shards():
        tensors |= load_file(detection.path(name, shard))
    names = [file.stem for file in detection.test.files]
    return [
        select([Detections(tensors[f"{n}.boxes"][number], tensors[f"{n}.scores"][number]) for n in names])
        for number in range(len(detection.classes))
    ]


def objects_of_class(objects: Objects, number: int) -> GroundTruth:
    """The objects of one class."""
    rows = objects.classes == number
    return GroundTruth(objects.boxes[rows], objects.difficult[rows])


def recall(proposed: Sequence[np.ndarray], annotated: Sequence[Objects]) -> float:
    """The share of the objects, without difficult ones, that some proposal overlaps by half or more."""
    reached = [
        overlap(objects.boxes[~objects.difficult], boxes).max(1, initial=0) >= SAME_OBJECT
        for boxes, objects in zip(proposed, annotated, strict=True)
    ]
    return float(np.concatenate(reached).mean())


def image_indices(context: Context[DetectionParams], count: int, step: int) -> list[int]:
    """The indices of a step's images among `count` images."""
    return batch_indices(
        "detection order", context.seed, step, batch_size=context.params.images_per_step, count=count
    ).tolist()


def read_annotated(file: Path, objects: Objects, read: Callable[[Path], Tensor] = read_whole_image) -> Tensor:
    """uint8 (3, height, width); raises EarshotError if the size differs from the annotation's."""
    image = read(file)
    if tuple(image.shape[1:]) != (objects.height, objects.width):
        actual, expected = f"{image.shape[2]} x {image.shape[1]} px", f"{objects.width} x {objects.height}"
        raise EarshotError(f"{file}: has {actual}, but its annotation has {expected}; restore the official files")
    return image


@torch.no_grad()
def check_size(network: Convolutional, side: int) -> None:
    """Raise EarshotError if an image of that side is too small for the network's convolutions."""
    try:
        network.convolve(network.normalize(torch.zeros(1, 3, side, side, dtype=torch.uint8)))
    except (RuntimeError, ValueError):
        actual = f"evaluate.detection: the smallest of shorter_side and train_scales is {side} px"
        raise EarshotError(f"{actual}, too small for the network's convolutions; set it to 128, for example") from None


def _check_objects(data_dir: Path, part: str, images: DetectionImages, classes: Sequence[str]) -> None:
    present = {int(number) for each in images.objects for number in each.classes[~each.difficult]}
    missing = [name for number, name in enumerate(classes) if number not in present]
    if missing:
        raise EarshotError(
            f"{data_dir}: no annotation of {part} shows a {missing[0]}, expected one or more; restore the dataset"
        )


BENCHMARK = Benchmark(
    params=DetectionParams,
    evaluate=evaluate,
    title="VOC2007, detection",
    scores="map",
    leading="map",
    columns={"map": "mAP", "map_area": "mAP, area"},
    controls=NETWORK_CONTROLS | {"all proposals": PROPOSALS},
    class_score="ap",
    on_console=True,
)
