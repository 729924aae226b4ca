"""Clusters: the clusters of each modality are the labels of the other.

In the spirit of XDC (Alwassel et al. 2020: clusters of one modality label the other, in turns) and SeLaVi (Asano et al.
2020: balanced labels that both modalities share), online as in SwAV (Caron et al. 2020, section 3.1 and its code): each
batch is a round, in which both modalities label each other. Unlike in these, the centroids are not learned: they are
random directions, the same for both modalities.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from earshot.core.params import IDEA, Group
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.two_towers import of_length_one
from earshot.training import distributed as processes
from earshot.training.objectives import Objective, calibrated
from earshot.training.pairs import Pairs

TEMPERATURE = 0.1  # of the predictions; this and the next two are SwAV's
EPSILON = 0.05  # of the labels: smaller ones are harder
ITERATIONS = 3
CENTROID_SEED = 0


class CrossModalClustersArguments(Group):
    """The number of centroids, and whether each gets the same share of a batch."""

    centroids: Annotated[int, Field(ge=2, le=65_536), IDEA]
    balance: Annotated[Literal["sinkhorn", "none"], IDEA]


class CrossModalClusters(Objective):
    """Cross-entropy of the clusters that an image predicts and those of its sound, and the reverse.

    Args:
        centroids: their number.
        balance: `sinkhorn`: labels are soft, and every centroid gets the same share of the batch, on all processes; or
            `none`: the label is the nearest centroid, and nothing keeps all clips from one label.
    """

    arguments = CrossModalClustersArguments

    def __init__(self, centroids: int, balance: Literal["sinkhorn", "none"]) -> None:
        self.centroids, self.balance = centroids, balance

    def loss(self, network: Correspondence, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        own = len(batch.images)
        images, sounds = network.compared_images(batch.images), network.compared_audio(batch.sounds)
        embeddings = of_length_one(_over_positions(images)), of_length_one(sounds[:own])
        by_image, by_audio = (self._cosines(each) for each in embeddings)
        loss = (
            _cross_entropy(by_image, self.labels(by_audio, shared=shared))
            + _cross_entropy(by_audio, self.labels(by_image, shared=shared))
        ) / 2
        return calibrated(loss, network, images, sounds, batch)

    @torch.no_grad()
    def labels(self, cosines: Tensor, *, shared: bool) -> Tensor:
        """The share of each centroid in each label, (clips, centroids), from the cosines of their embeddings."""
        if self.balance == "none":
            return torch.nn.functional.one_hot(cosines.argmax(1), self.centroids).to(cosines.dtype)
        own = len(cosines)
        first = own * processes.rank() if shared else 0
        return balanced(processes.gather(cosines) if shared else cosines)[first : first + own]

    def prepare(self, network: Correspondence, *inputs: Tensor) -> None:
        # Features of a random network nearly coincide, and so do their clusters.
        network.center_features(*inputs[:2])
        super().prepare(network, *inputs)

    def chance(self, groups: Sequence[str], shifted: Sequence[bool] | np.ndarray) -> float:
        return math.log(self.centroids)

    def _cosines(self, embeddings: Tensor) -> Tensor:
        drawn = torch.Generator().manual_seed(CENTROID_SEED)
        centroids = of_length_one(torch.randn(self.centroids, embeddings.shape[1], generator=drawn))
        with torch.autocast(embeddings.device.type, enabled=False):
            return embeddings @ centroids.to(embeddings.device).T


def balanced(cosines: Tensor) -> Tensor:
    """Soft labels, (clips, centroids), in which each centroid has the same share of the clips (Sinkhorn and Knopp)."""
    logs = cosines / EPSILON
    for _ in range(ITERATIONS):
        logs = logs - logs.logsumexp(0, keepdim=True)  # each centroid has as much as any other
        logs = logs - logs.logsumexp(1, keepdim=True)  # each clip has 1
    return logs.exp()


def _over_positions(images: Tensor) -> Tensor:
    """The maximum of each unit over the positions of an image, if the network compares positions: (images, units)."""
    return images.flatten(1, -2).amax(1) if images.dim() > 2 else images


def _cross_entropy(cosines: Tensor, labels: Tensor) -> Tensor:
    return -(labels * (cosines / TEMPERATURE).log_softmax(1)).sum(1).mean()


OBJECTIVE = CrossModalClusters
