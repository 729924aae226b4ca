"""Pretrain: a network learns to tell a moment's sound label from its frame alone.

Beside it, on frames of the same clips, the wrong-sound control learns labels of sounds dealt from other groups: what it
reaches did not come from sound. Both start from the same random weights, which are kept too.

reads   data/scenes, data/labels
writes  models/pretrain      encoder, wrong_sound and random as safetensors, encoder.json with their architecture
        metrics/pretrain.json, metrics/history.csv

    python -m stages.pretrain
    python -m stages.pretrain --set pretrain.epochs=0
    python -m stages.pretrain --set pretrain.width=1 --set pretrain.image_size=227 --set pretrain.batch=256
"""

import json
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from earshot.networks.alexnet import AlexNet
from earshot.networks.device import chosen_device
from earshot.networks.files import load_encoder, save_architecture, save_weights
from earshot.pipeline.shards import write_atomically
from earshot.pipeline.stage import Run, Stage
from earshot.training.augmentation import Augmentation
from earshot.training.batch_norm import estimate_batch_norm
from earshot.training.pretext import LabelledScenes, LabelTask
from earshot.training.trainer import Plan, Trainer

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
BATCH_NORM_PICTURES = 1024  # training frames from which the random network's statistics are estimated

STAGE = Stage(
    name="pretrain",
    params=("seed", "clusters", "pretrain"),
    reads=("data/scenes", "data/labels"),
    writes=("models/pretrain",),
    metrics=("pretrain",),
    plots=("history",),
)


@dataclass(frozen=True)
class Pretraining:
    """What the processes that train are given: the tables, the parameters, and where their work grows."""

    scenes: Path
    labels: Path
    classes: int
    seed: int
    params: Any
    models: Path
    scratch: Path

    def table(self, name: str) -> LabelledScenes:
        return LabelledScenes(self.scenes, self.labels, LABELS_OF[name], self.classes)

    def task(self, name: str, network: nn.Module) -> LabelTask:
        torch.set_num_threads(self.params.threads)
        p = self.params
        augmentation = Augmentation(crop=p.crop, jitter=p.jitter, grey=p.grey, flip=p.flip)
        network = network.to(chosen_device(), memory_format=torch.channels_last)
        return LabelTask(network, self.table(name), augmentation, batch=p.batch, seed=self.seed)

    def plan(self) -> Plan:
        return Plan(seed=self.seed, **{name: getattr(self.params, name) for name in PLANNED})


def main(run: Run) -> str:
    pretraining = Pretraining(
        scenes=run.path("data/scenes"),
        labels=run.path("data/labels"),
        classes=run.params.clusters,
        seed=run.params.seed,
        params=run.params.pretrain,
        models=run.out("models/pretrain"),
        scratch=run.scratch,
    )
    names = trained_names(pretraining)
    write_random(pretraining)
    run.map_shards(partial(train, pretraining=pretraining, names=names), range(len(names)), title="training")
    results = {name: json.loads(_result(pretraining, name).read_text()) for name in names}

    run.place("models/pretrain")
    run.write_plot("history", history(results))
    metrics = results["encoder"]["metrics"]
    if "wrong_sound" in results:
        metrics["wrong_sound_val_accuracy"] = results["wrong_sound"]["metrics"]["val_accuracy"]
    run.write_metrics("pretrain", metrics)
    return closing_line(metrics)


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


def write_random(pretraining: Pretraining) -> None:
    """The network before training: weights drawn by the seed, batch-norm statistics of augmented training frames."""
    torch.manual_seed(pretraining.seed)
    p = pretraining.params
    network = AlexNet(classes=pretraining.classes, width=p.width, image_size=p.image_size, dropout=p.dropout)
    task = pretraining.task("encoder", network)
    count = min(task.batches_per_epoch, -(-BATCH_NORM_PICTURES // p.batch))
    estimate_batch_norm(task.network, (pictures for pictures, _ in task.batches(range(count))))
    save_weights(pretraining.models, "random", task.network)
    save_architecture(pretraining.models, task.network)


def train(number: int, pretraining: Pretraining, names: list[str]) -> dict[str, int]:
    """Train one of the networks from the random one, or from where it was interrupted, and write it."""
    name = names[number]
    task = pretraining.task(name, load_encoder(pretraining.models, "random"))
    trainer = Trainer(task, pretraining.plan(), pretraining.scratch / f"{name}.checkpoint.safetensors")
    progress = trainer.train(title=name.replace("_", " "), position=number + 1)
    kept = trainer.epoch_kept()
    final = progress.history[kept - 1] if kept else {"epoch": 0, **trainer.validate()}
    save_weights(pretraining.models, name, task.network)
    metrics = {
        "val_accuracy": final["val_accuracy"],
        "chance": 1 / pretraining.classes,
        "majority": task.majority(),
        "train_accuracy": final.get("train_accuracy"),
        "epochs": pretraining.params.epochs,
        "epoch_kept": kept,
        "moments_trained_on": task.training.moments,
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
    STAGE.run(main)
