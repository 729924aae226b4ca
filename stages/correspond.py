"""Correspond: a network learns whether a picture and a sound belong together, from the scenes alone.

Beside it the wrong-sound control learns the same of clips whose sounds were dealt to other groups for good: what it
reaches did not come from sound. Both begin with the same random weights, which are kept too.

reads   data/scenes
        correspond.weights    a safetensors file, where it names one
writes  models/correspond    encoder, wrong_sound and random as safetensors, encoder.json with their architecture: both
                             towers, what joins them, and how sound becomes a spectrogram
        metrics/correspond.json, metrics/correspond_history.csv

    python -m stages.correspond
    python -m stages.correspond --set correspond.network=l3 --set correspond.positives=overlapping
    python -m stages.correspond --set correspond.width=1 --set correspond.image_size=224 --set correspond.batch=256
    EARSHOT_PROCESSES=2 python -m stages.correspond

The multisensory network needs sequences: extract.sequence_rate. Several processes share every batch, on a GPU each or
on CPUs; those of several machines share the folder, at one path.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import (
    load_correspondence,
    load_correspondence_weights,
    save_architecture,
    save_weights,
)
from earshot.pipeline.stage import Run, Stage, View
from earshot.training.augmentation import Augmentation
from earshot.training.batch_norm import estimate_batch_norm
from earshot.training.correspondence import CorrespondenceTask, Pairs, Sampling
from earshot.training.encoder_training import (
    SHOWN,
    EncoderTraining,
    closing_line,
    train_all,
    train_together,
    write_results,
)


def inputs(params: View, choice: str | None) -> list[str]:
    """The scenes, and the weights to begin with, where they are a file and not the code itself."""
    weights = params.correspond.weights
    return ["data/scenes", *([] if weights.startswith("earshot/") else [weights])]


STAGE = Stage(
    name="correspond",
    params=("seed", "correspond"),
    reads=inputs,
    clips="data/scenes",
    writes=("models/correspond",),
    metrics=("correspond",),
    plots=("correspond_history",),
)


@dataclass(frozen=True)
class Corresponding(EncoderTraining):
    """Training on pairs of pictures and sounds."""

    weights: Path | None

    items = "pairs"

    @classmethod
    def of(cls, run: Run) -> "Corresponding":
        return cls(
            scenes=run.path("data/scenes"),
            seed=run.params.seed,
            params=run.params.correspond,
            models=run.out("models/correspond"),
            scratch=run.scratch,
            weights=next((run.path(name) for name in inputs(run.params, None)[1:]), None),
        )

    def names(self) -> list[str]:
        """The encoder, and the control where it is asked for."""
        return ["encoder", "wrong_sound"] if self.params.control and self.params.epochs else ["encoder"]

    def task(self, name: str, network: nn.Module) -> CorrespondenceTask:
        p = self.params
        return CorrespondenceTask(
            self.ready(network),
            self.scenes,
            Sampling(positives=p.positives, negatives=p.negatives, grid=p.grid, shift=p.shift),
            Augmentation(crop=p.crop, jitter=p.jitter, grey=p.grey, flip=p.flip),
            volume=p.volume,
            batch=p.batch,
            seed=self.seed,
            wrong_sound=name == "wrong_sound",
        )

    def load(self, folder: Path) -> nn.Module:
        return load_correspondence(folder)

    def facts(self, task: CorrespondenceTask) -> dict[str, Any]:
        return {"chance": 0.5, "clips_trained_on": task.training.items}


def main(run: Run) -> str:
    corresponding = Corresponding.of(run)
    results = train_all(run, corresponding, corresponding.names(), lambda: write_beginning(corresponding))
    run.place("models/correspond")
    metrics = write_results(run, results, "correspond", "correspond_history")
    trained_on = f"{metrics['epochs']} epochs on {metrics['clips_trained_on']:,} clips"
    return closing_line(metrics, ("chance",), trained_on, corresponding.items)


def join(run: Run) -> None:
    """What all processes but the first do, where there are several: they train beside it."""
    corresponding = Corresponding.of(run)
    train_together(corresponding, corresponding.names())


def write_beginning(corresponding: Corresponding) -> None:
    """The random network, with the scale of the sounds and the batch-norm statistics of training pairs."""
    p = corresponding.params
    torch.manual_seed(corresponding.seed)
    sizes = {name: getattr(p, name) for name in ("width", "stride", "image_size", "frames", "sound_samples")}
    network = build_correspondence(p.network, **sizes)
    pairs = shown(corresponding.task("encoder", network))
    network.fit_sound_scale(torch.cat([pair.sounds for pair in pairs]))
    estimate_batch_norm(network, [pair[:4] for pair in pairs])
    network.even_out(*pairs[0][:4])
    save_weights(corresponding.models, "random", network)
    save_architecture(corresponding.models, network)
    if corresponding.weights:
        load_correspondence_weights(network, corresponding.weights)
    corresponding.save_beginning(network)


def shown(task: CorrespondenceTask) -> list[Pairs]:
    """The first batches of training, of up to SHOWN pairs."""
    count = min(task.batches_per_epoch, -(-SHOWN // task.batch))
    return list(task.batches(range(count)))


if __name__ == "__main__":
    STAGE.run(main, join=join)
