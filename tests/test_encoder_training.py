"""The closing line of a training: learned only if it is above every control, and what is wrong with it."""

import math

import pytest

from earshot.training.encoder_training import verdict

METRICS = {"val_accuracy": 0.6, "chance": 0.5, "epochs": 3}


@pytest.mark.parametrize(
    ("changes", "clips", "expected"),
    [
        ({}, 100, "learned"),  # two standard errors are 2 sqrt(.6 .4 / 100) = .0980
        ({}, 90, "not above chance by two standard errors (90 validation clips)"),  # .1033
        ({"wrong_sound_val_accuracy": 0.45}, 100, "learned"),  # 2 sqrt((.24 + .2475) / 100) = .1396
        ({"wrong_sound_val_accuracy": 0.47}, 100, "not above wrong sound by two standard errors (100"),  # .1399
        ({"majority": 0.6, "wrong_sound_val_accuracy": 0.6}, 100, "not above majority, wrong sound by two"),
        ({"majority": None}, 100, "learned"),
        ({"epochs": 0}, 100, ""),
        ({"val_accuracy": None}, 0, ""),
    ],
)
def test_learned_is_above_every_control_by_two_standard_errors(changes, clips, expected):
    actual = verdict(METRICS | changes, clips)
    assert actual.startswith(expected) and bool(actual) == bool(expected)


def test_a_perfect_score_has_no_error():
    assert verdict(METRICS | {"val_accuracy": 1.0}, 5) == "learned"
    assert math.isclose(2 * math.sqrt(0.6 * 0.4 / 100), 0.098, abs_tol=1e-4)
