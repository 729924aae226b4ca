"""k-means against scikit-learn's Lloyd: how many times faster, and at what inertia, with the same rows and threads.

    python -m perf.kmeans
    python -m perf.kmeans --threads 2
    python -m perf.kmeans --assert       # exits with 1 if a bound does not hold

Takes a minute. The rows are a mixture with the covariance of real sound textures: over 174 recorded textures, z-scored
and scaled by group, the variance of principal component i falls as i^-1.6 between sounds and as i^-1.0 between windows
of one sound. Every run ends in an optimum of its own, so the bound on the inertia is for the mean over the seeds. Times
are medians, of the process and on the clock; the two take turns, so that other work on the machine slows both.
"""

import time
from dataclasses import dataclass

import faiss
import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from earshot.labels.kmeans import fit_kmeans, nearest_centroids
from earshot.labels.table import BLOCK_ROWS
from perf.rounds import end, parser_of

ROWS, DIMENSIONS, CLUSTERS, ITERATIONS = 55_000, 502, 30, 25
SOUNDS, WITHIN_SHARE = 500, 0.3  # recordings in the mixture; variance within a recording as a share of that between
TIMES = ("process_s", "clock_s")
RATIO, INERTIA = 5, 1.01  # bounds


@dataclass(frozen=True)
class Fit:
    """One run of one of the two."""

    process_s: float
    clock_s: float
    inertia: float


def texture_mixture(seed: int) -> np.ndarray:
    """Rows of windows of recordings, z-scored and of the scale that labels have: float32 (55000, 502)."""
    rng = np.random.default_rng(seed)
    component = np.arange(1, DIMENSIONS + 1)
    between, within = component**-1.6, component**-1.0
    within *= WITHIN_SHARE * between.sum() / within.sum()
    centers = rng.standard_normal((SOUNDS, DIMENSIONS)) * np.sqrt(between)
    rows = centers[rng.integers(SOUNDS, size=ROWS)] + rng.standard_normal((ROWS, DIMENSIONS)) * np.sqrt(within)
    rows = rows @ np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    return ((rows - rows.mean(0)) / rows.std(0) / np.sqrt(DIMENSIONS)).astype(np.float32)


def ours(rows: np.ndarray, seed: int) -> np.ndarray:
    blocks = [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]
    return fit_kmeans(blocks, CLUSTERS, rows=len(rows), iterations=ITERATIONS, seed=seed)


def lloyd(rows: np.ndarray, seed: int) -> np.ndarray:
    model = KMeans(CLUSTERS, algorithm="lloyd", n_init=1, max_iter=ITERATIONS, random_state=seed)
    return model.fit(rows).cluster_centers_


def timed(method, rows: np.ndarray, seed: int) -> Fit:
    process, clock = time.process_time(), time.perf_counter()
    centroids = method(rows, seed)
    process, clock = time.process_time() - process, time.perf_counter() - clock
    return Fit(process, clock, float(nearest_centroids(rows, centroids)[1].sum(dtype=np.float64)))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=1, help="for both (default: 1)")
    parser.add_argument("--seeds", type=int, default=8, help="runs of both (default: 8)")
    options = parser.parse_args()
    rows = texture_mixture(0)
    fits: dict = {ours: [], lloyd: []}
    faiss.omp_set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        for seed in range(options.seeds):
            for method, results in fits.items():
                results.append(timed(method, rows, seed))
    end(options, report(fits[ours], fits[lloyd], options.threads))


def report(fast: list[Fit], slow: list[Fit], threads: int) -> list[str]:
    """Print the comparison; return the bounds that do not hold, a sentence each."""
    size = f"{ROWS:,} x {DIMENSIONS}, {CLUSTERS} clusters, at most {ITERATIONS} iterations"
    print(f"{size}; threads: {threads}, seeds: {len(fast)}\n")
    print(f"{'':<12}{'Earshot':>10}{'Lloyd':>10}{'Lloyd / Earshot':>18}")
    ratios = {}
    for name, middle in (("process_s", np.median), ("clock_s", np.median), ("inertia", np.mean)):
        here, there = (float(middle([getattr(fit, name) for fit in fits])) for fits in (fast, slow))
        ratios[name] = there / here
        print(f"{name:<12}{here:>10.2f}{there:>10.2f}{ratios[name]:>18.4f}")
    faults = [f"{name} {ratios[name]:.1f} times less, expected {RATIO}" for name in TIMES if ratios[name] < RATIO]
    if ratios["inertia"] < 1 / INERTIA:
        faults.append(f"inertia {1 / ratios['inertia']:.4f} of Lloyd's, expected at most {INERTIA}")
    return faults


if __name__ == "__main__":
    main()
