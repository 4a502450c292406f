"""A head learns the same from vectors that differ little as from the same vectors spread out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.training.classical import logistic, ridge
from speciate.training.structured import one_versus_rest
from speciate.training.widening import factor, widened


def _classes(scale: float) -> tuple[Any, Any]:
    """Three clouds around one far point, one of them of half the examples."""
    chance = np.random.default_rng(0)
    targets = np.maximum(np.arange(240) % 4 - 1, 0)
    centres = np.eye(8)[:3]
    return (5 + scale * (centres[targets] + chance.normal(0, 0.3, (240, 8)))).astype(np.float64), targets


def test_what_is_spread_stays_as_it_is() -> None:
    inputs, targets = _classes(10.0)
    assert factor(inputs) == 1
    plain, wide = logistic(1.0)(inputs, targets, 0), widened(logistic(1.0))(inputs, targets, 0)
    assert np.array_equal(plain.scores(inputs), wide.scores(inputs))


@pytest.mark.filterwarnings("ignore")  # of the solver, of vectors as they are
def test_vectors_that_hardly_differ_are_told_apart() -> None:
    inputs, targets = _classes(1e-3)
    right = [np.mean(learn(inputs, targets, 0).scores(inputs).argmax(1) == targets) for learn in _LEARNERS]
    assert right[0] < 0.6  # the commonest
    assert right[1] > 0.95


_LEARNERS = (logistic(1.0), widened(logistic(1.0)))


@pytest.mark.parametrize("learn", [logistic(1.0), ridge(1.0)])
def test_it_is_the_line_of_the_spread_vectors(learn: Any) -> None:
    inputs, targets = _classes(1e-3)
    times = factor(inputs)
    assert np.isclose(np.var(inputs * times, axis=0).sum(), 1)
    spread = (inputs - inputs.mean(0)) * times
    expected = learn(spread, targets, 0).scores(spread)
    assert np.allclose(widened(learn)(inputs, targets, 0).scores(inputs), expected)


def test_several_labels_at_once() -> None:
    inputs, targets = _classes(1e-3)
    found = widened(one_versus_rest(logistic(10.0)))(inputs, np.eye(3)[targets], 0)
    assert np.mean((found.scores(inputs) > 0) == (np.eye(3)[targets] > 0)) > 0.95


def test_vectors_that_are_all_the_same_do_no_harm() -> None:
    assert factor(np.ones((5, 3))) == 1
