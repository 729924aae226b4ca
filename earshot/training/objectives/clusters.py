"""Clusters: images and sounds are labeled by the clusters of both modalities, or each by those of the other.

In the spirit of SeLaVi (Asano et al. 2020: balanced labels that both modalities share) and XDC (Alwassel et al. 2020:
clusters of one modality label the other, in turns), online as in SwAV (Caron et al. 2020, section 3.1 and its code):
each batch is a round, and the centroids learn to be predicted. They are the same for both modalities, so that an image
and its sound meet.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from earshot.core.params import IDEA, Group
from earshot.core.rng import generator
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.two_towers import of_length_one
from earshot.training import distributed as processes
from earshot.training.objectives import Objective, calibrated
from earshot.training.pairs import Pairs

TEMPERATURE = 0.1  # of the predictions; this and the next two are SwAV's
EPSILON = 0.05  # of the labels: smaller ones are harder
ITERATIONS = 3
VARIANCE = 1e-12  # added to that of a unit: features of a new network differ by thousandths


class CrossModalClustersArguments(Group):
    """The number of centroids, what the labels come from, and whether each gets the same share of a batch."""

    centroids: Annotated[int, Field(ge=2, le=65_536), IDEA]
    labels_from: Annotated[Literal["both", "other"], IDEA]
    balance: Annotated[Literal["sinkhorn", "none"], IDEA]


class ClusteredEncoder(nn.Module):
    """An encoder with the centroids of its clusters, which are random directions at first.

    Args:
        encoder: a network whose features of images and of sounds are compared.
        centroids: their number.
        seed: of the centroids.
    """

    def __init__(self, encoder: Correspondence, centroids: int, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        directions = generator("centroids", seed).standard_normal((centroids, encoder.units))
        self.centroids = nn.Parameter(of_length_one(torch.from_numpy(directions).float()))
        self.to(next(encoder.parameters()).device)

    def cosines(self, features: Tensor, *, shared: bool) -> Tensor:
        """Of features (clips, units) with each centroid, float32 (clips, centroids).

        Each unit is first scaled to mean 0 and variance 1 over the batch, on all processes if it is `shared`. Otherwise
        features that have come near each other would all be of one cluster, and would stay so.
        """
        with torch.autocast(features.device.type, enabled=False):
            rows = features.float()
            batch = processes.gather(rows) if shared else rows
            deviation = (batch.var(0, correction=0) + VARIANCE).sqrt()
            return of_length_one((rows - batch.mean(0)) / deviation) @ of_length_one(self.centroids).T


class CrossModalClusters(Objective):
    """Cross-entropy of the clusters that an image predicts and those that its sound predicts with the labels of both.

    Args:
        centroids: their number.
        labels_from: `both`: one label, by the mean of the cosines of an image and its sound; or `other`: the label of
            an image is the cluster of its sound, and the reverse.
        balance: `sinkhorn`: labels are soft, and every centroid gets the same share of the batch, on all processes; or
            `none`: the label is the nearest centroid, and nothing keeps all clips from one label.
    """

    arguments = CrossModalClustersArguments

    def __init__(
        self, centroids: int, labels_from: Literal["both", "other"], balance: Literal["sinkhorn", "none"]
    ) -> None:
        self.centroids, self.labels_from, self.balance = centroids, labels_from, balance

    def trained(self, network: Correspondence, seed: int) -> ClusteredEncoder:
        return ClusteredEncoder(network, self.centroids, seed)

    def loss(self, network: ClusteredEncoder, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        own, encoder = len(batch.images), network.encoder
        images, sounds = encoder.compared_images(batch.images), encoder.compared_audio(batch.sounds)
        features = _over_positions(images), sounds[:own]
        by_image, by_audio = (network.cosines(each, shared=shared) for each in features)
        sources = ((by_image + by_audio) / 2,) * 2 if self.labels_from == "both" else (by_audio, by_image)
        labels = [self.labels(cosines, shared=shared) for cosines in sources]
        loss = (_cross_entropy(by_image, labels[0]) + _cross_entropy(by_audio, labels[1])) / 2
        return calibrated(loss, encoder, images, sounds, batch)

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
