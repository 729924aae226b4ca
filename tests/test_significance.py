"""Standard errors and paired tests, against values worked by hand and SciPy's."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from earshot.evaluation.metrics import average_precision
from earshot.evaluation.significance import bootstrap_margin, margin, standard_error


def test_the_standard_error_of_right_and_wrong_answers():
    values = np.repeat([1.0, 0.0], [84, 62])  # .575 of 146 pairs
    assert (
        standard_error(values)
        == pytest.approx((0.575 * 0.425 / 145) ** 0.5, abs=1e-4)
        == pytest.approx(0.041, abs=5e-4)
    )


def test_a_margin_is_that_of_students_paired_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.1, 1, 30), rng.normal(0, 1, 30)
    actual, expected = margin(one, other), ttest_rel(one, other)
    assert actual.p_value == pytest.approx(expected.pvalue)
    assert actual.difference / actual.standard_error == pytest.approx(expected.statistic)
    assert actual.n == 30


def test_pairing_finds_what_the_spread_of_the_items_hides():
    items = np.arange(20.0)
    above = margin(items + 0.1 + 0.01 * (items % 2), items)
    assert above.is_above and not margin(items, items + 0.1).is_above
    assert margin(items, items).p_value == 1 and not margin(items, items).is_above
    assert margin(items + 1, items).p_value == 0


def test_three_seeds_prove_only_what_is_alike_in_all():
    assert margin(np.array([0.71, 0.72, 0.70]), np.array([0.61, 0.63, 0.62])).is_above
    uneven = margin(np.array([0.676, 0.686, 0.666]), np.array([0.671, 0.670, 0.672]))
    assert uneven.difference > 0 and not uneven.is_above


@pytest.mark.parametrize(("one", "other"), [([1.0], [2.0]), ([1.0, 2], [1.0]), ([[1.0, 2]], [[1.0, 2]])])
def test_rows_of_other_items_are_refused(one, other):
    with pytest.raises(ValueError, match="expected as many in both, two or more"):
        margin(np.array(one), np.array(other))


def test_the_bootstrap_of_a_mean_agrees_with_the_paired_test():
    rng = np.random.default_rng(1)
    one = rng.normal(0.3, 1, 200)
    other = 0.5 * one + rng.normal(0, 0.5, 200)
    tested = margin(one, other)
    drawn = bootstrap_margin(lambda rows: (one[rows].mean(), other[rows].mean()), 200, draws=2000)
    assert drawn.difference == pytest.approx(tested.difference)
    assert drawn.standard_error == pytest.approx(tested.standard_error, rel=0.1)
    assert drawn.p_value == pytest.approx(tested.p_value, abs=0.03)


def test_the_bootstrap_draws_again_where_a_score_is_undefined():
    labels = np.array([1, -1, -1, -1, -1, -1])  # many a draw has no positive
    scores = np.array([[9.0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
    drawn = bootstrap_margin(
        lambda rows: (
            average_precision(scores[0][rows], labels[rows]),
            average_precision(scores[1][rows], labels[rows]),
        ),
        6,
        draws=200,
    )
    assert drawn.difference == pytest.approx(1 - 1 / 6) and drawn.is_above
