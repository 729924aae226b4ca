"""The order of images in a training."""

import numpy as np

from earshot.core.rng import generator


def batch_indices(purpose: str, seed: int, step: int, *, batch_size: int, count: int) -> np.ndarray:
    """The indices of a step's batch among `count` images, int64 (batch_size,).

    Every pass over the images has a new order, drawn by the purpose and the seed; a batch may span two passes.
    """
    passes, indices = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    orders = {n: generator(purpose, seed, n).permutation(count) for n in set(passes.tolist())}
    return np.array([orders[n][index] for n, index in zip(passes.tolist(), indices, strict=True)])
