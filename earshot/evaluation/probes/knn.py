"""The probe `knn`: the weighted vote of the nearest training rows (Wu 2018, section 3.4; Caron 2021, DINO, appendix F).

Rows are near by their cosine. Each of the k nearest votes for its classes with the weight exp(cosine / .07). Nothing is
trained but the choice of k. A score is a class's share of the weight, so that the scores of two images compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from earshot.evaluation.probe import Probe
from earshot.networks.device import get_device

GRID = (10, 20, 100, 200)  # DINO, eval_knn.py
TEMPERATURE = 0.07
AT_ONCE = 256  # rows whose neighbors vote together: with 200 neighbors and 397 classes, 81 MB


@dataclass(frozen=True)
class Neighbors:
    """Training rows of length 1 (rows, dimensions), their labels (rows, classes), and how many of them vote."""

    rows: Tensor
    labels: Tensor
    counts: Sequence[int]

    def scores(self, rows: Tensor) -> np.ndarray:
        """Shares of the votes, (counts, rows, classes), of rows (rows, dimensions); 0 where no neighbor has a vote."""
        parts = [self._shares(normalize(part.to(self.rows.device), dim=1)) for part in rows.split(AT_ONCE)]
        return torch.cat(parts, 1).cpu().numpy()

    def _shares(self, rows: Tensor) -> Tensor:
        cosines, nearest = (rows @ self.rows.T).topk(min(max(self.counts), len(self.rows)), dim=1)  # (rows, neighbors)
        weights = ((cosines - cosines[:, :1]) / TEMPERATURE).exp()  # the largest is 1
        labels = self.labels[nearest]  # (rows, neighbors, classes)
        shares = []
        for count in self.counts:
            positive, counted = (
                torch.einsum("rn,rnc->rc", weights[:, :count], votes[:, :count].float())
                for votes in (labels == 1, labels != 0)
            )
            shares.append(positive / counted.clamp(min=torch.finfo(counted.dtype).tiny))
        return torch.stack(shares)


def fit(
    rows: Tensor, labels: Tensor, counts: Sequence[float], scale: float = 1.0, *, tolerance: float = 0.0
) -> Neighbors:
    """Keep the rows (rows, dimensions) and their labels (rows, classes) in 1, -1, 0; a label of 0 has no vote.

    `counts` are values of k; with fewer rows all vote. The scale does not matter to a cosine.
    """
    device = get_device()
    return Neighbors(normalize(rows.to(device), dim=1), labels.to(device), [int(count) for count in counts])


PROBE = Probe(title="weighted kNN", symbol="k", grid=GRID, fit=fit, has_edges=False)
