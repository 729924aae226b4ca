"""PASCAL VOC2007 detection with Fast R-CNN on the weights of an encoder (Owens 2016, section 4.2 and Table 2b).

Convolutions and hidden layers start with the encoder's weights and train, all of them; batch norm keeps the statistics
and gains it came with. A step shows regions of a few pictures of train + val at one scale, mirrored half of the time:
a quarter on objects, difficult ones too, the others beside them (Girshick 2015, section 2.3). The score is the 11-point
mAP on test, where a detection is right that overlaps an object by half or more, and difficult objects do not count.
What of a detector's scores counts as a detection is as in Fast R-CNN's release. Ours: gradients are clipped, and box
offsets are divided by constants instead of their deviations on the training set.

Beside the scores of the networks stands chance, that of all proposals as detections of every class. Nothing is chosen
by a score: steps and rates are parameters, and all networks see the same regions in the same order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import Amount, Count, Decay, Pixels, Positive, Share
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.encoders import PREFIXES, load_encoders
from earshot.evaluation.image_files import read_whole_image, require_images
from earshot.evaluation.images.fast_rcnn import FastRcnn, detect, draw_rois, offsets_between, scaled, size_of
from earshot.evaluation.images.proposals import Proposals, from_files, searched
from earshot.evaluation.images.sampling import visible_positions
from earshot.evaluation.images.voc_annotations import Objects, annotation_of, read_objects
from earshot.evaluation.images.voc_lists import read_dataset
from earshot.evaluation.metrics import SAME_OBJECT, Found, Shown, detection_precision, overlap
from earshot.networks.device import on_device
from earshot.networks.files import load_convolutional
from earshot.networks.network import Convolutional
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "VOC2007 Fast R-CNN, 11-point mAP"
SHARD_IMAGES = 100  # tested by one task

Batch = tuple[list[Tensor], list[Tensor], Tensor, Tensor]


class Params(BenchmarkParams):
    """A step shows `regions` of `pictures`, a quarter of them on objects; `proposals_kept` of a picture are used.

    A picture is scaled until its shorter side or else its longer one has the px it may.
    """

    inputs: Literal["images"]
    proposals: Literal["selective-search", "files"]
    proposals_kept: Positive
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
class Images:
    """Annotated pictures: files, and the objects of each."""

    files: Sequence[Path]
    objects: Sequence[Objects]

    def pairs(self, shard: int | None = None) -> Iterator[tuple[Path, Objects]]:
        """Files with their objects, all of them or those of a shard."""
        part = slice(None) if shard is None else slice(shard * SHARD_IMAGES, (shard + 1) * SHARD_IMAGES)
        return zip(self.files[part], self.objects[part], strict=True)

    def with_objects(self) -> "Images":
        """Those that show an object."""
        pairs = [(file, objects) for file, objects in self.pairs() if len(objects.boxes)]
        return Images([file for file, _ in pairs], [objects for _, objects in pairs])


@dataclass(frozen=True)
class Detection:
    """What the processes that train and test are given.

    Args:
        context: the data_dir, the encoders, the parameters, the seed and the scratch folder.
        classes: their names.
        train, test: pictures of train + val that training will show, and of test.
        proposals: of all of them.
        names: of the encoders.
    """

    context: Context[Params]
    classes: Sequence[str]
    train: Images
    test: Images
    proposals: Proposals
    names: Sequence[str]

    def shards(self) -> range:
        """Of the test pictures."""
        return range(-(-len(self.test.files) // SHARD_IMAGES))

    def place(self, name: str, shard: int) -> Path:
        """Where the detections of an encoder in a shard of the test pictures are."""
        return self.context.scratch / "detections" / f"{name}.{shard}.safetensors"


class DetectionTask:
    """Regions of pictures as a task for the trainer.

    Args:
        detector: what is trained, in place; on its device.
        detection: the pictures, their proposals and the parameters.
    """

    def __init__(self, detector: FastRcnn, detection: Detection) -> None:
        self.network, self.detection = detector, detection
        self.batches_per_epoch = detection.context.params.steps
        self.device = next(detector.parameters()).device

    def prepare(self) -> None:
        """Freeze batch norm."""
        for norm in self.network.batch_norms():
            norm.eval()

    def batches(self, numbers: range) -> Iterator[Batch]:
        """Pictures, the regions of each, and of all regions the classes, 0 for background, and the offsets."""
        return prefetch(self._batch, numbers, settings().threads)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy and the offsets' smooth L1 (Girshick 2015, equation 1), and the share of regions told."""
        images, rois, classes, offsets = batch
        scores, found = self.network(images, rois)
        shown = classes.nonzero().squeeze(1)
        found = found.float()[shown, classes[shown] - 1]  # (regions on objects, 4)
        moved = smooth_l1_loss(found, offsets[shown], reduction="sum") / len(classes)
        return cross_entropy(scores.float(), classes) + moved, (scores.argmax(1) == classes).float().mean()

    def _batch(self, number: int) -> Batch:
        context, count = self.detection.context, len(self.detection.train.files)
        chances = generator("detection regions", context.seed, number)
        drawn = [self._draw(place, chances) for place in places_of(context, count, number)]
        images, rois, classes, offsets = zip(*drawn, strict=True)
        shown, cut = ([each.to(self.device) for each in part] for part in (images, rois))
        return shown, cut, torch.cat(classes).to(self.device), torch.cat(offsets).to(self.device)

    def _draw(self, place: int, chances: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A picture, mirrored or not, with regions drawn from its objects and proposals."""
        p = self.detection.context.params
        file, objects = self.detection.train.files[place], self.detection.train.objects[place]
        proposals = self.detection.proposals.of(file.stem, objects.width, objects.height)
        candidates = np.concatenate([objects.boxes, proposals])
        rows, classes, nearest = draw_rois(candidates, objects, max(p.rois_per_step // p.images_per_step, 1), chances)
        boxes = torch.from_numpy(np.stack([candidates[rows], objects.boxes[nearest]])).float()
        image = scaled(read_annotated(file, objects), p.shorter_side, p.longer_side)
        if chances.random() < 0.5:
            image = image.flip(-1)
            boxes = boxes[..., [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
            boxes += boxes.new_tensor([objects.width, 0] * 2)
        rois, targets = boxes
        return image, rois / size_of(objects), torch.from_numpy(classes), offsets_between(rois, targets)


def evaluate(context: Context[Params]) -> Result:
    """The scores of the trained network and its controls, each trained to detect, and of proposals of every class."""
    detection = prepared(context)
    names, tests = detection.names, range(len(detection.names) * len(detection.shards()))
    training, testing = (partial(work, detection=detection) for work in (train_detector, detect_shard))
    map_shards(training, range(len(names)), context.scratch / "finished" / "training", title="training detectors")
    map_shards(testing, tests, context.scratch / "finished" / "testing", title="detecting")

    proposed = [detection.proposals.of(file.stem, o.width, o.height) for file, o in detection.test.pairs()]
    found = {f"{PREFIXES[name]}map": read_detections(detection, name) for name in names}
    found["chance"] = [[Found(boxes, np.zeros(len(boxes))) for boxes in proposed]] * len(detection.classes)
    precisions, rows = score(found, detection)
    metrics = {metric: float(np.mean(values)) for metric, values in precisions.items()}
    told = ", ".join(f"{metric} {value:.3f}".replace("_", " ") for metric, value in metrics.items())
    metrics["proposals_recall"] = recall(proposed, detection.test.objects)
    metrics["steps"] = context.params.steps
    asked = [file.stem for file in detection.test.files]
    return Result(metrics, rows, f"{PROTOCOL} after {context.params.steps} steps", told, asked)


def score(
    found: dict[str, list[list[Found]]], detection: Detection
) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    """The average precision of each class by each detector, and as a row a class, with the number of its objects."""
    shown = [
        [annotated_of(each, number) for each in detection.test.objects] for number in range(len(detection.classes))
    ]
    precisions = {m: [detection_precision(*both) for both in zip(f, shown, strict=True)] for m, f in found.items()}
    rows = [
        {"class": name, "objects": sum(int((~each.difficult).sum()) for each in shown[number])}
        | {metric.replace("map", "ap"): values[number] for metric, values in precisions.items()}
        for number, name in enumerate(detection.classes)
    ]
    return precisions, rows


def prepared(context: Context[Params]) -> Detection:
    """The pictures with their objects, and the proposals of those that training will show and of all for test.

    Raises EarshotError for a data_dir that is not whole, and for pictures too small for the network.
    """
    encoders = load_encoders(context.encoder, load_convolutional)
    check_size(encoders[""], context.params.shorter_side)
    classes, splits = read_dataset(context.data_dir)
    files = {"trainval": splits["train"][0] + splits["val"][0], "test": splits["test"][0]}
    require_images([file for part in files.values() for file in part])
    parts = {part: read_images(listed, classes) for part, listed in files.items()}
    parts["trainval"] = parts["trainval"].with_objects()
    for part, images in parts.items():
        _check_objects(context.data_dir, part, images, classes)
    places = [places_of(context, len(parts["trainval"].files), step) for step in range(context.params.steps)]
    files["trainval"] = [parts["trainval"].files[place] for place in sorted({p for step in places for p in step})]
    kept, scratch = context.params.proposals_kept, context.scratch
    if context.params.proposals == "files":
        proposals = from_files(context.data_dir, files, kept, scratch)
    else:
        proposals = searched(files["trainval"] + files["test"], kept, scratch)
    names = [name for name, prefix in PREFIXES.items() if prefix in encoders]
    return Detection(context, classes, parts["trainval"], parts["test"], proposals, names)


def read_images(files: Sequence[Path], classes: Sequence[str]) -> Images:
    """Pictures with their annotations."""
    return Images(files, [read_objects(annotation_of(file), classes) for file in files])


def train_detector(number: int, detection: Detection) -> dict[str, int]:
    """Train one detector, from where it was interrupted; its checkpoint keeps it."""
    trained_detector(detection, detection.names[number], position=number + 1)
    return {"detectors": 1}


def trained_detector(detection: Detection, name: str, position: int = 0) -> FastRcnn:
    """The detector of an encoder after all its steps, those done before taken from its checkpoint; in eval mode."""
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    p, seed = detection.context.params, detection.context.seed
    encoder = load_convolutional(detection.context.encoder, name)
    detector = on_device(FastRcnn(encoder, len(detection.classes), seed))
    plan = Plan.of(p, seed, epochs=1, precision="float32", optimizer="sgd", schedule="steps", keep="last")
    checkpoint = detection.context.scratch / f"{name}.checkpoint.safetensors"
    Trainer(DetectionTask(detector, detection), plan, checkpoint).train(f"detection {name}", position=position)
    return detector.eval()


def detect_shard(number: int, detection: Detection) -> dict[str, int]:
    """Write what one detector finds in one shard of the test pictures."""
    shard, place = divmod(number, len(detection.names))
    detector = trained_detector(detection, detection.names[place])
    p, found = detection.context.params, {}
    for file, objects in detection.test.pairs(shard):
        proposals = torch.from_numpy(detection.proposals.of(file.stem, objects.width, objects.height))
        image = scaled(read_annotated(file, objects), p.shorter_side, p.longer_side)
        for name, values in detect(detector, image, proposals, objects).items():
            found[f"{file.stem}.{name}"] = values
    with write_atomically(detection.place(detection.names[place], shard)) as temporary_path:
        temporary_path.write_bytes(save(found))
    return {"images": len(found) // 3}


def read_detections(detection: Detection, name: str) -> list[list[Found]]:
    """What the detector of an encoder found, a list a class of an entry a test picture."""
    found: dict[str, np.ndarray] = {}
    for shard in detection.shards():
        found |= load_file(detection.place(name, shard))
    by_class = []
    for number in range(len(detection.classes)):
        rows = {file.stem: found[f"{file.stem}.classes"] == number for file in detection.test.files}
        by_class.append([Found(found[f"{n}.boxes"][row], found[f"{n}.scores"][row]) for n, row in rows.items()])
    return by_class


def annotated_of(objects: Objects, number: int) -> Shown:
    """The objects of one class."""
    rows = objects.classes == number
    return Shown(objects.boxes[rows], objects.difficult[rows])


def recall(proposed: Sequence[np.ndarray], shown: Sequence[Objects]) -> float:
    """The share of the objects, but for difficult ones, that some proposal overlaps by half or more."""
    reached = [
        overlap(objects.boxes[~objects.difficult], boxes).max(1, initial=0) >= SAME_OBJECT
        for boxes, objects in zip(proposed, shown, strict=True)
    ]
    return float(np.concatenate(reached).mean())


def places_of(context: Context[Params], count: int, step: int) -> list[int]:
    """Which of `count` pictures a step shows."""
    return visible_positions(
        "detection order", context.seed, step, batch_size=context.params.images_per_step, count=count
    ).tolist()


def read_annotated(file: Path, objects: Objects) -> Tensor:
    """uint8 (3, height, width); raises EarshotError where that is not the size of the annotation."""
    image = read_whole_image(file)
    if tuple(image.shape[1:]) != (objects.height, objects.width):
        found, wanted = f"{image.shape[2]} x {image.shape[1]} px", f"{objects.width} x {objects.height}"
        raise EarshotError(f"{file}: has {found}, but its annotation says {wanted}; restore the official files")
    return image


@torch.no_grad()
def check_size(network: Convolutional, side: int) -> None:
    """Raise EarshotError where nothing is left of a picture of that side after the network's convolutions."""
    try:
        network.convolve(network.normalize(torch.zeros(1, 3, side, side, dtype=torch.uint8)))
    except (RuntimeError, ValueError):
        found = f"evaluate.detection.shorter_side is {side} px"
        raise EarshotError(f"{found}, of which the convolutions leave nothing; wanted more, 128 say") from None


def _check_objects(data_dir: Path, part: str, images: Images, classes: Sequence[str]) -> None:
    there = {int(number) for each in images.objects for number in each.classes[~each.difficult]}
    missing = [name for number, name in enumerate(classes) if number not in there]
    if missing:
        raise EarshotError(
            f"{data_dir}: no annotation of {part} shows a {missing[0]}, wanted one or more; restore the tree"
        )


BENCHMARK = Benchmark(
    params=Params,
    evaluate=evaluate,
    title="VOC2007, detection",
    scores="map",
    leading="map",
    columns={"map": "mAP"},
    class_score="ap",
    on_console=True,
)
