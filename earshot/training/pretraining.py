"""The training of the stage pretrain: its network, its labels and its control."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earshot.networks.backbones import build_network
from earshot.networks.files import load_network, load_weights
from earshot.networks.initialization import equalize_gradients, initialize_kmeans
from earshot.networks.network import Network
from earshot.params.pretrain import Pretrain
from earshot.training.batch_norm import estimate_batch_norm
from earshot.training.data import LabeledRowGroup
from earshot.training.encoder_training import EncoderTraining
from earshot.training.label_prediction import LabeledScenes, LabelTask, kind_of_labels
from earshot.training.supervised_contrastive import SupervisedContrastiveTask

LABELS_OF = {"encoder": "label", "wrong_sound": "wrong_sound_label"}


class Pretraining(EncoderTraining[Pretrain]):
    """Training on frames and the labels of their sounds."""

    items, examples = "images", "moments"
    advice = "give more source videos, or set fewer clusters or label.distance_filter=false"

    def table(self, name: str) -> LabeledScenes:
        labels = self.root / "data/labels"
        return LabeledScenes(self.root / "data/scenes", labels, LABELS_OF[name], kind_of_labels(labels))

    def build(self) -> Network:
        p, classes = self.params, self.table("encoder").kind.outputs
        return build_network(p.backbone, classes=classes, width=p.width, image_size=p.image_size, dropout=p.dropout)

    def task(self, name: str, network: Network) -> LabelTask:
        p, inputs = self.params, (self.ready(network), self.table(name), self.augmentation())
        if p.objective == "supervised-contrastive":
            return SupervisedContrastiveTask(
                *inputs, temperature=p.temperature, batch_size=p.batch_size, seed=self.seed
            )
        return LabelTask(*inputs, batch_size=p.batch_size, seed=self.seed)

    def inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return batch[:1]

    def load(self, folder: Path) -> Network:
        return load_network(folder)

    def begin(self, network: Network, batches: Sequence[tuple[Tensor, ...]]) -> None:
        if self.weights:
            load_weights(network, self.weights)
        elif self.params.initialization == "kmeans":
            initialize_kmeans(network, torch.cat([images for (images,) in batches]), self.seed)
        if self.params.equalize_gradients:
            equalize_gradients(network, torch.cat([images for (images,) in batches]), self.seed)
            estimate_batch_norm(network, batches)

    def metadata(self, task: LabelTask) -> dict[str, Any]:
        counts = {"majority": task.majority(task.validation), "moments_trained_on": task.training.items}
        return {"chance": task.kind.chance} | counts

    def names(self) -> list[str]:
        encoder, *control = super().names()
        own, wrong = (self.table(name).split("train") for name in LABELS_OF)
        if control and sum(map(len, wrong)) < 2:
            message = f"{self.root / 'data/labels'}: skips the control, because there are no sounds of other groups"
            warnings.warn(message, stacklevel=2)
            return [encoder]
        # With label.control: wrong-sound the encoder is the control.
        return [encoder] if all(map(LabeledRowGroup.same, own, wrong)) else [encoder, *control]
