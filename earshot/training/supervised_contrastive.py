"""Supervised contrastive learning: images of moments whose sounds share a label become alike, others unlike.

The loss is that of Khosla et al. 2020, "Supervised contrastive learning", equation 2, over two random views of each
frame. It compares projections, as there; the network without them is the encoder.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from earshot.core.rng import generator
from earshot.networks.network import Network, initialize
from earshot.networks.two_towers import of_length_one
from earshot.training import distributed as processes
from earshot.training.augmentation import Augmentation
from earshot.training.collapse import collapse, spread
from earshot.training.label_prediction import Images, LabeledScenes, LabelTask

PROJECTED = 128  # units of a projection (section 3.2)
VIEWS = 2


def supervised_contrastive(rows: Tensor, labels: Tensor, temperature: float, *, shared: bool) -> Tensor:
    """The mean over the rows of -log of the share of each row with the same label, a scalar (equation 2).

    A row's share is exp(product / temperature) among all rows but itself. Each row needs another one of its label, such
    as the second view of its frame.

    Args:
        rows: of length 1, (rows, units).
        labels: int64, (rows,).
        shared: whether each process calls this with its part of one batch.
    """
    own, first = len(rows), processes.rank() * len(rows) if shared else 0
    all_rows, all_labels = (processes.gather(rows), processes.gather(labels)) if shared else (rows, labels)
    itself = torch.zeros(own, len(all_rows), dtype=torch.bool, device=rows.device)
    itself[range(own), range(first, first + own)] = True
    logits = (rows @ all_rows.T / temperature).masked_fill(itself, -torch.inf)
    log_shares = logits - logits.logsumexp(1, keepdim=True)
    positive = (labels[:, None] == all_labels) & ~itself
    return -(log_shares.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


class Projected(nn.Module):
    """An encoder with a projection: one hidden layer as wide as the encoder's feature, and 128 units of length 1."""

    def __init__(self, encoder: Network, seed: int) -> None:
        super().__init__()
        self.encoder, units = encoder, encoder.hidden_units
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator("projection", seed).integers(2**63)))
            self.projection = nn.Sequential(nn.Linear(units, units), nn.ReLU(), nn.Linear(units, PROJECTED))
            self.projection.apply(initialize)
        self.projection.to(next(encoder.parameters()).device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Projections, and the scores of the labels, whose output layer alone gets their gradients."""
        hidden = self.encoder.penultimate_of(images)
        projections = of_length_one(self.projection(hidden))
        return projections, self.encoder.scores(hidden.detach()).float()


class SupervisedContrastiveTask(LabelTask):
    """Two views of frames of the training split and their labels.

    The output layer learns the labels beside the contrastive loss, without gradients for what comes before it. So
    accuracies, and the validation loss, mean what they do after training by cross-entropy.
    """

    def __init__(
        self,
        network: Network,
        table: LabeledScenes,
        augmentation: Augmentation,
        *,
        temperature: float,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__(network, table, augmentation, batch_size=batch_size, seed=seed)
        self.temperature, self.network = temperature, Projected(network, seed)

    def loss(self, batch: Images) -> tuple[Tensor, Tensor]:
        """The contrastive loss, and the accuracy of the output layer."""
        images, labels = batch
        projections, scores = self.network(images)
        with torch.autocast(images.device.type, enabled=False):
            loss = supervised_contrastive(projections, labels, self.temperature, shared=True)
        cross_entropy, right = self.kind.loss(scores, labels)
        # Only the gradient of the output layer counts, so that the loss is the contrastive one.
        return loss + cross_entropy - cross_entropy.detach(), right

    def validate(self) -> dict[str, float | None]:
        """As of a LabelTask, and the spread of the projections of the first validation batch."""
        scores = super().validate()
        if self.validation.items > 1:
            images, _ = self._on_device(self._images(self.validation[0], None))
            scores["image_spread"] = spread(self.network(images)[0])
        return scores

    def alarms(self, history: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Projections that have collapsed after the last of these epochs."""
        row = history[-1] if history else {}
        steps = row.get("epoch", 0) * self.batches_per_epoch
        return collapse({"image": row.get("image_spread", 1.0)}, steps)

    def _training_batch(self, number: int) -> Images:
        moments = self.training[number]
        drawn = self.augmentation.draw(VIEWS * len(moments), generator("augmentation", self.seed, number))
        changes = drawn[slice(VIEWS * self.part.start, VIEWS * self.part.stop)]
        return self._images(moments[self.part], changes, views=VIEWS)
