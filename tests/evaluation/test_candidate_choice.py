"""Which candidate goes forward: the cheapest that passes, or the first of an order that was fixed before."""

from __future__ import annotations

import pytest

from speciate.evaluation import candidate_choice
from speciate.evaluation.candidate_order import fixed_order
from speciate.evaluation.reports.report import Decision
from tests.evaluation.test_candidate_order import ACCURACY, said
from tests.evaluation.test_gates import comparison, decision, row

# Cheapest


@pytest.mark.parametrize(("low", "pick"), [(0.01, "deep"), (-0.01, "words")])
def test_the_choice_is_the_cheapest_unless_a_dearer_one_surely_beats_it(low: float, pick: str) -> None:
    rows = {"words": row("words", usd=0.1), "deep": row("deep", value=0.94, usd=9.0), "bad": row("bad", usd=0.01)}
    decisions = {"words": decision("words"), "deep": decision("deep"), "bad": decision("bad", "hold")}
    assert candidate_choice.choose(decisions, rows, lambda baseline, candidate: comparison(0.02, low, 0.06)) == pick


def test_of_several_that_pass_it_is_told_why_this_one() -> None:
    rows = {"words": row("words", usd=0.1), "deep": row("deep", value=0.94, usd=9.0), "bad": row("bad", usd=0.01)}
    decisions = {"words": decision("words"), "deep": decision("deep"), "bad": decision("bad", "hold")}
    assert candidate_choice.why_it("words", decisions, rows, ()) == (
        "deep ($9 per 1,000) would pass, too; it is not surely better, and words ($0.1 per 1,000) costs no more"
    )
    assert candidate_choice.why_it("deep", decisions, rows, ()) == (
        "words ($0.1 per 1,000) would pass, too, and cost less: deep ($9 per 1,000) is surely better than it"
    )
    assert candidate_choice.why_it("bad", decisions, rows, ()) is None
    assert candidate_choice.why_it("words", {**decisions, "deep": decision("deep", "hold")}, rows, ()) is None


def test_a_better_and_cheaper_one_that_passes_is_told_where_the_call_put_another_forward() -> None:
    rows = {"words": row("words", 0.94, usd=0.1), "deep": row("deep", usd=9.0)}
    decisions = {"words": decision("words"), "deep": decision("deep")}

    def told(named: str, low: float, **verdicts: Decision) -> str | None:
        return candidate_choice.why_another(
            named, decisions | verdicts, rows, lambda baseline, candidate: comparison(0.05, low, 0.1)
        )

    assert told("deep", 0.01) == (
        "deep goes forward as the call names it, but words would pass, too, and is surely better at no higher cost "
        "and latency: promote_model(model='words') takes that one"
    )
    assert told("deep", -0.01) is None
    assert told("words", 0.01) is None, "the other one is dearer"
    assert told("deep", 0.01, words=decision("words", "hold")) is None
    assert told("deep", 0.01, deep=decision("deep", "hold")) is None


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


# By an order


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
    assert "slow@v3 0.9 (out-of-fold, 400 rows), deep@v2 0.823 (out-of-fold, 400 rows), " in why
    assert "deep@v2 is the first that passes every gate; before it slow@v3 does not" in why
    assert "words@v1 ($0.1 per 1,000) would pass, too, and cost less than deep@v2 ($9 per 1,000)" in why
    assert "promote_model(model='words@v1')" in why
    doubted = order[0].model_copy(update={"optimistic": True, "doubt": "beside_thorough"})
    few = order[1].model_copy(update={"n": 40})
    why = candidate_choice.why_it("deep@v2", decisions, rows, (doubted, few, *order[2:])) or ""
    assert "slow@v3 0.9 (out-of-fold, 400 rows; one standard error less: a thorough search has most" in why
    assert "deep@v2 0.823 (out-of-fold, 40 rows; one standard error less: fewer rows than others), " in why
    assert candidate_choice.why_it("deep@v2", {"deep@v2": decision("deep@v2")}, rows, order[1:2]) is None
    alone = candidate_choice.why_it("slow@v3", {"slow@v3": decision("slow@v3")}, rows, order)
    assert "by itself, and passes every gate. So deep@v2 and words@v1 stayed unjudged" in (alone or "")
    failed = candidate_choice.why_it("slow@v3", {"slow@v3": decision("slow@v3", "hold")}, rows, order)
    assert "does not pass; then come deep@v2 and words@v1" in (failed or "")
    nobody = {name: decision(name, "inconclusive") for name in rows}
    assert "None of them passes" in (candidate_choice.why_it("slow@v3", nobody, rows, order) or "")
