"""Which candidate goes forward: the cheapest that passes, or the first of an order that was fixed before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation import candidate_choice
from speciate.evaluation.candidate_order import fixed_order
from speciate.evaluation.reports.report import Decision, ValidationEvidence
from speciate.vocabulary import Metric, find_metric
from tests.evaluation.test_gates import comparison, decision, row

ACCURACY, MAE = find_metric("accuracy"), find_metric("mae")


def said(model: str, value: float | None, n: int = 400, error: float | None = 0.02, **more: bool) -> ValidationEvidence:
    return ValidationEvidence(model=model, value=value, standard_error=error, n=n, how="out-of-fold", **more)


def names(order: tuple[ValidationEvidence, ...]) -> list[str]:
    return [one.model for one in order]


# Cheapest


@pytest.mark.parametrize(("low", "pick"), [(0.01, "deep"), (-0.01, "words")])
def test_the_choice_is_the_cheapest_unless_a_dearer_one_surely_beats_it(low: float, pick: str) -> None:
    rows = {"words": row("words", usd=0.1), "deep": row("deep", value=0.94, usd=9.0), "bad": row("bad", usd=0.01)}
    decisions = {"words": decision("words"), "deep": decision("deep"), "bad": decision("bad", "hold")}
    assert candidate_choice.choose(decisions, rows, lambda baseline, candidate: comparison(0.02, low, 0.06)) == pick


def test_without_a_passing_model_the_best_value_is_put_forward() -> None:
    rows = {"a": row("a", value=0.7), "b": row("b", value=0.8)}
    decisions = {"a": decision("a", "hold"), "b": decision("b", "inconclusive")}
    assert candidate_choice.choose(decisions, rows, lambda baseline, candidate: None) == "b"


def test_a_row_is_dominated_only_where_another_is_surely_better_and_no_dearer() -> None:
    worse, better = row("worse", usd=2.0), row("better", usd=1.0)
    sure, unsure = comparison(0.05, 0.01, 0.1), comparison(0.05, -0.01, 0.1)
    assert candidate_choice.dominated(worse, [worse, better], lambda baseline, candidate: sure)
    assert not candidate_choice.dominated(worse, [worse, better], lambda baseline, candidate: unsure)
    assert not candidate_choice.dominated(worse, [worse, row("dear", usd=5.0)], lambda baseline, candidate: sure)


# An order


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


def test_the_first_in_the_order_that_passes_goes_forward_whatever_it_costs_and_whatever_the_test_rows_say() -> None:
    rows = {"words": row("words", 0.95, usd=0.1), "deep": row("deep", 0.90, usd=9.0), "deeper": row("deeper", usd=20.0)}
    decisions = {name: decision(name) for name in rows}
    order = fixed_order([said("words", 0.80), said("deep", 0.82), said("deeper", 0.84)], ACCURACY)
    assert candidate_choice.choose(decisions, rows, lambda *_: comparison(-0.05, -0.08, -0.02), order) == "deeper"
    decisions["deeper"] = decision("deeper", "hold")
    assert candidate_choice.choose(decisions, rows, lambda *_: None, order) == "deep"
    decisions["deep"] = decision("deep", "inconclusive")
    decisions["words"] = decision("words", "hold")
    assert candidate_choice.choose(decisions, rows, lambda *_: None, order) == "deep"  # more rows may let it pass


def test_it_is_told_in_words_why_this_one_and_not_the_cheaper_one() -> None:
    rows = {
        "words@v1": row("words@v1", usd=0.1),
        "deep@v2": row("deep@v2", usd=9.0),
        "slow@v3": row("slow@v3", usd=9.0),
    }
    decisions: dict[str, Decision] = {name: decision(name) for name in rows}
    decisions["slow@v3"] = decision("slow@v3", "hold")
    order = fixed_order([said("words@v1", 0.8), said("deep@v2", 0.823), said("slow@v3", 0.9)], ACCURACY)
    why = candidate_choice.why_it("deep@v2", decisions, rows, order)
    assert why is not None
    assert "slow@v3 0.9 (out-of-fold, 400 independent rows), deep@v2 0.823 (out-of-fold, 400 independent rows), " in why
    assert "deep@v2 is the first that passes every gate; before it slow@v3 does not" in why
    assert "words@v1 ($0.1 per 1,000) would pass, too, and cost less than deep@v2 ($9 per 1,000)" in why
    assert "promote_model(model='words@v1')" in why
    doubted = order[0].model_copy(update={"optimistic": True, "doubt": "beside_thorough"})
    few = order[1].model_copy(update={"n": 40})
    why = candidate_choice.why_it("deep@v2", decisions, rows, (doubted, few, *order[2:])) or ""
    assert "slow@v3 0.9 (out-of-fold, 400 independent rows; one standard error less: a thorough search has most" in why
    assert "deep@v2 0.823 (out-of-fold, 40 independent rows; one standard error less: fewer rows than others), " in why
    assert candidate_choice.why_it("deep@v2", decisions, rows, ()) is None
    assert candidate_choice.why_it("deep@v2", {"deep@v2": decision("deep@v2")}, rows, order[1:2]) is None
    alone = candidate_choice.why_it("slow@v3", {"slow@v3": decision("slow@v3")}, rows, order)
    assert "by itself, and passes every gate. So deep@v2 and words@v1 stayed unjudged" in (alone or "")
    failed = candidate_choice.why_it("slow@v3", {"slow@v3": decision("slow@v3", "hold")}, rows, order)
    assert "does not pass; then come deep@v2 and words@v1" in (failed or "")
    nobody = {name: decision(name, "inconclusive") for name in rows}
    assert "None of them passes" in (candidate_choice.why_it("slow@v3", nobody, rows, order) or "")
