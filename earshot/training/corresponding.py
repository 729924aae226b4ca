"""The training of the stage correspond: its network, its pairs and its control."""

import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import load_correspondence, load_correspondence_weights
from earshot.params.correspond import CorrespondBase
from earshot.scenes.clips import Sampling
from earshot.training.augmentation import write_augmentation
from earshot.training.correspondence import CorrespondenceTask
from earshot.training.encoder_training import EncoderTraining
from earshot.training.objectives import Objective, build_objective
from earshot.training.pairs import Pairs
from earshot.training.sound_augmentation import sound_augmentation_of


class Corresponding(EncoderTraining[CorrespondBase]):
    """Training on pairs of images and sounds."""

    items, examples = "pairs", "clips"
    advice = "give more source videos, or train for more correspond.epochs"

    @property
    def remark(self) -> str:
        return (
            "; sound alone trained the audio tower, and all else keeps its weights"
            if self.objective().sound_alone
            else ""
        )

    def names(self) -> list[str]:
        encoder, *control = super().names()
        if control and self.objective().sound_alone:
            message = f"correspond.objective={self.params.objective} learns from sound alone"
            warnings.warn(f"{message}: skips the control, because no sound is wrong without images", stacklevel=2)
            return [encoder]
        return [encoder, *control]

    def build(self) -> Correspondence:
        network = build_correspondence(self.params.network, **self.params.model_dump())
        network.set_last_layer(self.params.last_layer)
        return network

    def objective(self) -> Objective:
        """What the network minimizes."""
        return build_objective(self.params.objective, **self.params.model_dump())

    def task(self, name: str, network: Correspondence) -> CorrespondenceTask:
        p = self.params
        return CorrespondenceTask(
            self.ready(network),
            self.root / "data/scenes",
            self.objective(),
            Sampling(**{each.name: getattr(p, each.name) for each in fields(Sampling)}),
            self.augmentation(),
            sound=sound_augmentation_of(p),
            batch_size=p.batch_size,
            seed=self.seed,
            wrong_sound=name == "wrong_sound",
        )

    def describe(self) -> None:
        write_augmentation(self.models, self.augmentation(), sound_augmentation_of(self.params))

    def inputs(self, batch: Pairs) -> tuple[Tensor, ...]:
        return batch[:4]

    def fit(self, network: Correspondence, batches: Sequence[tuple[Tensor, ...]]) -> None:
        network.fit_audio_scale(torch.cat([sounds for _, sounds, *_ in batches]))
        super().fit(network, batches)
        self.objective().prepare(network, *batches[0])

    def load(self, folder: Path) -> Correspondence:
        return load_correspondence(folder)

    def begin(self, network: Correspondence, batches: Sequence[tuple[Tensor, ...]]) -> None:
        if self.weights:
            load_correspondence_weights(network, self.weights)

    def metadata(self, task: CorrespondenceTask) -> dict[str, Any]:
        return {"chance": 0.5, "clips_trained_on": task.training.items}
