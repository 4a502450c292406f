"""Errors of forecasts, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import root_mean_squared_error

from speciate.evaluation.metrics import contributions, corpus
from speciate.evaluation.metrics.metric import object_answers
from speciate.vocabulary import find_metric

numbers = st.floats(-100, 100)
steps = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=2)
unit = st.floats(0.1, 10)


def value(metric: str, references: list[Any], given: list[Any]) -> list[float]:
    scores: list[float] = contributions(find_metric(metric), object_answers(references, given)).tolist()
    return scores


@given(steps, steps, st.lists(unit, min_size=2, max_size=2))
def test_both_are_means_of_absolute_errors(reference: Any, answer: Any, naive: list[float]) -> None:
    misses = [
        [abs(a - t) for a, t in zip(given, true, strict=True)] for given, true in zip(answer, reference, strict=True)
    ]
    said = {"steps": reference, "naive": naive}
    assert value("forecast_mae", [said], [answer]) == pytest.approx([sum(map(sum, misses)) / 6])
    scaled = [sum(miss) / 3 / one for miss, one in zip(misses, naive, strict=True)]
    assert value("mase", [said], [answer]) == pytest.approx([sum(scaled) / 2])


def test_channels_that_never_changed_have_no_unit() -> None:
    said = {"steps": [[1.0, 1.0], [5.0, 5.0]], "naive": [0.0, 2.0]}
    assert value("mase", [said], [[[9.0, 9.0], [6.0, 6.0]]]) == [0.5]
    (undefined,) = value("mase", [said | {"naive": [0.0, 0.0]}], [[[9.0, 9.0], [6.0, 6.0]]])
    assert math.isnan(undefined)


@pytest.mark.parametrize("lost", [None, "up", [[1.0]], [[1.0, float("nan")]], {"steps": 1}])
def test_an_error_lies_at_the_far_end_of_what_is_true(lost: Any) -> None:
    references = [{"steps": [[0.0, 10.0]], "naive": [1.0]}, {"steps": [[4.0, 4.0]], "naive": [1.0]}]
    assert value("forecast_mae", references, [lost, [[4.0, 4.0]]]) == [10.0, 0.0]
    assert value("forecast_mae", references, [[[0.0, 10.0]], lost]) == [0.0, 6.0]


def test_one_channel_may_be_stored_as_a_plain_list() -> None:
    assert value("forecast_mae", [{"steps": [[1.0, 2.0]], "naive": [1.0]}], [[1.0, 3.0]]) == [0.5]
    assert np.isfinite(value("mase", [{"steps": [[1.0, 2.0]], "naive": [1.0]}], [[1.0, 3.0]])).all()


@given(st.lists(st.tuples(steps, steps), min_size=1, max_size=4))
def test_the_root_of_the_mean_square_is_scikit_learns_over_all_steps(pairs: list[tuple[Any, Any]]) -> None:
    references, given_ = (
        [{"steps": reference, "naive": [1.0, 1.0]} for reference, _ in pairs],
        [answer for _, answer in pairs],
    )
    n = len(pairs)
    got = corpus(find_metric("forecast_rmse"), object_answers(references, given_), np.arange(n))(np.ones((1, n)))[0]
    wanted = root_mean_squared_error(*(np.array([pair[side] for pair in pairs]).ravel() for side in (0, 1)))
    assert got == pytest.approx(wanted)


def test_symmetric_errors_are_shares_of_the_mean_size() -> None:
    reference = {"steps": [[1.0, 0.0, -2.0]], "naive": [1.0]}
    assert value("smape", [reference], [[[3.0, 0.0, 2.0]]]) == [pytest.approx((2 * 2 / 4 + 0 + 2 * 4 / 4) / 3)]
    assert value("smape", [reference], [None]) == [2.0]
    assert value("smape", [reference], [reference["steps"]]) == [0.0]
