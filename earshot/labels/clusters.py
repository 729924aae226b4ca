"""The label model `clusters`: a label is the nearest of the centroids that k-means found (Owens et al. 2016, 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from earshot.labels.kmeans import fit_kmeans, nearest_centroids

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Clusters:
    """Centroids of scaled descriptors, float32 (clusters, d)."""

    SIZE: ClassVar[str] = "clusters"  # the parameter that says how many there are
    centroids: np.ndarray

    @staticmethod
    def shapes(clusters: int, dimensions: int) -> Shapes:
        """The shape of every tensor."""
        return {"centroids": (clusters, dimensions)}

    def assign(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid of each row, int64 (rows,), and the distance from it, float32 (rows,)."""
        labels, squares = nearest_centroids(scaled, self.centroids)
        return labels.astype(np.int64), np.sqrt(squares)


def fit_clusters(
    blocks: Iterable[np.ndarray], rows: int, *, clusters: int, iterations: int, restarts: int, seed: int
) -> Clusters:
    """k-means of the scaled rows; the options are those of `fit_kmeans`, which raises what this raises."""
    found = fit_kmeans(blocks, clusters, rows=rows, iterations=iterations, restarts=restarts, seed=seed)
    return Clusters(found)
