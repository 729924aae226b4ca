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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earshot.networks.backbones import build_network
from earshot.networks.files import load_encoder, load_weights, save_architecture, save_weights
from earshot.networks.initialisation import initialise_kmeans
from earshot.pipeline.stage import Run, Stage, View
from earshot.training.augmentation import Augmentation
from earshot.training.batch_norm import estimate_batch_norm
from earshot.training.encoder_training import (
    SHOWN,
    EncoderTraining,
    closing_line,
    train_all,
    train_together,
    write_results,
)
from earshot.training.label_prediction import LabelledScenes, Labels, LabelTask, kind_of_labels

LABELS_OF = {"encoder": "label", "wrong_sound": "wrong_sound_label"}


def inputs(params: View, choice: str | None) -> list[str]:
    """The tables, and the weights to begin with, where they are a file and not the code itself."""
    weights = params.pretrain.weights
    return ["data/scenes", "data/labels", *([] if weights.startswith("earshot/") else [weights])]


STAGE = Stage(
    name="pretrain",
    params=("seed", "pretrain"),
    reads=inputs,
    clips="data/scenes",
    writes=("models/pretrain",),
    metrics=("pretrain",),
    plots=("history",),
)


@dataclass(frozen=True)
class Pretraining(EncoderTraining):
    """Training on frames and the labels of their sounds."""

    labels: Path
    kind: Labels
    weights: Path | None

    @classmethod
    def of(cls, run: Run) -> "Pretraining":
        return cls(
            scenes=run.path("data/scenes"),
            seed=run.params.seed,
            params=run.params.pretrain,
            models=run.out("models/pretrain"),
            scratch=run.scratch,
            labels=run.path("data/labels"),
            kind=kind_of_labels(run.path("data/labels")),
            weights=next((run.path(name) for name in inputs(run.params, None)[2:]), None),
        )

    def table(self, name: str) -> LabelledScenes:
        return LabelledScenes(self.scenes, self.labels, LABELS_OF[name], self.kind)

    def task(self, name: str, network: nn.Module) -> LabelTask:
        p = self.params
        augmentation = Augmentation(crop=p.crop, jitter=p.jitter, grey=p.grey, flip=p.flip)
        return LabelTask(self.ready(network), self.table(name), augmentation, batch=p.batch, seed=self.seed)

    def load(self, folder: Path) -> nn.Module:
        return load_encoder(folder)

    def facts(self, task: LabelTask) -> dict[str, Any]:
        return {
            "chance": self.kind.chance,
            "majority": task.majority(),
            "moments_trained_on": task.training.items,
        }


def main(run: Run) -> str:
    pretraining = Pretraining.of(run)
    results = train_all(run, pretraining, trained_names(pretraining), lambda: write_beginning(pretraining))
    run.place("models/pretrain")
    metrics = write_results(run, results, "pretrain", "history")
    trained_on = f"{metrics['epochs']} epochs on {metrics['moments_trained_on']:,} moments"
    return closing_line(metrics, ("chance", "majority"), trained_on, pretraining.items)


def join(run: Run) -> None:
    """What all processes but the first do, where there are several: they train beside it."""
    pretraining = Pretraining.of(run)
    train_together(pretraining, trained_names(pretraining))


def trained_names(pretraining: Pretraining) -> list[str]:
    """The encoder, and the control where it is asked for and there is something else to learn."""
    names = ["encoder"]
    if not pretraining.params.control or not pretraining.params.epochs:
        return names
    own, wrong = (pretraining.table(name).split("train") for name in LABELS_OF)
    if sum(len(group.labels) for group in wrong) < 2:
        warnings.warn(f"{pretraining.labels}: no sounds of other groups, so no control is trained", stacklevel=2)
        return names
    same = all(
        np.array_equal(a.labels, b.labels) and np.array_equal(a.clips, b.clips) for a, b in zip(own, wrong, strict=True)
    )
    return names if same else [*names, "wrong_sound"]  # with label.control: wrong-sound the encoder is the control


def write_beginning(pretraining: Pretraining) -> None:
    """The random network, with the batch-norm statistics of training frames, and the one with which training begins."""
    p = pretraining.params
    torch.manual_seed(pretraining.seed)
    sizes = {"classes": pretraining.kind.outputs, "width": p.width, "image_size": p.image_size, "dropout": p.dropout}
    network = build_network(p.backbone, **sizes)
    task = pretraining.task("encoder", network)
    pictures = shown(task)
    estimate_batch_norm(network, [(batch,) for batch in pictures])
    save_weights(pretraining.models, "random", network)
    save_architecture(pretraining.models, network)
    if pretraining.weights:
        load_weights(network, pretraining.weights)
    elif p.initialisation == "kmeans":
        initialise_kmeans(network, torch.cat(pictures), pretraining.seed)
    pretraining.save_beginning(network)


def shown(task: LabelTask) -> list[Tensor]:
    """The first batches of training, up to SHOWN pictures."""
    count = min(task.batches_per_epoch, -(-SHOWN // task.training.batch))
    return [pictures for pictures, _ in task.batches(range(count))]


if __name__ == "__main__":
    STAGE.run(main, join=join)
