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

import json
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earshot.networks.backbones import build_network
from earshot.networks.device import chosen_device
from earshot.networks.files import load_encoder, load_weights, save_architecture, save_weights
from earshot.networks.initialisation import initialise_kmeans
from earshot.pipeline import torchrun
from earshot.pipeline.shards import write_atomically
from earshot.pipeline.stage import Run, Stage, View
from earshot.training import processes
from earshot.training.augmentation import Augmentation
from earshot.training.batch_norm import estimate_batch_norm
from earshot.training.pretext import Clusters, Codes, LabelledScenes, Labels, LabelTask
from earshot.training.trainer import Plan, Trainer

BEGINNING = "beginning"  # folder in the scratch of the weights with which training begins
LABELS_OF = {"encoder": "label", "wrong_sound": "wrong_sound_label"}
PLANNED = (
    "epochs",
    "learning_rate",
    "weight_decay",
    "clip_norm",
    "precision",
    "optimiser",
    "schedule",
    "drops",
    "drop",
    "keep",
)
# Augmented training frames from which batch-norm statistics of the random network, and k-means weights, are made.
SHOWN = 1024


def inputs(params: View, choice: str | None) -> list[str]:
    """The tables, and the weights to begin with, where they are a file and not the code itself."""
    weights = params.pretrain.weights
    return ["data/scenes", "data/labels", *([] if weights.startswith("earshot/") else [weights])]


STAGE = Stage(
    name="pretrain",
    params=("seed", "clusters", "label.model", "label.components", "pretrain"),
    reads=inputs,
    writes=("models/pretrain",),
    metrics=("pretrain",),
    plots=("history",),
)


@dataclass(frozen=True)
class Pretraining:
    """What the processes that train are given: the tables, the parameters, and where their work grows."""

    scenes: Path
    labels: Path
    kind: Labels
    seed: int
    params: Any
    weights: Path | None
    models: Path
    scratch: Path

    @classmethod
    def of(cls, run: Run) -> "Pretraining":
        return cls(
            scenes=run.path("data/scenes"),
            labels=run.path("data/labels"),
            kind=kind_of_labels(run.params),
            seed=run.params.seed,
            params=run.params.pretrain,
            weights=next((run.path(name) for name in inputs(run.params, None)[2:]), None),
            models=run.out("models/pretrain"),
            scratch=run.scratch,
        )

    def table(self, name: str) -> LabelledScenes:
        return LabelledScenes(self.scenes, self.labels, LABELS_OF[name], self.kind)

    def task(self, name: str, network: nn.Module) -> LabelTask:
        torch.set_num_threads(self.params.threads)
        p = self.params
        augmentation = Augmentation(crop=p.crop, jitter=p.jitter, grey=p.grey, flip=p.flip)
        network = network.to(chosen_device(), memory_format=torch.channels_last)
        return LabelTask(network, self.table(name), augmentation, batch=p.batch, seed=self.seed)

    def plan(self) -> Plan:
        return Plan(seed=self.seed, **{name: getattr(self.params, name) for name in PLANNED})


def main(run: Run) -> str:
    pretraining = Pretraining.of(run)
    names = trained_names(pretraining)
    write_beginning(pretraining)
    if torchrun.is_started():
        train_together(pretraining, names)
    else:
        run.map_shards(partial(train, pretraining=pretraining, names=names), range(len(names)), title="training")
    results = {name: json.loads(_result(pretraining, name).read_text()) for name in names}

    run.place("models/pretrain")
    run.write_plot("history", history(results))
    metrics = results["encoder"]["metrics"]
    if "wrong_sound" in results:
        metrics["wrong_sound_val_accuracy"] = results["wrong_sound"]["metrics"]["val_accuracy"]
    run.write_metrics("pretrain", metrics)
    return closing_line(metrics)


def join(run: Run) -> None:
    """What all processes but the first do, where there are several: they train beside it."""
    pretraining = Pretraining.of(run)
    train_together(pretraining, trained_names(pretraining))


def train_together(pretraining: Pretraining, names: list[str]) -> None:
    """Train one network after the other, each by all processes."""
    with processes.together():
        for number in range(len(names)):
            train(number, pretraining, names)


def kind_of_labels(params: View) -> Labels:
    """What the label model's labels say."""
    return Codes(params.label.components) if params.label.model == "binary" else Clusters(params.clusters)


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
    estimate_batch_norm(network, pictures)
    save_weights(pretraining.models, "random", network)
    save_architecture(pretraining.models, network)
    if pretraining.weights:
        load_weights(network, pretraining.weights)
    elif p.initialisation == "kmeans":
        initialise_kmeans(network, torch.cat(pictures), pretraining.seed)
    save_weights(pretraining.scratch / BEGINNING, "encoder", network)
    save_architecture(pretraining.scratch / BEGINNING, network)


def shown(task: LabelTask) -> list[Tensor]:
    """The first batches of training, up to SHOWN pictures."""
    count = min(task.batches_per_epoch, -(-SHOWN // task.training.batch))
    return [pictures for pictures, _ in task.batches(range(count))]


def train(number: int, pretraining: Pretraining, names: list[str]) -> dict[str, int]:
    """Train one of the networks from the beginning, or from where it was interrupted, and write it."""
    name = names[number]
    task = pretraining.task(name, load_encoder(pretraining.scratch / BEGINNING))
    trainer = Trainer(task, pretraining.plan(), pretraining.scratch / f"{name}.checkpoint.safetensors")
    progress = trainer.train(title=name.replace("_", " "), position=number + 1)
    kept = trainer.epoch_kept()
    final = progress.history[kept - 1] if kept else {"epoch": 0, **trainer.validate()}
    if processes.rank():
        return {}
    save_weights(pretraining.models, name, task.network)
    metrics = {
        "val_accuracy": final["val_accuracy"],
        "chance": pretraining.kind.chance,
        "majority": task.majority(),
        "train_accuracy": final.get("train_accuracy"),
        "epochs": pretraining.params.epochs,
        "epoch_kept": kept,
        "moments_trained_on": task.training.items,
        "images_per_second": progress.step * task.training.batch / progress.seconds if progress.step else None,
    }
    with write_atomically(_result(pretraining, name)) as growing:
        growing.write_text(json.dumps({"metrics": metrics, "history": progress.history or [final]}))
    return {"steps": progress.step}


def history(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row an epoch: the encoder's, with the control's loss and accuracy beside them."""
    rows = results["encoder"]["history"]
    for row, control in zip(rows, results.get("wrong_sound", {}).get("history", []), strict=False):
        row |= {f"wrong_sound_{key}": control[key] for key in ("train_loss", "train_accuracy", "val_accuracy")}
    return rows


def closing_line(metrics: dict[str, Any]) -> str:
    """Accuracy beside what it must be compared with."""
    compared = {"chance": metrics["chance"], "majority": metrics["majority"]}
    if "wrong_sound_val_accuracy" in metrics:
        compared["wrong sound"] = metrics["wrong_sound_val_accuracy"]
    beside = ", ".join(f"{name} {_share(value)}" for name, value in compared.items())
    trained = f"{metrics['epochs']} epochs on {metrics['moments_trained_on']:,} moments"
    speed = f", {metrics['images_per_second']:.0f} images a second" if metrics["images_per_second"] else ""
    return f"validation accuracy {_share(metrics['val_accuracy'])} ({beside}) after {trained}{speed}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _result(pretraining: Pretraining, name: str) -> Path:
    return pretraining.scratch / f"{name}.result.json"


if __name__ == "__main__":
    STAGE.run(main, join=join)
