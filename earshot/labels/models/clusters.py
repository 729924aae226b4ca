"""The label model `clusters`: a label is the nearest centroid of k-means (Owens et al. 2016, 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from earshot.core.params import Role
from earshot.labels.kmeans import KmeansOptions, fit_kmeans, nearest_centroids
from earshot.labels.model import LabelModel
from earshot.labels.scaling import Scale


class ClusterLabelParams(KmeansOptions):
    """The model's own parameters."""

    scale: Scale
    distance_filter: Annotated[bool, Role("filter")]


@dataclass(frozen=True)
class ClusterCentroids:
    """Centroids of scaled descriptors, float32 (clusters, d)."""

    centroids: np.ndarray

    @staticmethod
    def shapes(clusters: int, dimensions: int) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {"centroids": (clusters, dimensions)}

    def assign(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid of each row, int64 (rows,), and the distance from it, float32 (rows,)."""
        labels, squares = nearest_centroids(scaled, self.centroids)
        return labels.astype(np.int64), np.sqrt(squares)


def fit_clusters(
    blocks: Iterable[np.ndarray], rows: int, *, values: int, options: KmeansOptions, seed: int
) -> ClusterCentroids:
    """k-means of the scaled rows, with `values` clusters; raises what `fit_kmeans` raises."""
    return ClusterCentroids(fit_kmeans(blocks, values, rows=rows, **options.kmeans, seed=seed))


LABEL_MODEL = LabelModel(
    params=ClusterLabelParams,
    kind="cluster",
    fit=fit_clusters,
    fitted=ClusterCentroids,
    words="a label is one of {values} clusters of {descriptor}",
    predicts="which of {values} clusters of sound {descriptor}s is heard around them",
)
