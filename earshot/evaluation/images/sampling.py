"""Which pictures the steps of a training show."""

import numpy as np

from earshot.core.rng import generator


def visible_positions(purpose: str, seed: int, step: int, *, batch_size: int, count: int) -> np.ndarray:
    """Which of `count` pictures a step shows, int64 (batch_size,).

    All come in a new order, again and again, and steps run across. The orders are drawn by the purpose and the seed.
    """
    passes, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    orders = {n: generator(purpose, seed, n).permutation(count) for n in set(passes.tolist())}
    return np.array([orders[n][place] for n, place in zip(passes.tolist(), places, strict=True)])
