"""Streaming LDA: what it knows does not depend on when it was told, and is what scikit-learn finds at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from speciate.models import estimators
from speciate.models.streaming import Streaming

CHANCE = np.random.default_rng(0)
TARGETS = CHANCE.integers(0, 4, 200)
INPUTS = CHANCE.normal(0, 1, (4, 5))[TARGETS] + CHANCE.normal(0, 0.5, (200, 5))


@given(st.lists(st.integers(1, 199), max_size=6), st.randoms(use_true_random=False))
def test_any_order_and_any_batches_end_in_the_same(cuts: list[int], chance: object) -> None:
    order = list(range(200))
    chance.shuffle(order)  # type: ignore[attr-defined]
    found = Streaming.empty(4, 5, 0.01)
    for part in np.split(np.array(order), sorted(cuts)):
        found = found.learned(INPUTS[part], TARGETS[part])
    once = Streaming.empty(4, 5, 0.01).learned(INPUTS, TARGETS)
    for name in ("means", "counts", "scatter"):
        np.testing.assert_allclose(getattr(found, name), getattr(once, name), atol=1e-9)


def test_it_finds_what_scikit_learn_finds() -> None:
    found = Streaming.empty(4, 5, 1e-9).learned(INPUTS, TARGETS).scores(INPUTS)
    other = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.25] * 4).fit(INPUTS, TARGETS).decision_function(INPUTS)
    np.testing.assert_array_equal(found.argmax(1), other.argmax(1))


def test_a_class_that_was_never_seen_is_never_said_and_one_without_a_label_does_not_count() -> None:
    targets = np.where(TARGETS == 3, -1, TARGETS)
    found = Streaming.empty(4, 5, 0.01).learned(INPUTS, targets)
    assert set(found.scores(INPUTS).argmax(1)) == {0, 1, 2}
    assert found.counts.sum() == (TARGETS != 3).sum()


def test_more_classes_take_nothing_from_the_old_ones(tmp_path: object) -> None:
    old = Streaming.empty(2, 5, 0.01).learned(INPUTS[TARGETS < 2], TARGETS[TARGETS < 2])
    wider = old.placed(np.array([1, 3]), 4)
    np.testing.assert_array_equal(wider.means[[1, 3]], old.means)
    np.testing.assert_allclose(wider.scores(INPUTS)[:, [1, 3]], old.scores(INPUTS))
    path = tmp_path / "estimator.safetensors"  # type: ignore[operator]
    estimators.save(wider, path)
    np.testing.assert_array_equal(estimators.load(path).scores(INPUTS), wider.scores(INPUTS))
