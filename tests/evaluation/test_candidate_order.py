"""The order in which candidates may go forward: by what validation examples say of them, less their doubts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.candidate_order import fixed_order
from speciate.evaluation.reports.report import ValidationEvidence
from speciate.vocabulary import Metric, find_metric

ACCURACY, MAE = find_metric("accuracy"), find_metric("mae")


def said(model: str, value: float | None, n: int = 400, error: float | None = 0.02, **more: bool) -> ValidationEvidence:
    return ValidationEvidence(model=model, value=value, standard_error=error, n=n, how="out-of-fold", **more)


def names(order: tuple[ValidationEvidence, ...]) -> list[str]:
    return [one.model for one in order]


@pytest.mark.parametrize(
    ("evidence", "order"),
    [
        ([said("words", 0.80), said("deep", 0.82)], ["deep", "words"]),
        ([said("words", 0.80), said("deep", 0.80)], ["words", "deep"]),  # equal: the cheap one comes first
        ([said("words", 0.80), said("deep", 0.81, 80, 0.04)], ["words", "deep"]),  # known from fewer rows
        ([said("words", 0.80), said("deep", 0.85, 80, 0.04)], ["deep", "words"]),  # and better by more than its doubt
        (
            [said("words", 0.80), said("warm", 0.81, optimistic=True)],
            ["words", "warm"],
        ),  # its base may know them
        ([said("words", 0.80), said("deep", 0.99, 80, None)], ["words", "deep"]),  # nobody knows how well it is known
        ([said("words", None), said("deep", 0.30)], ["deep", "words"]),
    ],
)
def test_the_best_on_validation_examples_comes_first_less_its_doubt(
    evidence: list[ValidationEvidence], order: list[str]
) -> None:
    assert names(fixed_order(evidence, ACCURACY)) == order


def test_of_errors_the_lowest_comes_first() -> None:
    found = fixed_order([said("ridge", 137.0, error=9.0), said("tabm", 116.0, error=9.0)], MAE)
    assert names(found) == ["tabm", "ridge"]
    few = fixed_order([said("ridge", 137.0, error=9.0), said("net", 130.0, 40, error=9.0)], MAE)
    assert names(few) == ["ridge", "net"]


_EVIDENCE = st.builds(
    said,
    st.uuids().map(str),
    st.none() | st.floats(-1e6, 1e6),
    st.integers(0, 1000),
    st.none() | st.floats(0, 1e3),
    optimistic=st.booleans(),
)


@given(st.lists(_EVIDENCE, max_size=6), st.sampled_from([ACCURACY, MAE]))
def test_an_order_holds_each_candidate_once_and_is_its_own_order(
    evidence: list[ValidationEvidence], metric: Metric
) -> None:
    found = fixed_order(evidence, metric)
    assert sorted(names(found)) == sorted(one.model for one in evidence)
    assert fixed_order(found, metric) == found
    most = max((one.n for one in evidence), default=0)
    alike = [metric.sign * one.value for one in found if one.value is not None and one.n == most and not one.optimistic]
    assert alike == sorted(alike, reverse=True)
