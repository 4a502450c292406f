"""From scores to answers, and back from answers to what is learned."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speciate.tasks.families.classification import Classification
from speciate.tasks.families.regression import Regression
from speciate.tasks.predictor import constant
from speciate.tasks.task import TaskTerms


def test_probabilities_add_up_and_the_highest_score_is_the_answer() -> None:
    (made,) = Classification(labels=("a", "b", "c")).predictions(np.array([[0.0, 2.0, 1.0]]))
    assert made.output == "b"
    assert made.probabilities is not None
    assert sum(made.probabilities.values()) == pytest.approx(1)
    assert made.confidence == max(made.probabilities.values())


def test_one_score_of_two_labels_is_for_the_second() -> None:
    first, second = Classification(labels=("no", "yes")).predictions(np.array([[-3.0], [3.0]]))
    assert (first.output, second.output) == ("no", "yes")
    assert first.confidence == pytest.approx(1 / (1 + math.exp(-3)))


def test_calibration_changes_confidence_but_no_answer() -> None:
    rng = np.random.default_rng(0)
    encoded = rng.integers(0, 2, 500)
    right = rng.random(500) < 0.7
    scores = np.where(right == (encoded == 1), 5.0, -5.0)[:, None]  # as if always certain, and right seven times in ten
    task_head = Classification(labels=("no", "yes"))
    calibrated = task_head.calibrated(scores, encoded)
    before, after = task_head.predictions(scores), calibrated.predictions(scores)
    assert [one.output for one in before] == [one.output for one in after]
    assert after[0].confidence == pytest.approx(float(right.mean()), abs=0.05)


def test_a_label_that_training_has_not_seen_is_no_target() -> None:
    assert Classification(labels=("a", "b")).encode_targets(["b", "x"]).tolist() == [1, -1]


def test_numbers_come_back_in_their_own_unit() -> None:
    task_head = Regression.fit([100.0, 110.0, 120.0], {})
    encoded = task_head.encode_targets([100.0, 110.0, 120.0])
    assert encoded.mean() == pytest.approx(0)
    assert [one.output for one in task_head.predictions(encoded[:, None])] == pytest.approx([100.0, 110.0, 120.0])


def test_numbers_that_never_change_are_answered_as_they_are() -> None:
    (made,) = Regression.fit([7.0, 7.0], {}).predictions(np.array([[0.0]]))
    assert made.output == 7.0


def test_the_constant_answer_is_the_majority_or_the_mean() -> None:
    (label,) = constant("text-classification", ["b", "a", "b"], TaskTerms()).predict([None])  # type: ignore[list-item]  # unused
    assert (label.output, label.confidence) == ("b", pytest.approx(2 / 3))
    (number,) = constant("tabular-regression", [1.0, 2.0], TaskTerms()).predict([None])  # type: ignore[list-item]  # unused
    assert number.output == 1.5
