"""Standard errors and paired tests, against values worked by hand and SciPy's."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from earshot.evaluation.significance import bootstrap_margin, decide, margin, resampled_counts, standard_error


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
    counts = resampled_counts(200, draws=2000)
    drawn = bootstrap_margin((one.mean(), other.mean()), (counts @ one / 200, counts @ other / 200), 200)
    assert drawn.difference == pytest.approx(tested.difference)
    assert drawn.standard_error == pytest.approx(tested.standard_error, rel=0.1)
    assert drawn.p_value == pytest.approx(tested.p_value, abs=0.03)


def test_resamples_are_the_same_for_every_network_and_hold_as_many_items():
    counts = resampled_counts(7, draws=40)
    assert (counts.sum(1) == 7).all() and (counts == resampled_counts(7, draws=40)).all()
    odd = resampled_counts(7, lambda drawn: drawn[:, 0] > 0, draws=40)
    assert odd.shape == (40, 7) and (odd[:, 0] > 0).all()


RIGHT = np.repeat([1.0, 0.0], [80, 20])  # the answers of a network, .80 of 100 items
LEVEL = np.roll(RIGHT, 50)  # as many, on other items
FEWER = np.roll(np.repeat([1.0, 0.0], [40, 60]), 30)


def margins_above(controls: dict[str, np.ndarray], own: np.ndarray = RIGHT) -> dict:
    return {name: margin(own, other) for name, other in controls.items()}


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ({"wrong sound": FEWER, "random weights": FEWER}, "learned"),
        ({"wrong sound": LEVEL, "random weights": FEWER}, "not above wrong sound"),
        ({"wrong sound": RIGHT, "random weights": RIGHT}, "not above wrong sound, random weights"),
        ({"wrong sound": FEWER, "random weights": LEVEL}, "not above random weights"),
        ({"wrong sound": FEWER, "random weights": np.ones(100)}, "worse than random weights"),
        ({"wrong sound": LEVEL, "center": np.ones(100)}, "worse than center; not above wrong sound"),
        ({"random weights": FEWER}, "above random weights"),
        ({}, "not tested"),
    ],
)
def test_verdicts_on_scores_whose_answer_is_known(controls, words):
    assert decide(margins_above(controls)).words == words


def test_few_items_and_untrained_descriptors_have_learned_nothing():
    few = {"wrong sound": np.zeros(9)}
    assert decide(margins_above(few, np.ones(9))).words == "too few items to tell (9)"
    assert decide(margins_above({"wrong sound": np.zeros(10)}, np.ones(10))).words == "learned"
    assert decide(margins_above({"wrong sound": FEWER}), trained=False).words == "above wrong sound"
    assert decide(margins_above({})).rank < decide(margins_above({"wrong sound": FEWER})).rank


def test_noise_is_rarely_called_learned():
    rng = np.random.default_rng(0)
    verdicts = [decide({"wrong sound": margin(*rng.normal(size=(2, 50)))}).words for _ in range(400)]
    assert 0.005 < verdicts.count("learned") / 400 < 0.05  # half of the two-sided level of .05
