"""Scores are moved only where the metric gains by it on examples that did not choose the move."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from speciate.models.blend import Blend, Member
from speciate.models.estimators import Linear
from speciate.training.selection.decision_shift import find_shift, measure_for, shifted

LABELS = ("common", "rare", "rarer")


def _answers(scores: np.ndarray) -> np.ndarray:
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)


def _drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One in eight is positive; scores are log odds with an error."""
    chance = np.random.default_rng(seed)
    signal = chance.normal(size=count)
    true = (signal + chance.normal(0, 1.0, count) > 1.9).astype(np.int64)
    return 2.2 * (signal - 1.9)[:, None], true


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("f1_macro", lambda true, given: f1_score(true, given, average="macro")),
        ("balanced_accuracy", balanced_accuracy_score),
        ("f1", f1_score),
    ],
)
def test_the_metric_gains_on_examples_that_were_not_held_out(metric, reference) -> None:  # type: ignore[no-untyped-def]
    scores, true = _drawn(1500)
    measure = measure_for(metric, ("no", "yes"), "yes")
    assert measure is not None
    assert measure(true, _answers(scores)) == pytest.approx(reference(true, _answers(scores)))
    shift = find_shift(scores, true, measure, 0)
    assert shift is not None
    others, wanted = _drawn(5000, seed=1)
    assert reference(wanted, _answers(others + shift.by)) > reference(wanted, _answers(others)) + 0.02


def test_of_noise_and_of_few_examples_nothing_is_learned() -> None:
    chance, moved = np.random.default_rng(0), 0
    measure = measure_for("f1_macro", LABELS[:2], None)
    assert measure is not None
    for seed in range(20):
        true = chance.integers(0, 2, 200)
        moved += find_shift(chance.normal(size=(200, 1)), true, measure, seed) is not None
    assert moved <= 4
    scores, true = _drawn(40)
    assert find_shift(scores, true, measure, 0) is None


def test_several_labels_are_moved_one_by_one_and_unknown_ones_do_not_count() -> None:
    chance = np.random.default_rng(0)
    true = chance.choice(3, 900, p=[0.8, 0.15, 0.05])
    scores = chance.normal(size=(900, 3)) + 1.2 * np.eye(3)[true] + np.array([2.0, 0.0, -1.0])
    measure = measure_for("f1_macro", LABELS, None)
    assert measure is not None
    unknown = np.append(true, -1)
    shift = find_shift(np.vstack([scores, scores[:1]]), unknown, measure, 0)
    assert shift is not None
    assert measure(true, _answers(scores + shift.by)) > measure(true, _answers(scores)) + 0.05


def test_where_every_example_counts_alike_nothing_is_asked_for() -> None:
    assert measure_for("accuracy", LABELS, None) is None
    assert measure_for("f1", LABELS, None) is None


def test_a_moved_blend_is_the_same_after_saving() -> None:
    line = Linear(np.ones((3, 2)), np.arange(3.0))
    blend = Blend((Member(line, 0, 1.0),), "classes")
    moved = shifted(blend, np.array([0.5, 0.0, -1.0]))
    inputs = [np.random.default_rng(0).normal(size=(5, 2))]
    np.testing.assert_allclose(moved.scores(inputs), blend.scores(inputs) + np.array([0.5, 0.0, -1.0]))
    np.testing.assert_array_equal(Blend.rebuild(moved.arrays()).scores(inputs), moved.scores(inputs))
    np.testing.assert_allclose(shifted(line, np.ones(3)).scores(inputs[0]), line.scores(inputs[0]) + 1)


def test_an_example_that_was_held_out_twice_does_not_confirm_itself() -> None:
    """Noise: rows that stand there three times seem to agree with what they chose, unless they are one group."""
    chance, as_rows, as_groups = np.random.default_rng(0), 0, 0
    measure = measure_for("f1_macro", LABELS[:2], None)
    assert measure is not None
    for seed in range(20):
        true, scores = chance.integers(0, 2, 80), chance.normal(size=(80, 1))
        names = [str(place % 80) for place in range(240)]
        thrice = np.tile(scores, (3, 1)), np.tile(true, 3), measure, seed
        as_rows += find_shift(*thrice) is not None
        as_groups += find_shift(*thrice, names) is not None
    assert as_rows >= 8
    assert as_groups <= 4


def test_the_rows_that_chose_it_do_not_say_what_it_is_worth() -> None:
    """Twenty draws of 150 rows: what the moved scores seem to be worth, and what they are on 20,000 others."""
    measure = measure_for("f1_macro", ["a", "b", "c", "d"], None)
    assert measure is not None
    by_all, by_unseen = [], []
    for seed in range(20):
        chance = np.random.default_rng(seed)
        scores, true = _weak(chance, 150)
        others, wanted = _weak(chance, 20_000)
        found = find_shift(scores, true, measure, 0)
        if found is not None:
            worth = measure(wanted, _answers(others + found.by))
            by_all.append(measure(true, _answers(scores + found.by)) - worth)
            by_unseen.append(measure(true, _answers(scores + found.unseen)) - worth)
    assert len(by_all) > 10
    assert np.mean(by_all) > 0.05
    assert abs(np.mean(by_unseen)) < 0.03


def _weak(chance: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) log posteriors that know a little of four labels, two of them rare."""
    shares = np.array([0.6, 0.22, 0.11, 0.07])
    true = chance.choice(4, count, p=shares)
    return 0.5 * (chance.normal(size=(count, 4)) + 0.5 * np.eye(4)[true]) + np.log(shares), true


def test_what_is_tried_by_margins_answers_as_argmax_does() -> None:
    """Scores in whole numbers: many are equal, and of equal ones the first label is answered."""
    chance = np.random.default_rng(0)
    true = chance.choice(4, 400, p=[0.7, 0.1, 0.1, 0.1])
    scores = chance.integers(0, 3, (400, 4)) + 2.0 * np.eye(4)[true] + np.array([3.0, 0.0, 0.0, 0.0])
    wanted = measure_for("f1_macro", ["a", "b", "c", "d"], None)
    assert wanted is not None
    tried: list[float] = []

    def measure(true: np.ndarray, given: np.ndarray) -> float:
        tried.append(wanted(true, given))
        return tried[-1]

    found = find_shift(scores, true, measure, 0)
    assert found is not None
    of_all_rows = tried[-2 * 4 * 23 :]  # two rounds of four labels, each with 21 steps, none, and what it had
    assert max(of_all_rows) == wanted(true, _answers(scores + found.by))
