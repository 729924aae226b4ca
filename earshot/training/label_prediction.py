"""The pretext task: a network predicts the label of a moment's sound from one frame (Owens 2016, section 4).

A label is a cluster, or a binary code whose bits are predicted independently (section 3.2).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.core.json_files import read_json
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.networks.crops import Changes, crop_frames
from earshot.networks.network import Network
from earshot.pipeline.settings import settings
from earshot.scenes.table import decoding_frames
from earshot.training import distributed as processes
from earshot.training.augmentation import Augmentation
from earshot.training.data import Frames, LabeledFrame, LabeledRowGroup, labeled_frames
from earshot.training.feed import feed

Images = tuple[Tensor, Tensor]


class Labels(Protocol):
    """A kind of labels, 0 to `values` - 1, and its loss on the `outputs` scores of a network."""

    outputs: int
    values: int
    chance: float  # accuracy of guessing

    def loss(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy, scalars, of scores (images, outputs) and int64 labels (images,)."""

    def majority(self, training: np.ndarray, held_out: np.ndarray) -> float:
        """Accuracy of the most frequent `training` label on the `held_out` labels; both int64."""


class Clusters:
    """A label is the number of a cluster."""

    def __init__(self, outputs: int) -> None:
        self.outputs = self.values = outputs
        self.chance = 1 / outputs

    def loss(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return functional.cross_entropy(scores, labels), (scores.argmax(1) == labels).float().mean()

    def majority(self, training: np.ndarray, held_out: np.ndarray) -> float:
        return float((held_out == np.bincount(training).argmax()).mean())


class BinaryCodes:
    """A label is a binary code: bit i is 1 if component i is high.

    The loss is the cross-entropy summed over the bits, as in Caffe, which trained Owens' network
    (src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp divides by the number of images alone).
    """

    chance = 0.5

    def __init__(self, outputs: int) -> None:
        self.outputs, self.values = outputs, 2**outputs

    def loss(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(self.outputs, device=labels.device)
        bits = labels[:, None] >> positions & 1  # (images, outputs)
        right = ((scores > 0) == bits.bool()).float().mean()
        costs = functional.binary_cross_entropy_with_logits(scores, bits.to(scores.dtype), reduction="none")
        return costs.sum(1).mean(), right

    def majority(self, training: np.ndarray, held_out: np.ndarray) -> float:
        ones = [(training >> bit & 1).mean() > 0.5 for bit in range(self.outputs)]
        return float(np.mean([((held_out >> bit & 1) == one).mean() for bit, one in enumerate(ones)]))


def kind_of_labels(folder: Path) -> Labels:
    """The kind of the labels in a folder, by its labels.json: clusters or binary codes.

    Raises EarshotError if that file is missing or damaged.
    """
    values = read_json(folder / "labels.json", "label")
    kinds: dict[str, Callable[[int], Labels]] = {"cluster": Clusters, "bits": BinaryCodes}
    kind = kinds.get(str(values.get("kind")))
    if kind is None or type(values.get("values")) is not int:
        raise EarshotError(f"{folder / 'labels.json'}: names no kind of labels; run the stage label again")
    return kind(values["values"])


@dataclass(frozen=True)
class LabeledScenes:
    """The tables of scenes and labels, and the column of labels to learn from.

    Args:
        scenes, labels: folders of the tables.
        column: `label`, or `wrong_sound_label` for the control.
        kind: of the labels.
    """

    scenes: Path
    labels: Path
    column: str
    kind: Labels

    def split(self, name: str) -> list[LabeledRowGroup]:
        """The row groups of a split's frames, with their labels."""
        return labeled_frames(self.scenes, self.labels, split=name, label=self.column, values=self.kind.values)


class LabelTask:
    """Frames of the training split and their labels as a task for the trainer.

    Raises:
        EarshotError: there are fewer than two training frames, or the processes cannot split batches equally.
    """

    def __init__(
        self, network: Network, table: LabeledScenes, augmentation: Augmentation, *, batch_size: int, seed: int
    ) -> None:
        self.network: Any = network
        self.encoder, self.augmentation, self.seed = network, augmentation, seed
        self.table, self.scenes, self.kind = table, table.scenes, table.kind
        self.training = Frames(table.split("train"), batch_size=batch_size, seed=seed)
        self.validation = self._held_out("val")
        if self.training.items < 2:
            actual = f"{self.training.items} training moments in column {table.column}"
            raise EarshotError(f"{table.labels}: {actual}, expected 2 or more; give more clips with sound")
        self.batch_size, self.batches_per_epoch = self.training.batch_size, self.training.batches_per_epoch
        self.part = processes.part(self.training.batch_size)
        self.validated = sum(len(np.unique(group.clips)) for group in self.validation.groups)
        self.device = next(network.parameters()).device

    def batches(self, numbers: range) -> Iterator[Images]:
        """Augmented uint8 images (batch, 3, size, size) and their labels, (batch,); this process's part of them."""
        return feed(self._training_batch, self._on_device, numbers)

    def loss(self, batch: Images) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy."""
        return self.measure(batch)

    def measure(self, batch: Images) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of the encoder's scores."""
        images, labels = batch
        return self.kind.loss(self.encoder(images).float(), labels)

    def validate(self) -> dict[str, float | None]:
        """Loss and accuracy on the middle squares of all labeled frames of the validation split."""
        loss, accuracy = self._measure(self.validation)
        return {"val_loss": loss, "val_accuracy": accuracy}

    def alarms(self, history: Sequence[dict[str, Any]]) -> dict[str, str]:
        """None."""
        return {}

    def test(self) -> dict[str, Any]:
        """Accuracy on the test split, as in `validate`; the majority's beside it, and the number of frames."""
        frames = self._held_out("test")
        _, accuracy = self._measure(frames)
        return {"test_accuracy": accuracy, "test_majority": self.majority(frames), "moments_tested": frames.items}

    def majority(self, frames: Frames) -> float | None:
        """Accuracy of the most frequent training label on these frames; None without frames."""
        labels = frames.labels()
        return self.kind.majority(self.training.labels(), labels) if len(labels) else None

    def _held_out(self, split: str) -> Frames:
        return Frames(self.table.split(split), batch_size=self.training.batch_size, seed=None)

    def _measure(self, frames: Frames) -> tuple[float | None, float | None]:
        """Mean loss and accuracy of held-out frames; None without frames."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        numbers = range(processes.rank(), frames.batches_per_epoch if frames.items else 0, processes.count())

        def prepare(number: int) -> Images:
            return self._on_device(self._images(frames[number], None))

        for batch in prefetch(prepare, numbers, settings().threads):
            sums += torch.stack(self.measure(batch)) * len(batch[1])
        processes.total(sums)
        loss, right = (sums / frames.items).tolist() if frames.items else (None, None)
        return loss, right

    def _training_batch(self, number: int) -> Images:
        moments = self.training[number]
        changes = self.augmentation.draw(len(moments), generator("augmentation", self.seed, number))[self.part]
        return self._images(moments[self.part], changes)

    def _images(self, moments: list[LabeledFrame], changes: Changes | None, views: int = 1) -> Images:
        """The images of the moments and their labels, `views` of each, one after another."""
        frames, labels = zip(*moments, strict=True)
        with decoding_frames(self.scenes):
            images = crop_frames(frames, self.encoder.image_size, changes, views)
        return images, torch.tensor(labels).repeat_interleave(views)

    def _on_device(self, batch: Images) -> Images:
        images, labels = batch
        return images.to(self.device), labels.to(self.device)
