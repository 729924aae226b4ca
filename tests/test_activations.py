"""The strongest frames of units against sorting all of them, and quantiles against numpy's."""

import numpy as np
import pytest
import torch

from earshot.core.errors import EarshotError
from earshot.explanation.activations import NONE, STEPS, Distribution, PositionVariance, TopActivations


def sorted_at_once(values, groups, keys, count):
    """Of each unit the best frames, one a group, found by sorting: numbers (units, count)."""
    expected = np.full((values.shape[1], count), NONE)
    for unit, column in enumerate(values.T):
        kept = []
        for frame in np.lexsort((keys, -column)).tolist():
            if column[frame] > 0 and groups[frame] not in [groups[other] for other in kept]:
                kept.append(frame)
        expected[unit, : min(count, len(kept))] = kept[:count]
    return expected


@pytest.mark.parametrize("seed", range(5))
def test_the_top_frames_are_one_a_group_and_the_same_in_whatever_order_they_come(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 6, (90, 7)).astype(np.float32)  # many are alike, some are nothing
    values[:, 3] = 0
    groups, keys = rng.integers(0, 12, 90).astype(np.uint64), rng.permutation(90).astype(np.uint64)
    expected = sorted_at_once(values, groups, keys, 8)
    for _ in range(3):
        order, top = rng.permutation(90), TopActivations(7, 8)
        for part in np.array_split(order, rng.integers(1, 20)):
            top.add(values[part], part, groups[part], keys[part])
        np.testing.assert_array_equal(top.frames, expected)
        unit = np.arange(7)[:, None]
        kept = np.where(expected == NONE, -np.inf, values[expected, unit])
        np.testing.assert_array_equal(top.values, kept)
    assert top.maxima[3] == 0 and top.of(3, 8) == []
    np.testing.assert_array_equal(top.maxima, np.maximum(values.max(0), 0))


def test_an_activation_that_is_no_number_is_refused():
    one = np.zeros(1, np.uint64)
    with pytest.raises(EarshotError, match="not a finite number"):
        TopActivations(1, 2).add(np.array([[np.nan]], np.float32), np.zeros(1, int), one, one)


def test_quantiles_are_numpys_and_too_low_by_less_than_a_bin():
    rng = np.random.default_rng(0)
    maps = np.exp(rng.normal(0, 3, (40, 5, 6, 7))).astype(np.float32)
    maps[:, 1] *= rng.random((40, 6, 7)) < 0.05  # active at a twentieth of all positions
    maps[:, 2] *= rng.random((40, 6, 7)) < 0.005
    maps[:, 3] = 0
    maps[:, 4] -= 2  # as before a ReLU
    whole, halves = Distribution(5), Distribution(5)
    whole.add(torch.from_numpy(maps))
    for half in np.array_split(maps, 2):
        part = Distribution(5)
        part.add(torch.from_numpy(half))
        halves.counts += part.counts
    np.testing.assert_array_equal(whole.counts, halves.counts)
    assert (whole.counts.sum(1) == 40 * 6 * 7).all()
    for share in (0.01, 0.2):
        result = whole.quantile(share)
        flat = maps.transpose(1, 0, 2, 3).reshape(5, -1)
        exact = np.maximum(np.quantile(flat, 1 - share, axis=1, method="higher"), 0)
        assert ((result <= exact) & (exact < result * (1 + 1 / STEPS) + 1e-12)).all()
    assert result[3] == 0 and whole.quantile(0.01)[2] == 0


def test_the_variance_that_position_explains():
    """Units of two images at two positions: place alone, image alone, one of both images at one place, and none."""
    first, second = [[1, 0], [1, 1], [1, 0], [0, 0]], [[1, 0], [0, 0], [0, 0], [-1, -2]]
    maps = torch.tensor([first, second], dtype=torch.float32)[:, :, None]  # (images, units, 1, positions)
    position = PositionVariance(4)
    for image in maps.split(1):
        position.add(image)
    # The third has means 1/2 and 0: variance 1/16 of 1/4 - 1/16.
    np.testing.assert_allclose(position.share, [1, 0, 1 / 3, 0])
