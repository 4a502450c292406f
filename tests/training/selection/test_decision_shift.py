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
    assert reference(wanted, _answers(others + shift)) > reference(wanted, _answers(others)) + 0.02


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
    assert measure(true, _answers(scores + shift)) > measure(true, _answers(scores)) + 0.05


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
