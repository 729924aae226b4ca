"""Contrastive: which of all sounds of the batch belongs to an image, and which image to a sound?

The loss is InfoNCE (van den Oord et al. 2018, "Representation learning with contrastive predictive coding", equation
4), symmetric over the modalities: the mean of both cross-entropies over the similarities of all images with all sounds,
divided by a temperature (Radford et al. 2021, CLIP, figure 3).
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from earshot.core.params import IDEA, Amount, Count, Group
from earshot.networks.audio_visual_base import Correspondence
from earshot.training import distributed as processes
from earshot.training.objectives import Objective, calibrated, negatives, of_own_group
from earshot.training.pairs import Pairs


class ContrastiveArguments(Group):
    """The arguments of the contrastive objective."""

    temperature: Annotated[Amount | Literal["learned"], IDEA]
    queue: Annotated[Count, IDEA]


QUEUED = ("images", "sounds", "groups")  # tensors of the queue in a checkpoint


class Contrastive(Objective):
    """InfoNCE over the clips of the whole batch, on all processes.

    The other clips are the negatives of a clip, except those of its own group: they may show the same thing. So is the
    clip's own sound at another time, where pairs have one (`correspond.negatives`), for its image.

    The last layer learns where a match begins (`calibrated`).

    Args:
        temperature: of the similarities; or `learned`: the softmax is over log-odds, whose scale the network learns.
        queue: number of clips of the batches before whose features are further negatives, without gradients for them
            (Wang et al. 2020, "Cross-batch memory for embedding learning", section 3.2); for small batches. It takes
            8 bytes for each unit of a clip: 1 kB for AVE-Net's 128 units, 100 kB for AVOL-Net's map of 14 x 14.
    """

    arguments = ContrastiveArguments

    def __init__(self, temperature: float | Literal["learned"], queue: int = 0) -> None:
        self.temperature, self.queue = temperature, queue
        self._earlier: list[Tensor] = []  # images, sounds and groups, the newest first

    def loss(self, network: Correspondence, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        own = len(batch.images)
        images, sounds = network.compared_images(batch.images), network.compared_audio(batch.sounds)
        groups, first = batch.groups[:own], 0
        parts = [images, sounds[:own], groups]
        if shared:
            parts, first = [processes.gather(part) for part in parts], own * processes.rank()
            if self.queue:
                parts = self._with_earlier(parts)
        all_images, all_sounds, all_groups = parts
        targets = torch.arange(first, first + own, device=images.device)
        excluded = of_own_group(groups, all_groups, targets)
        by_image = self._logits(network, network.similarities(images, all_sounds))
        by_audio = self._logits(network, network.similarities(all_images, sounds[:own]).T)
        logits = torch.cat([by_image, by_audio]).masked_fill(excluded.repeat(2, 1), -torch.inf)
        others = batch.audio_index[own:]  # the mismatched sound of each clip
        shifted = (others >= own) & (batch.groups[others] == groups)
        if shifted.any():
            further = self._logits(network, network.similarities(images, sounds[others]).diagonal())
            further = torch.cat([further.masked_fill(~shifted, -torch.inf), torch.full_like(further, -torch.inf)])
            logits = torch.cat([logits, further[:, None]], dim=1)
        if shared and self.queue:
            others = (~excluded).sum(1) - 1
            self.last_chance = processes.mean(torch.cat([others + shifted, others]).log1p().mean())
        loss = cross_entropy(logits, targets.repeat(2))
        return calibrated(loss, network, images, sounds, batch)

    def prepare(self, network: Correspondence, *inputs: Tensor) -> None:
        # Features of a random network nearly coincide: similarities hardly differ, and the loss would stay at chance.
        network.center_features(*inputs[:2])
        super().prepare(network, *inputs)

    def chance(self, groups: Sequence[str], shifted: Sequence[bool] | np.ndarray) -> float | None:
        others = negatives(groups)
        if self.queue:  # whose clips of the own group are no negatives: `loss` counts
            return None
        return float(np.mean([np.log1p(others + np.array(shifted, int)), np.log1p(others)]))

    def state(self) -> dict[str, Tensor]:
        return dict(zip(QUEUED, self._earlier, strict=False))  # empty at first

    def restore(self, state: dict[str, Tensor]) -> None:
        self._earlier = [state[name] for name in QUEUED if name in state]

    def _with_earlier(self, parts: list[Tensor]) -> list[Tensor]:
        """The features and groups of a batch, followed by those of the queue, to which the batch is added."""
        earlier = self._earlier or [part[:0] for part in parts]
        joined = [torch.cat(rows) for rows in zip(parts, earlier, strict=True)]
        self._earlier = [rows[: self.queue].detach().clone() for rows in joined]
        return joined

    def _logits(self, network: Correspondence, similarities: Tensor) -> Tensor:
        return network.log_odds(similarities) if self.temperature == "learned" else similarities / self.temperature


OBJECTIVE = Contrastive
