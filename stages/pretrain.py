"""Pretrain: a network learns to tell a moment's sound label from its frame alone.

Beside it, on frames of the same clips, the wrong-sound control learns labels of sounds dealt from other groups: what it
reaches did not come from sound. Both begin with the same weights: random ones, which are kept too, k-means ones, or
those of a file.

reads   data/scenes, data/labels
        pretrain.weights     a safetensors file, where it names one
writes  models/pretrain      encoder, wrong_sound and random as safetensors, encoder.json with their architecture
        metrics/pretrain.json, metrics/history.csv

    python -m stages.pretrain
    python -m stages.pretrain --set pretrain.epochs=0 --set pretrain.initialisation=kmeans
    python -m stages.pretrain --set pretrain.width=1 --set pretrain.image_size=227 --set pretrain.batch=256
    EARSHOT_PROCESSES=2 python -m stages.pretrain
    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 -m stages.pretrain

Several processes share every batch, on a GPU each or on CPUs; those of several machines share the folder, at one path.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earshot.networks.backbones import build_network
from earshot.networks.files import load_network, load_weights
from earshot.networks.initialisation import initialise_kmeans
from earshot.networks.network import Network
from earshot.params.pretrain import Params, Pretrain
from earshot.pipeline.stage import Run, Stage
from earshot.training.data import LabelledRowGroup
from earshot.training.encoder_training import EncoderTraining, train_beside, train_encoders
from earshot.training.label_prediction import LabelledScenes, LabelTask, kind_of_labels

LABELS_OF = {"encoder": "label", "wrong_sound": "wrong_sound_label"}

STAGE = Stage(
    name="pretrain",
    params=Params,
    reads=lambda params, _: ("data/scenes", "data/labels", params.pretrain.weights),
    clips="data/scenes",
    writes=("models/pretrain",),
    metrics=("pretrain",),
    plots=("history",),
)


class Pretraining(EncoderTraining[Pretrain]):
    """Training on frames and the labels of their sounds."""

    items, examples = "images", "moments"

    def table(self, name: str) -> LabelledScenes:
        labels = self.root / "data/labels"
        return LabelledScenes(self.root / "data/scenes", labels, LABELS_OF[name], kind_of_labels(labels))

    def build(self) -> Network:
        p, classes = self.params, self.table("encoder").kind.outputs
        return build_network(p.backbone, classes=classes, width=p.width, image_size=p.image_size, dropout=p.dropout)

    def task(self, name: str, network: Network) -> LabelTask:
        table, augmentation = self.table(name), self.augmentation()
        return LabelTask(self.ready(network), table, augmentation, batch=self.params.batch, seed=self.seed)

    def inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return batch[:1]

    def load(self, folder: Path) -> Network:
        return load_network(folder)

    def begin(self, network: Network, batches: Sequence[tuple[Tensor, ...]]) -> None:
        if self.weights:
            load_weights(network, self.weights)
        elif self.params.initialisation == "kmeans":
            initialise_kmeans(network, torch.cat([pictures for (pictures,) in batches]), self.seed)

    def facts(self, task: LabelTask) -> dict[str, Any]:
        counts = {"majority": task.majority(), "moments_trained_on": task.training.items}
        return {"chance": task.kind.chance} | counts

    def names(self) -> list[str]:
        encoder, *control = super().names()
        own, wrong = (self.table(name).split("train") for name in LABELS_OF)
        if control and sum(map(len, wrong)) < 2:
            told = f"{self.root / 'data/labels'}: no sounds of other groups, so no control is trained"
            warnings.warn(told, stacklevel=2)
            return [encoder]
        # With label.control: wrong-sound the encoder is the control.
        return [encoder] if all(map(LabelledRowGroup.same, own, wrong)) else [encoder, *control]


def main(run: Run[Params]) -> str:
    """Train the encoder and its control."""
    return train_encoders(run, Pretraining)


def join(run: Run[Params]) -> None:
    """What further processes do."""
    train_beside(run, Pretraining)


if __name__ == "__main__":
    STAGE.run(main, join=join)
