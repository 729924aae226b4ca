"""Average precision and accuracy against cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from earshot.evaluation.metrics import (
    accuracy,
    average_precision,
    average_precisions,
    has_all_classes,
    mean_average_precision,
    resampled_average_precision,
    resampled_map,
)
from earshot.evaluation.significance import resampled_counts


def _precision_of(ranked: list[int]) -> float:
    """The average precision of labels in the order of falling scores."""
    return average_precision(np.arange(len(ranked), 0, -1.0), np.array(ranked))


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [
        ([1, 1, -1, -1], 1),
        # precision 1 up to recall 1/2, the levels 0 to .5; then 2 of 3, the levels .6 to 1
        ([1, -1, 1, -1], (6 * 1 + 5 * 2 / 3) / 11),
        # precision rises 1/2, 2/3, 3/4: the highest at each recall or beyond is 3/4
        ([-1, 1, 1, 1], 3 / 4),
        ([-1, -1, -1, 1], 1 / 4),
        # recall .3 is reached by the third of ten positives, and its level counts: levels 0 to .3 at 1, then 10 of 17
        ([1] * 3 + [-1] * 7 + [1] * 7, (4 * 1 + 7 * 10 / 17) / 11),
    ],
)
def test_average_precision_of_rankings_worked_by_hand(ranked, expected):
    assert _precision_of(ranked) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("ranked", "points", "area", "steps"),
    [
        # precision 1, 1/2, 2/3, 1/2, 3/5 with recall 1/3 at 1, 2/3 at 3, 1 at 5; highest from there on 1, 2/3, 3/5
        ([1, -1, 1, -1, 1], (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11, (1 + 2 / 3 + 3 / 5) / 3, (1 + 2 / 3 + 3 / 5) / 3),
        # precision rises 1/2, 2/3, 3/4: the rules differ
        ([-1, 1, 1, 1], 3 / 4, 3 / 4, (1 / 2 + 2 / 3 + 3 / 4) / 3),
    ],
)
def test_three_rules_of_average_precision_on_one_ranking(ranked, points, area, steps):
    scores, labels = np.arange(len(ranked), 0, -1.0), np.array(ranked)
    rules = {rule: average_precision(scores, labels, rule=rule) for rule in ("11-point", "area", "steps")}
    assert rules == {"11-point": pytest.approx(points), "area": pytest.approx(area), "steps": pytest.approx(steps)}


@given(st.lists(st.tuples(st.integers(-4, 4), st.sampled_from([1, -1, 0])), min_size=1, max_size=40))
def test_steps_are_the_average_precision_of_scikit_learn(rows):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    if (labels == 1).any():
        counted = labels != 0
        expected = average_precision_score(labels[counted] == 1, scores[counted])
        assert average_precision(scores, labels, rule="steps") == pytest.approx(expected)


def test_difficult_images_count_neither_as_right_nor_as_wrong():
    assert _precision_of([0, 1, 0, -1, 0, 1, 0]) == _precision_of([1, -1, 1])


def test_equal_scores_enter_together_so_the_order_of_the_rows_changes_nothing():
    scores, labels = np.array([2.0, 1, 1, 1, 0, 0, 0]), np.array([1, -1, 1, -1, -1, 1, -1])
    expected = (4 * 1 + 3 * 2 / 4 + 4 * 3 / 7) / 11  # recall 1/3 with 1 of 1, 2/3 with 2 of 4, all with 3 of 7
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(7)
        assert average_precision(scores[order], labels[order]) == pytest.approx(expected, abs=1e-12)


def test_a_constant_score_gets_the_share_of_positives():
    labels = np.array([1, -1, -1, 0, -1, -1, 0])
    assert average_precision(np.zeros(7), labels) == pytest.approx(1 / 5)


def test_average_precision_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match="no image is positive"):
        average_precision(np.ones(3), np.array([-1, 0, -1]))
    with pytest.raises(ValueError, match="not a number"):
        average_precision(np.array([1, np.nan]), np.array([1, -1]))


def test_the_mean_is_over_classes_each_with_its_own_difficult_images():
    scores = np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    labels = np.array([[1, 0], [-1, -1], [0, 1]])
    assert average_precisions(scores, labels).tolist() == [1, 1]
    assert mean_average_precision(scores, -labels) == pytest.approx(0.5)


def test_accuracy_is_the_share_of_rows_whose_highest_score_is_their_class():
    scores = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 0.5], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    labels = 2 * np.eye(3)[[0, 2, 0, 1]] - 1  # the ties of the last two rows go to the first class
    assert accuracy(scores, labels) == 0.5


@pytest.mark.parametrize("rule", ["11-point", "area", "steps"])
def test_average_precision_in_resamples_is_that_of_the_repeated_images(rule):
    rng = np.random.default_rng(0)
    scores = rng.integers(12, size=40) / 3  # with equal ones
    labels = rng.choice([1, -1, -1, 0], size=40)
    counts = resampled_counts(40, draws=30)
    drawn = resampled_average_precision(scores, labels, counts, rule)
    for count, precision in zip(counts, drawn, strict=True):
        repeated = average_precision(np.repeat(scores, count), np.repeat(labels, count), rule=rule)
        assert precision == pytest.approx(repeated)


def test_resamples_without_a_positive_of_each_class_are_drawn_again():
    labels = np.full((6, 2), -1)
    labels[[0, 1], [0, 1]] = 1
    counts = resampled_counts(6, lambda drawn: has_all_classes(labels, drawn), draws=50)
    assert counts.shape == (50, 6) and (counts[:, :2] > 0).all() and (counts.sum(1) == 6).all()
    assert resampled_map(np.zeros((6, 2)), labels, counts) == pytest.approx(counts[:, :2].mean(1) / 6)
