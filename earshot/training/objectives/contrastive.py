"""Contrastive: which of all sounds of the batch belongs to an image, and which image to a sound?

The loss is InfoNCE (van den Oord et al. 2018, "Representation learning with contrastive predictive coding", equation
4), symmetric over the modalities: the mean of both cross-entropies over the similarities of all images with all sounds,
divided by a temperature (Radford et al. 2021, CLIP, figure 3).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from earshot.core.errors import EarshotError
from earshot.core.params import IDEA, Amount, Group
from earshot.networks.audio_visual_base import Correspondence
from earshot.training import distributed as processes
from earshot.training.objectives import Objective, calibrated
from earshot.training.pairs import Pairs


class Arguments(Group):
    """The arguments of the contrastive objective."""

    temperature: Annotated[Amount | Literal["learned"], IDEA]


class Contrastive(Objective):
    """InfoNCE over the clips of the whole batch, on all processes.

    The other clips are the negatives of a clip, except those of its own group: they may show the same thing.

    The last layer learns where a match begins (`calibrated`).

    Args:
        temperature: of the similarities; or `learned`: the softmax is over log-odds, whose scale the network learns.
    """

    arguments = Arguments

    def __init__(self, temperature: float | Literal["learned"]) -> None:
        self.temperature = temperature

    def loss(self, network: Correspondence, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        own = len(batch.images)
        images, sounds = network.compared_images(batch.images), network.compared_audio(batch.sounds)
        parts = (images, sounds[:own], batch.groups)
        all_images, all_sounds, all_groups = (processes.gather(part) for part in parts) if shared else parts
        first = own * processes.rank() if shared else 0
        targets = torch.arange(first, first + own, device=images.device)
        excluded = batch.groups[:, None] == all_groups
        excluded[range(own), targets] = False
        by_image = self._logits(network, network.similarities(images, all_sounds))
        by_audio = self._logits(network, network.similarities(all_images, sounds[:own]).T)
        logits = torch.cat([by_image, by_audio]).masked_fill(excluded.repeat(2, 1), -torch.inf)
        loss = cross_entropy(logits, targets.repeat(2))
        return calibrated(loss, network, images, sounds, batch)

    def prepare(self, network: Correspondence, *inputs: Tensor) -> None:
        # Features of a random network nearly coincide: similarities hardly differ, and the loss would stay at chance.
        network.center_features(*inputs[:2])
        super().prepare(network, *inputs)

    def chance(self, groups: Sequence[str]) -> float:
        counts = Counter(groups)
        if len(counts) < 2:
            raise EarshotError(
                f"all {len(groups)} clips of a batch are of the group {groups[0]!r}, expected two groups or more; "
                "raise correspond.batch_size, give clips of other videos, or set correspond.objective=match"
            )
        return sum(count * math.log(1 + len(groups) - count) for count in counts.values()) / len(groups)

    def _logits(self, network: Correspondence, similarities: Tensor) -> Tensor:
        return network.log_odds(similarities) if self.temperature == "learned" else similarities / self.temperature


OBJECTIVE = Contrastive
