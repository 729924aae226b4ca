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

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import load_correspondence, load_correspondence_weights
from earshot.params.correspond import BaseParams, CorrespondBase, Params
from earshot.pipeline.stage import Run, Stage
from earshot.scenes.clips import Sampling
from earshot.training.correspondence import CorrespondenceTask, Pairs
from earshot.training.encoder_training import EncoderTraining, train_beside, train_encoders

STAGE = Stage(
    name="correspond",
    params=Params,
    reads=lambda params, _: ("data/scenes", params.correspond.weights),
    clips="data/scenes",
    writes=("models/correspond",),
    metrics=("correspond",),
    plots=("correspond_history",),
)


class Corresponding(EncoderTraining[CorrespondBase]):
    """Training on pairs of pictures and sounds."""

    items, examples = "pairs", "clips"

    def build(self) -> Correspondence:
        return build_correspondence(self.params.network, **self.params.model_dump())

    def task(self, name: str, network: Correspondence) -> CorrespondenceTask:
        p = self.params
        return CorrespondenceTask(
            self.ready(network),
            self.root / "data/scenes",
            Sampling(positives=p.positives, negatives=p.negatives, grid=p.grid, shift=p.shift),
            self.augmentation(),
            volume=p.volume,
            batch=p.batch,
            seed=self.seed,
            wrong_sound=name == "wrong_sound",
        )

    def inputs(self, batch: Pairs) -> tuple[Tensor, ...]:
        return batch[:4]

    def fit(self, network: Correspondence, batches: Sequence[tuple[Tensor, ...]]) -> None:
        network.fit_sound_scale(torch.cat([sounds for _, sounds, *_ in batches]))
        super().fit(network, batches)
        network.even_out(*batches[0])

    def load(self, folder: Path) -> Correspondence:
        return load_correspondence(folder)

    def begin(self, network: Correspondence, batches: Sequence[tuple[Tensor, ...]]) -> None:
        if self.weights:
            load_correspondence_weights(network, self.weights)

    def facts(self, task: CorrespondenceTask) -> dict[str, Any]:
        return {"chance": 0.5, "clips_trained_on": task.training.items}


def main(run: Run[BaseParams]) -> str:
    """Train the encoder and its control."""
    return train_encoders(run, Corresponding)


def join(run: Run[BaseParams]) -> None:
    """What further processes do."""
    train_beside(run, Corresponding)


if __name__ == "__main__":
    STAGE.run(main, join=join)
