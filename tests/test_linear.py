"""Linear classifiers equal scikit-learn's, near rows vote; a probe selects one value and never uses its test rows."""

import warnings
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from earshot.evaluation import linear, probing
from earshot.evaluation.linear import LOGISTIC, SQUARED_HINGE
from earshot.evaluation.metrics import accuracy, mean_average_precision
from earshot.evaluation.probing import PROBES, feature_scale

CLASSES = 3
SVM = PROBES["svm"]
GRID = SVM.grid
fit = partial(linear.fit, loss=SQUARED_HINGE)
validated_probe = partial(probing.validated_probe, SVM)
cross_validated_probe = partial(probing.cross_validated_probe, SVM)


def _rows(rows: int, dimensions: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows after a ReLU, with a few strong directions, and labels, some of which are ignored."""
    draw = torch.Generator().manual_seed(seed)
    factors = torch.randn(rows, 8, generator=draw)
    mixing = torch.randn(8, dimensions, generator=torch.Generator().manual_seed(99))
    features = (factors @ mixing + torch.randn(rows, dimensions, generator=draw) + 1).relu()
    noisy = factors[:, :CLASSES] + torch.randn(rows, CLASSES, generator=draw)
    labels = torch.where(noisy > 0.8, 1.0, -1.0)
    labels[torch.rand(rows, CLASSES, generator=draw) < 0.1] = 0
    return features, labels


def _objectives(features, labels, svms, scale) -> torch.Tensor:
    """The value that an SVM minimizes, for every C and class, in float64 on centered rows: (costs, classes)."""
    centered = (features - features.mean(0)).double() * scale
    weights = svms.weights.double() / scale
    intercepts = svms.intercepts.double() + features.mean(0).double() @ svms.weights.double()[:, None]
    slack = (1 - labels * (centered @ weights + intercepts)).relu() * labels.abs()
    penalty = (weights**2).sum(1) + intercepts[:, 0] ** 2
    return penalty / 2 + torch.tensor(GRID, dtype=torch.float64)[:, None] * (slack**2).sum(1)


@pytest.mark.parametrize("shape", [(300, 20), (60, 700)], ids=["more rows than dimensions", "fewer"])
def test_the_classifier_is_the_one_of_scikit_learn(shape):
    features, labels = _rows(*shape)
    scale = feature_scale(features)
    actual = fit(features, labels, GRID, scale, tolerance=1e-11).scores(features)
    centered = ((features - features.mean(0)) * scale).double().numpy()
    for place in (0, 5, 10, 15):
        for column in range(CLASSES):
            counted = labels[:, column].numpy() != 0
            theirs = LinearSVC(C=GRID[place], dual=False, tol=1e-9, max_iter=100_000)
            theirs.fit(centered[counted], labels[counted, column])
            np.testing.assert_allclose(actual[place, :, column], theirs.decision_function(centered), atol=2e-3)


@pytest.mark.parametrize("shape", [(300, 20), (60, 700)], ids=["more rows than dimensions", "fewer"])
def test_the_regression_is_the_one_of_scikit_learn(shape):
    """Of liblinear, which has a cost on the intercept as well."""
    features, labels = _rows(*shape)
    scale, grid = feature_scale(features), PROBES["logistic"].grid
    actual = linear.fit(features, labels, grid, scale, loss=LOGISTIC, tolerance=1e-11).scores(features)
    centered = ((features - features.mean(0)) * scale).double().numpy()
    for place in (0, 5, 10, 15):
        for column in range(CLASSES):
            counted = labels[:, column].numpy() != 0
            theirs = LogisticRegression(C=grid[place], solver="liblinear", tol=1e-10, max_iter=100_000)
            theirs.fit(centered[counted], labels[counted, column])
            np.testing.assert_allclose(actual[place, :, column], theirs.decision_function(centered), atol=4e-3)


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_separable_rows_and_a_large_c_are_solved(kind):
    """Where a line search could step too far: almost no row is near the boundary."""
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(400, 50, generator=draw) * torch.logspace(1, -2, 50)
    labels = (features[:, :2] + 0.01 * torch.randn(400, 2, generator=draw)).sign()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = PROBES[kind].fit(features, labels, [1.0, 10.0], feature_scale(features), tolerance=1e-6)
    assert ((fitted.scores(features) * labels.numpy()) > 0).mean() > 0.99


def test_rows_that_collapsed_onto_a_line_are_still_separated():
    """In float32 their Gram matrix is not positive definite: the last layer of a control may be so."""
    draw = torch.Generator().manual_seed(0)
    places = torch.randn(400, 1, generator=draw).abs() ** 4
    features = places @ torch.rand(1, 512, generator=draw)
    labels = (places - places.median()).sign()
    scores = fit(features, labels, GRID, feature_scale(features)).scores(features)
    assert np.isfinite(scores).all()
    assert mean_average_precision(scores[0], labels.numpy()) > 0.99


@pytest.mark.parametrize("shape", [(300, 20), (150, 700)], ids=["more rows than dimensions", "fewer"])
def test_every_objective_is_near_its_minimum(shape):
    features, labels = _rows(*shape)
    scale = feature_scale(features)
    least = _objectives(features, labels, fit(features, labels, GRID, scale, tolerance=1e-11), scale)
    for tolerance, within in ((linear.TOLERANCE, 1e-3), (linear.CHOICE_TOLERANCE, 2e-2)):
        reached = _objectives(features, labels, fit(features, labels, GRID, scale, tolerance=tolerance), scale)
        assert ((reached - least) / least).max() < within


def test_the_gram_matrix_changes_the_way_and_not_the_result(monkeypatch):
    features, labels = _rows(60, 700)
    by_gram = fit(features, labels, GRID, tolerance=1e-10).scores(features)
    monkeypatch.setattr(linear, "USUAL_STEPS", 0)  # so that the Gram matrix never pays
    monkeypatch.setattr(linear, "_gram_factor", None)
    direct = fit(features, labels, GRID, tolerance=1e-10).scores(features)
    np.testing.assert_allclose(by_gram, direct, atol=2e-3)


def test_problems_solved_in_blocks_are_the_problems_solved_together(monkeypatch):
    features, labels = _rows(80, 30)
    together = fit(features, labels, GRID).scores(features)
    monkeypatch.setattr(linear, "COLUMNS_AT_ONCE", 7)
    np.testing.assert_allclose(fit(features, labels, GRID).scores(features), together, atol=1e-4)


def test_neither_the_scale_nor_the_origin_of_the_features_matters():
    features, labels = _rows(90, 40)
    probes = [
        validated_probe((rows[:40], labels[:40]), (rows[40:70], labels[40:70]), rows[70:], _mean_ap, name="x")
        for rows in (features, features * 1000)
    ]
    assert probes[0].value == probes[1].value
    np.testing.assert_allclose(probes[0].scores, probes[1].scores, atol=1e-3)
    moved = fit(features + 5, labels, GRID).scores(features + 5)
    np.testing.assert_allclose(moved, fit(features, labels, GRID).scores(features), atol=1e-3)


def test_rows_of_zeros_are_taken_as_they_are():
    scores = fit(torch.zeros(6, 300), torch.tensor([[1.0], [-1]] * 3), GRID, feature_scale(torch.zeros(6, 300)))
    assert np.isfinite(scores.scores(torch.ones(2, 300))).all()


def _mean_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    return mean_average_precision(scores, np.where((labels == 1).any(0), labels, 1))


def _peak_at(place: int):
    """A score that is best for the C at that place of the grid, whatever the classifiers say."""
    calls = count()
    return lambda scores, labels: -abs(next(calls) % len(GRID) - place)


def test_the_c_of_the_best_score_is_taken_for_all_classes_and_refitted_on_both_parts():
    features, labels = _rows(120, 40)
    train, validation, test = (slice(0, 50), slice(50, 90), slice(90, 120))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = validated_probe(
            (features[train], labels[train]), (features[validation], labels[validation]), features[test], _peak_at(6),
            name="x",
        )  # fmt: skip
    assert probe.value == GRID[6] == 0.5**10
    assert probe.choice == tuple(-abs(place - 6) for place in range(16))
    both = fit(features[:90], labels[:90], [GRID[6]], feature_scale(features[train]))
    np.testing.assert_allclose(probe.scores, both.scores(features[test])[0], atol=1e-5)


@pytest.mark.parametrize("place", [0, 15])
def test_a_best_c_at_the_edge_of_the_grid_is_warned_of_by_name(place):
    features, labels = _rows(60, 10)
    parts = (features[:30], labels[:30]), (features[30:50], labels[30:50])
    with pytest.warns(UserWarning, match=r"voc pool5: .* edge of the grid"):
        validated_probe(*parts, features[50:], _peak_at(place), name="voc pool5")


def test_an_edge_that_is_no_better_than_the_rest_is_not_warned_of():
    features, labels = _rows(60, 10)
    parts = (features[:30], labels[:30]), (features[30:50], labels[30:50])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert validated_probe(*parts, features[50:], lambda *_: 1.0, name="x").value == GRID[0]


def test_cross_validation_scores_only_rows_that_were_left_out():
    """Orthogonal rows: the class of a row is known from training on it, and otherwise a guess."""
    rows, targets = 48, np.random.default_rng(0).integers(4, size=48)
    labels = torch.from_numpy(2.0 * np.eye(4)[targets] - 1).float()
    training_scores = fit(torch.eye(rows), labels, GRID, feature_scale(torch.eye(rows))).scores(torch.eye(rows))
    assert accuracy(training_scores[0], labels.numpy()) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = cross_validated_probe(
            (torch.eye(rows), labels), np.arange(rows) % 3, torch.eye(rows), accuracy, name="x"
        )
    assert max(probe.choice) < 0.5


def test_the_score_of_a_test_row_does_not_depend_on_the_other_test_rows():
    features, labels = _rows(90, 200)
    parts = (features[:40], labels[:40]), (features[40:70], labels[40:70])
    all_rows = validated_probe(*parts, features[70:], _peak_at(8), name="x").scores
    one_row = validated_probe(*parts, features[75:76], _peak_at(8), name="x").scores
    np.testing.assert_allclose(all_rows[5:6], one_row, atol=1e-5)


# Cosines with (1, 0): 1, .8, .6, 0.
NEIGHBORS = torch.tensor([[2.0, 0.0], [4.0, 3.0], [3.0, -4.0], [0.0, 5.0]])
VOTES = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 0.0], [-1.0, 1.0]])  # the third is difficult for the second class


def test_near_rows_vote_with_the_exponential_of_their_cosine():
    one, two, three = np.exp(np.array([1.0, 0.8, 0.6]) / 0.07)
    neighbors = PROBES["knn"].fit(NEIGHBORS, VOTES, [1, 2, 3], 9.0, tolerance=0)
    scores = neighbors.scores(torch.tensor([[7.0, 0.0]]))
    assert scores.shape == (3, 1, 2)
    np.testing.assert_allclose(scores[0, 0], [1, 0], atol=1e-6)
    np.testing.assert_allclose(scores[1, 0], [one / (one + two), two / (one + two)], rtol=1e-4)
    np.testing.assert_allclose(scores[2, 0], [(one + three) / (one + two + three), two / (one + two)], rtol=1e-4)


def test_more_neighbors_than_rows_are_all_of_them_and_rows_of_zeros_get_a_score():
    neighbors = PROBES["knn"].fit(NEIGHBORS, VOTES, [10, 4], 1.0, tolerance=0)
    scores = neighbors.scores(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0, 1], [2 / 4, 2 / 3], rtol=1e-6)  # all cosines are 0


def test_neighbors_in_parts_are_the_neighbors_together(monkeypatch):
    features, labels = _rows(60, 10)
    neighbors = PROBES["knn"].fit(features[:40], labels[:40], PROBES["knn"].grid, 1.0, tolerance=0)
    together = neighbors.scores(features[40:])
    monkeypatch.setattr("earshot.evaluation.probes.knn.AT_ONCE", 7)
    np.testing.assert_allclose(neighbors.scores(features[40:]), together, atol=1e-6)


def test_every_probe_selects_on_validation_and_names_its_scores():
    features, labels = _rows(120, 12)
    parts = (features[:60], labels[:60]), (features[60:90], labels[60:90])
    for kind, probe in PROBES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = probing.validated_probe(probe, *parts, features[90:], mean_average_precision, name=kind)
        assert result.value == probe.grid[int(np.argmax(result.choice))]
        assert len(result.choice) == len(probe.grid)
        assert mean_average_precision(result.scores, labels[90:].numpy()) > 0.4
    assert [probing.scored_as("map_fc7", kind) for kind in ("svm", "knn")] == ["map_fc7", "map_fc7_knn"]
    assert {probing.selected_as(kind) for kind in PROBES} == {"svm_c", "logistic_c", "knn_k"}
