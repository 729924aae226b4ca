"""k-means over more rows than fit in memory: Lloyd's iterations on a sample, then exact iterations over all rows.

The sample yields centroids that two or three full passes hardly improve. Rows come in blocks from an iterable that can
be iterated repeatedly, a list of arrays or a table that is read again; both give the same result.
"""

from collections.abc import Iterable

import faiss
import numpy as np
import scipy.sparse

from earshot.core.errors import EarshotError
from earshot.core.params import Group, Positive

SAMPLE_ROWS = 128  # rows of the sample per cluster; three starts on them are as good as two on twice as many
TOLERANCE = 1e-3  # iterations end when one lowers the inertia by a smaller share


class KmeansOptions(Group):
    """Parameters of label models that cluster."""

    iterations: Positive
    restarts: Positive

    @property
    def kmeans(self) -> dict[str, int]:
        """The options of `fit_kmeans`."""
        return {"iterations": self.iterations, "restarts": self.restarts}


def fit_kmeans(
    blocks: Iterable[np.ndarray], clusters: int, *, rows: int, iterations: int = 25, restarts: int = 3, seed: int = 0
) -> np.ndarray:
    """Centroids, float32 (clusters, d), of the rows in `blocks`.

    Args:
        blocks: float32 arrays (any number, d), the same in every iteration over it.
        rows: the total number of rows.
        iterations: maximum number from each start on the sample, and of passes over all rows.
        restarts: number of k-means++ starts on the sample; the best continues.

    Raises:
        EarshotError: there are fewer rows than clusters.
    """
    if rows < clusters:
        raise EarshotError(f"{rows} rows are too few for {clusters} clusters; give more clips or lower `clusters`")
    generator = np.random.default_rng(seed)
    sample = _draw(blocks, min(rows, SAMPLE_ROWS * clusters), rows, generator)
    centroids = _cluster_sample(sample, clusters, iterations, restarts, int(generator.integers(2**31 - 1)))
    previous = np.inf
    for _ in range(iterations):
        inertia, centroids = _pass(blocks, centroids)
        if inertia >= (1 - TOLERANCE) * previous:
            break
        previous = inertia
    return centroids


def nearest_centroids(block: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each row, int32 (rows,), and the squared distance to it, float32 (rows,)."""
    distances, labels = faiss.knn(block, centroids, 1)
    return labels[:, 0].astype(np.int32), np.maximum(distances[:, 0], 0)  # faiss rounds |x|^2 - 2 xc + |c|^2


def _draw(blocks: Iterable[np.ndarray], size: int, rows: int, generator: np.random.Generator) -> np.ndarray:
    """A sample of `size` rows without replacement, in the order of the table."""
    selected = np.sort(generator.choice(rows, size, replace=False))
    drawn, start = [], 0
    for block in blocks:
        first, last = np.searchsorted(selected, [start, start + len(block)])
        drawn.append(block[selected[first:last] - start])
        start += len(block)
    return np.concatenate(drawn)


def _cluster_sample(sample: np.ndarray, clusters: int, iterations: int, restarts: int, seed: int) -> np.ndarray:
    kmeans = faiss.Kmeans(
        sample.shape[1],
        clusters,
        niter=iterations,
        nredo=restarts,
        early_stop_threshold=TOLERANCE,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    kmeans.train(sample)
    return np.asarray(kmeans.centroids)


def _pass(blocks: Iterable[np.ndarray], centroids: np.ndarray) -> tuple[float, np.ndarray]:
    """One exact Lloyd iteration over all rows: the inertia of `centroids`, and the means that replace them."""
    inertia, counts, sums = 0.0, np.zeros(len(centroids), dtype=np.int64), np.zeros(centroids.shape)
    for block in blocks:
        labels, distances = nearest_centroids(block, centroids)
        inertia += distances.sum(dtype=np.float64)
        counts += np.bincount(labels, minlength=len(centroids))
        ones, starts = np.ones(len(block), dtype=np.float32), np.arange(len(block) + 1)
        members = scipy.sparse.csr_matrix((ones, labels, starts), shape=(len(block), len(centroids)))
        sums += members.T @ block  # (clusters, d)
    # A cluster without rows, as where rows are fewer distinct points than clusters, keeps its centroid.
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centroids)
    return inertia, means.astype(np.float32)
