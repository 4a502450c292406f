from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.errors import SpeciateError
from speciate.evaluation import gates
from speciate.evaluation.cost_difference import is_dearer
from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.evaluation.metrics import Answers, label_answers
from speciate.evaluation.reports.report import Comparison, Control, Decision, Interval, Row, Value
from speciate.evaluation.slice_gains import LEAST_EXAMPLES, RARE_VALUES, SliceGain, slice_gains
from speciate.use_cases import Gate, UseCaseLimits
from speciate.vocabulary import METRICS, find_metric
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def row(
    name: str = "candidate",
    value: float = 0.9,
    interval: Interval | None = (0.85, 0.95),
    *,
    usd: float | None = 1.0,
    metric: str = "accuracy",
    license_: str | None = "MIT",
    p95: tuple[float, Interval | None] = (10.0, (9.0, 12.0)),
) -> Row:
    return Row(
        model=name, served_model=name, metric=metric, value=value, interval=interval, n=200, errors=0, coverage=1.0,
        usd_per_1k=usd, p50_ms=5.0, p95_ms=p95[0], p95_interval=p95[1], device="cpu",
        control=Control(weights_owned=True, offline=True, pinned=True, license=license_), parameters=100,
        memory_mb=50.0,
        metrics={metric: Value(value=value, interval=interval, standard_error=0.025, n=200, method="wilson")},
    )  # fmt: skip


def comparison(delta: float, low: float, high: float, metric: str = "accuracy") -> Comparison:
    return Comparison(
        metric=metric, baseline="incumbent", candidate="candidate", delta=delta, interval=(low, high), p_value=0.5,
        method="bonett_price", minimum_detectable_effect=0.05, standard_error=0.02, n=200, clusters=200,
    )  # fmt: skip


def evidence(candidate: Row, compared: Comparison | None = None, baseline: Row | None = None) -> gates.Evidence:
    comparisons = {compared.metric: compared} if compared else {}
    return gates.Evidence(
        candidate.metric, candidate, baseline or row("incumbent"), comparisons, UseCaseLimits(licenses=("MIT",))
    )


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((0.91, 0.95), "pass"),
        ((0.90, 0.95), "pass"),
        ((0.85, 0.95), "inconclusive"),
        ((0.80, 0.89), "fail"),
        (None, "inconclusive"),
    ],
)
def test_a_target_is_reached_only_by_the_whole_interval(interval: Interval | None, outcome: str) -> None:
    got = gates.judge(Gate(rule="reaches", value=0.9), evidence(row(value=0.93, interval=interval)))
    assert got.outcome == outcome
    assert (got.needed_examples is not None) == (outcome == "inconclusive" and interval is not None)


@pytest.mark.parametrize(
    ("interval", "outcome"), [((1.0, 1.9), "pass"), ((1.0, 2.5), "inconclusive"), ((2.1, 2.5), "fail")]
)
def test_an_error_must_stay_below_its_target(interval: Interval, outcome: str) -> None:
    candidate = row(value=1.5, interval=interval, metric="mae")
    assert gates.judge(Gate(rule="reaches", value=2.0), evidence(candidate)).outcome == outcome


def gain(value: str, low: float, high: float, highest: float | None = None, n: int = 100) -> SliceGain:
    return SliceGain(value, n, (low + high) / 2, low, high, high if highest is None else highest, 0.02)


@pytest.mark.parametrize(
    ("gains", "outcome", "said"),
    [
        ([gain("north", -0.01, 0.05), gain("south", 0.0, 0.1)], "pass", "worst bound: 'north'"),
        ([gain("north", -0.05, 0.05), gain("south", 0.0, 0.1)], "inconclusive", "'north'"),
        ([gain("north", -0.2, -0.03), gain("south", 0.0, 0.1)], "fail", "'north'"),
        # alone it would be surely worse, among all that were looked at it is not
        ([gain("north", -0.2, -0.03, highest=-0.01), gain("south", 0.0, 0.1)], "inconclusive", "'north'"),
        ([gain("north", math.nan, math.nan), gain("south", 0.0, 0.1)], "inconclusive", "'north' gives no interval"),
        ([], "inconclusive", "no slices by 'site'"),
    ],
)
def test_no_slice_may_be_worse(gains: list[SliceGain], outcome: str, said: str) -> None:
    found = evidence(row())._replace(slices={("accuracy", "site"): gains}, examples=200)
    got = gates.judge(Gate(rule="no_slice_worse", column="site"), found)
    assert got.outcome == outcome
    assert said in got.reason


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(-0.01, 0.05, "pass"), (-0.05, 0.05, "inconclusive"), (-0.10, -0.03, "fail")],
)
def test_not_worse_is_by_the_margin_and_not_by_a_large_p_value(low: float, high: float, outcome: str) -> None:
    got = gates.judge(Gate(rule="not_worse"), evidence(row(), comparison((low + high) / 2, low, high)))
    assert got.outcome == outcome


@pytest.mark.parametrize(
    ("usd", "low", "high", "outcome"),
    [
        (1.0, -0.01, 0.01, "pass"),  # costs the same: need not be better
        (9.0, 0.001, 0.05, "pass"),
        (9.0, -0.02, 0.05, "inconclusive"),
        (9.0, -0.02, 0.01, "fail"),  # even the best case is not worth the price
        (None, -0.02, 0.05, "inconclusive"),
    ],
)
def test_a_dearer_candidate_must_surely_be_better(usd: float | None, low: float, high: float, outcome: str) -> None:
    got = gates.judge(Gate(rule="better_if_dearer"), evidence(row(usd=usd), comparison((low + high) / 2, low, high)))
    assert got.outcome == outcome
    if outcome == "inconclusive":
        assert "test rows show gains from 0.05" in got.reason


def test_reasons_call_a_metric_by_its_plain_name() -> None:
    compared = comparison(0.1, 0.05, 0.15, metric="f1_macro")
    got = gates.judge(Gate(rule="better"), evidence(row(metric="f1_macro"), compared))
    assert got.reason.startswith("gain in macro F1 0.1")
    got = gates.judge(Gate(rule="reaches", value=0.5), evidence(row(metric="balanced_accuracy")))
    assert got.reason.startswith("balanced accuracy is ")
    assert not [metric.plain for metric in METRICS.values() if "_" in metric.plain]
    judged = find_metric("judge_0123456789ab@0123456789ab")
    assert judged.plain == judged.name, "what an evaluation brings along has no other"


def test_the_improvement_of_an_error_is_its_fall() -> None:
    compared = comparison(-0.5, -0.7, -0.3, "mae")
    assert gates.judge(Gate(rule="better"), evidence(row(metric="mae"), compared)).outcome == "pass"


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        (Gate(rule="at_most", metric="p95_latency_ms", value=15), "pass"),
        (Gate(rule="at_most", metric="p95_latency_ms", value=10), "inconclusive"),
        (Gate(rule="at_most", metric="p95_latency_ms", value=5), "fail"),
        (Gate(rule="at_most", metric="usd_per_1k", value=2), "pass"),
        (Gate(rule="at_most", metric="parameters", value=99), "fail"),
        (Gate(rule="at_most", metric="memory_mb", value=50), "pass"),
        (Gate(rule="license"), "pass"),
        (Gate(rule="offline"), "pass"),
    ],
)
def test_limits_are_gates(gate: Gate, outcome: str) -> None:
    assert gates.judge(gate, evidence(row())).outcome == outcome


def test_an_unknown_licence_is_not_an_allowed_one() -> None:
    assert gates.judge(Gate(rule="license"), evidence(row(license_=None))).outcome == "fail"


def test_too_few_timings_cannot_show_a_latency() -> None:
    gate = Gate(rule="at_most", metric="p95_latency_ms", value=50)
    assert gates.judge(gate, evidence(row(p95=(10.0, None)))).outcome == "inconclusive"


REACHES, NOT_WORSE = Gate(rule="reaches", value=0.9), Gate(rule="not_worse")


@pytest.mark.parametrize(
    ("interval", "low", "verdict"),
    [((0.91, 0.95), 0.0, "promote"), ((0.85, 0.95), 0.0, "inconclusive"), ((0.91, 0.95), -0.1, "inconclusive")],
)
def test_one_gate_that_cannot_tell_makes_the_verdict_inconclusive(interval: Interval, low: float, verdict: str) -> None:
    candidate = row(value=0.93, interval=interval)
    got = gates.decide([REACHES, NOT_WORSE], evidence(candidate, comparison(0.05, low, 0.1)))
    assert got.verdict == verdict
    assert (got.needed_examples is not None) == (verdict == "inconclusive")


def test_a_failure_outweighs_what_cannot_be_told_and_comes_first_among_the_reasons() -> None:
    candidate = row(value=0.85, interval=(0.80, 0.88))
    got = gates.decide([NOT_WORSE, REACHES], evidence(candidate, comparison(0.0, -0.1, 0.1)))
    assert got.verdict == "hold"
    assert got.needed_examples is None
    assert "short of 0.9" in got.reasons[0]


def test_a_cheaper_model_that_passes_holds_a_dearer_one_back_unless_that_is_surely_better() -> None:
    given_ = evidence(row(usd=9.0))
    passed = Decision(verdict="promote", reasons=("fine",), candidate="candidate", baseline="incumbent")
    cheap = row("words", usd=0.1)
    assert gates.prefer_cheaper(passed, given_, cheap, comparison(0.05, 0.01, 0.1)).verdict == "promote"
    held = gates.prefer_cheaper(passed, given_, cheap, comparison(0.01, -0.02, 0.04))
    assert held.verdict == "hold"
    assert "words passes every gate and costs less" in held.reasons[0]


def decision(name: str, verdict: str = "promote") -> Decision:
    return Decision.model_validate({"verdict": verdict, "reasons": (), "candidate": name, "baseline": "incumbent"})


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.3))
def test_a_wider_interval_never_turns_a_doubt_into_a_verdict(delta: float, half: float, more: float) -> None:
    def outcome(width: float) -> str:
        compared = comparison(delta, delta - width, delta + width)
        return gates.judge(NOT_WORSE, evidence(row(), compared)).outcome

    if outcome(half) == "inconclusive":
        assert outcome(half + more) == "inconclusive"


def test_no_number_of_examples_is_named_where_the_estimate_points_the_other_way() -> None:
    got = gates.judge(REACHES, evidence(row(value=0.88, interval=(0.85, 0.95))))
    assert (got.outcome, got.needed_examples) == ("inconclusive", None)
    assert "the estimate points the other way" in got.reason


@pytest.mark.parametrize(
    ("value", "examples", "named"),
    [(0.9002, 400, False), (0.9002, 20, False), (0.91, 400, True), (0.92, 20, True), (0.9006, 1_000_000, True)],
)
def test_no_number_of_examples_is_named_where_the_estimate_lies_on_the_bound(
    value: float, examples: int, named: bool
) -> None:
    """Who has few is told of a hundred times as many; nobody of millions for his hundreds."""
    error = (0.09 / examples) ** 0.5
    within = (value - 2 * error, value + 2 * error)
    told = Value(value=value, interval=within, standard_error=error, n=examples, method="wilson")
    measured = row(value=value, interval=within).model_copy(update={"metrics": {"accuracy": told}})
    got = gates.judge(REACHES, evidence(measured)._replace(examples=examples, clusters=examples))
    assert got.outcome == "inconclusive"
    assert (got.needed_examples is not None) == named
    assert ("as good as on the bound" in got.reason) != named


def test_what_would_take_twenty_times_the_examples_is_said_not_to_be_worth_it() -> None:
    compared = comparison(0.008, -0.032, 0.048).model_copy(update={"n": 400, "clusters": 400, "standard_error": 0.02})
    got = gates.judge(Gate(rule="better"), evidence(row(), compared)._replace(examples=400, clusters=400))
    assert got.outcome == "inconclusive"
    assert got.needed_examples is not None, "the number is still there"
    assert 20 < got.needed_examples / 400 < 1000
    assert "; not worth settling, as it would take about " in got.reason
    assert f"{got.needed_examples:,} more test rows" in got.reason
    near = comparison(0.02, -0.02, 0.06).model_copy(update={"n": 400, "clusters": 400, "standard_error": 0.02})
    assert "not worth" not in gates.judge(Gate(rule="better"), evidence(row(), near)._replace(examples=400)).reason


def test_two_groups_are_never_said_to_lack_one_example() -> None:
    compared = comparison(0.2, -0.609, 1.0).model_copy(update={"n": 40, "clusters": 2, "standard_error": 0.06})
    few = row().model_copy(update={"metrics": {"accuracy": Value(value=0.9, n=40, method="wilson")}})
    given_ = evidence(few, compared)._replace(examples=40, clusters=2)
    got = gates.judge(Gate(rule="better"), given_)
    assert got.outcome == "inconclusive"
    assert (got.needed_groups, got.needed_examples) == (18, 360)
    assert "about 18 more groups (20 in all) would: 360 more test rows (400 in all), at the present size" in got.reason


def test_rows_that_hang_together_are_asked_for_in_groups() -> None:
    compared = comparison(0.03, -0.01, 0.07).model_copy(update={"n": 400, "clusters": 40})
    grouped = gates.judge(Gate(rule="better"), evidence(row(), compared)._replace(examples=400, clusters=40))
    assert grouped.needed_groups is not None
    assert grouped.needed_examples == pytest.approx(10 * grouped.needed_groups, abs=10)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"clusters": 2}, "2 groups are too few for a verdict; about 18 more groups (20 in all) would do"),
        ({"method": "jackknife_t, undefined on 13% of resamples"}, "too few test rows have a label that it needs"),
        ({"interval": None, "method": "too_few_clusters", "clusters": 1}, "are of one group, which says nothing"),
        ({"interval": None, "method": "undefined"}, "it is undefined on many resamples"),
    ],
)
def test_bad_input_passes_no_gate_and_is_said(update: dict[str, Any], said: str) -> None:
    """Also where the two groups happen to agree and the interval is a point."""
    compared = comparison(0.2, 0.2, 0.2).model_copy(update=update)
    given_ = evidence(row(), compared)._replace(examples=200, clusters=compared.clusters)
    for gate in (Gate(rule="better"), NOT_WORSE):
        for reused in (False, True):
            got = gates.judge(gate, given_._replace(reused=reused))
            assert got.outcome == "inconclusive"
            assert said in got.reason
    assert gates.decide([Gate(rule="better")], given_).needed_examples != 1


LOOKED = LooksOnRows(candidates=30, evaluations=10, promotions=2)


def decide_on_reused(compared: Comparison, strict: Comparison, gate: Gate) -> Decision:
    level = level_for(1, LOOKED)
    fresh = evidence(row(), compared)._replace(examples=200, clusters=200)
    return gates.decide([gate], evidence(row(), strict)._replace(level=level, fresh_level=0.95), fresh, LOOKED)


def test_what_passes_on_fresh_rows_must_also_pass_for_all_earlier_looks() -> None:
    gain = comparison(0.05, 0.01, 0.09)
    luck = decide_on_reused(gain, comparison(0.05, -0.02, 0.12), Gate(rule="better"))
    assert luck.verdict == "inconclusive"
    assert [one.outcome for one in luck.gates] == ["pass", "inconclusive"]
    assert luck.needed_examples == 254  # of 200 with standard error 0.02, 2.8 of them in a gain of 0.05, by t
    assert luck.reasons[0] == (
        "these test rows judged 30 candidate(s) in 10 evaluation(s) before, and 2 promotion(s) rest on them. "
        "At 99.968 % intervals, which allow for that, gain in accuracy 0.05 (-0.02 to 0.12): cannot tell 'better than "
        "incumbent'; at least 254 fresh test rows are needed: add_examples with 'test' in a column 'split' adds them"
    )
    sure = decide_on_reused(gain, comparison(0.05, 0.001, 0.1), Gate(rule="better"))
    assert sure.verdict == "promote"
    assert sure.gates[-1].gate.rule == "fresh_rows"


def test_not_worse_is_asked_as_on_fresh_rows_where_other_rows_show_the_gain() -> None:
    """By the interval it must hold in any case. Without such a gain a loop would collect luck."""

    def decided(compared: Comparison, strict: Comparison, *rules: Gate, shown: bool) -> Decision:
        fresh = evidence(row(), compared)._replace(examples=200, clusters=200, shown=shown)
        wide = evidence(row(), strict)._replace(level=level_for(1, LOOKED), fresh_level=0.95, shown=shown)
        return gates.decide(rules, wide, fresh, LOOKED)

    near, wide = comparison(0.03, -0.015, 0.075), comparison(0.03, -0.05, 0.11)
    assert decided(near, wide, NOT_WORSE, shown=False).verdict == "inconclusive"
    passed = decided(near, wide, NOT_WORSE, shown=True)
    assert passed.verdict == "promote"
    assert [one.gate.rule for one in passed.gates] == ["not_worse", "fresh_rows"]
    said = "holds at 99.968 % intervals, but 'not worse', asked at 95 %, as other rows show the gain"
    assert passed.gates[-1].reason.endswith(said)
    recall = Gate(rule="not_worse", metric="recall")  # of which other rows say nothing
    other = {"recall": near.model_copy(update={"metric": "recall"})}
    wider = {"recall": wide.model_copy(update={"metric": "recall"})}
    measured = row().model_copy(update={"metrics": {**row().metrics, "recall": row().metrics["accuracy"]}})
    fresh = evidence(measured, near)._replace(comparisons=other, examples=200, clusters=200, shown=True)
    strict = evidence(measured, wide)._replace(
        comparisons=wider, level=level_for(1, LOOKED), fresh_level=0.95, shown=True
    )
    assert gates.decide([recall], fresh, fresh, None).verdict == "promote"
    assert gates.decide([recall], strict, fresh, LOOKED).verdict == "inconclusive"
    doubtful = comparison(0.02, -0.025, 0.065)
    assert decided(doubtful, doubtful, NOT_WORSE, shown=True).verdict == "inconclusive"
    lost = comparison(-0.05, -0.07, -0.03)
    assert decided(lost, lost, NOT_WORSE, shown=True).verdict == "hold"
    gain = comparison(0.03, 0.001, 0.06)  # a claim about these rows themselves accounts for all that they were asked
    assert decided(gain, wide, NOT_WORSE, Gate(rule="better"), shown=True).verdict == "inconclusive"


def test_a_loser_is_held_back_on_rows_of_any_age() -> None:
    worse = decide_on_reused(comparison(-0.1, -0.14, -0.06), comparison(-0.1, -0.2, 0.01), Gate(rule="better"))
    assert worse.verdict == "hold"


@pytest.mark.parametrize(
    ("delta", "half", "verdict"),
    [
        (0.03, 0.045, "inconclusive"),  # not worse by 0.02, and only because of a lucky gain
        (0.0, 0.045, "inconclusive"),
        (0.05, 0.045, "promote"),  # better
    ],
)
def test_a_lucky_gain_does_not_count_as_not_worse_on_rows_that_chose_a_model(
    delta: float, half: float, verdict: str
) -> None:
    compared = comparison(delta, delta - half, delta + half)
    assert decide_on_reused(compared, compared, Gate(rule="not_worse")).verdict == verdict


def test_an_equal_model_passes_as_not_worse_where_the_rows_are_enough() -> None:
    compared = comparison(0.0, -0.01, 0.01).model_copy(update={"standard_error": 0.003})
    assert decide_on_reused(compared, compared, Gate(rule="not_worse")).verdict == "promote"


def test_a_stricter_level_needs_more_examples() -> None:
    one = evidence(row(value=0.93, interval=(0.85, 0.95)))
    usual, strict = (gates.judge(REACHES, one._replace(level=level)).needed_examples for level in (0.95, 0.995))
    assert usual is not None
    assert strict is not None
    assert strict > usual
    later = gates.judge(REACHES, one._replace(next_level=0.995))
    assert later.needed_examples == strict, "they are looked at with what was judged before"
    assert later.outcome == gates.judge(REACHES, one).outcome


def test_what_is_needed_counts_all_rows_and_says_which_of_them_the_metric_counts() -> None:
    given_ = evidence(row(value=0.93, interval=(0.85, 0.95), metric="recall"))
    alone = gates.judge(REACHES, given_._replace(examples=200)).needed_examples
    got = gates.judge(REACHES, given_._replace(examples=500, positive_label="malignant"))
    assert alone is not None
    assert got.needed_examples == math.ceil(2.5 * alone)
    assert f"{alone:,} more test rows labelled 'malignant' ({alone + 200:,} in all) would" in got.reason
    assert f"about {got.needed_examples:,} more test rows ({got.needed_examples + 500:,} in all), at the" in got.reason


@pytest.mark.parametrize(("usd", "verdict"), [(1.0, "hold"), (None, "hold"), (0.1, "inconclusive")])
def test_a_surely_worse_candidate_is_held_unless_it_is_cheaper(usd: float | None, verdict: str) -> None:
    got = gates.decide([NOT_WORSE], evidence(row(usd=usd), comparison(-0.03, -0.05, -0.001)))
    assert got.verdict == verdict
    assert ("worse than incumbent, and not shown to be cheaper" in got.reasons[0]) == (verdict == "hold")
    assert got.needed_examples is None  # by the estimate it is worse by more than the margin


def test_a_margin_that_the_user_gave_allows_a_sure_loss_within_it() -> None:
    gate = Gate(rule="not_worse", value=0.1)
    assert gates.judge(gate, evidence(row(), comparison(-0.03, -0.05, -0.001))).outcome == "pass"


def test_reasons_name_the_constant_in_words_and_round_money() -> None:
    given_ = evidence(row(usd=1.7e-06), comparison(0.2, 0.1, 0.3), row("constant:", usd=0.0))
    reason = gates.judge(Gate(rule="better_if_dearer"), given_).reason
    assert "better than always answering the most frequent label" in reason
    assert "under $0.0001 per 1,000 against $0 per 1,000 (both: processor time here)" in reason
    hosted = given_._replace(baseline=row("api:x/y", usd=1e-7).model_copy(update={"device": None}))
    assert "(candidate: processor time here)" in gates.judge(Gate(rule="better_if_dearer"), hosted).reason


@pytest.mark.parametrize(("usd", "had"), [(8.7e-07, 5.3e-07), (0.00012, 0.00003), (0.0301, 0.03)])
def test_a_difference_in_cost_that_matters_to_nobody_decides_nothing(usd: float, had: float) -> None:
    given_ = evidence(row(usd=usd), comparison(-0.005, -0.015, 0.005), row("incumbent", usd=had))
    got = gates.decide([NOT_WORSE, Gate(rule="better_if_dearer")], given_)
    assert got.verdict == "promote"
    assert "costs no more than incumbent by a difference that counts" in got.gates[1].reason


def test_no_model_is_worth_more_than_a_constant_answer_for_being_nearly_free() -> None:
    given_ = evidence(row(usd=1e-7), comparison(0.0, -0.01, 0.01), row("constant:", usd=0.0))
    assert gates.decide([NOT_WORSE, Gate(rule="better_if_dearer")], given_).verdict != "promote"


def turns(usd: float, noise: Sequence[float]) -> dict[str, Any]:
    return {"usd_per_1k": usd, "usd_turns": tuple(usd * each for each in noise)}


def test_costs_are_compared_within_turns() -> None:
    load = [1.0, 1.9, 1.2, 1.5, 0.9, 1.1]
    dear, cheap = row().model_copy(update=turns(0.04, load)), row("incumbent").model_copy(update=turns(0.02, load))
    assert is_dearer(dear, cheap)
    assert not is_dearer(cheap, dear)
    noisy = row().model_copy(update=turns(0.03, [0.3, 3.0, 0.5, 2.0, 1.0, 1.2]))
    assert not is_dearer(noisy, cheap)


def test_two_trainings_of_one_recipe_cost_the_same() -> None:
    one, other = (row(usd=usd).model_copy(update={"recipe": "r"}) for usd in (9.0, 1.0))
    assert not is_dearer(one, other)
    assert is_dearer(one.model_copy(update={"parameters": 200}), other)  # a search chose another kind of model
    got = gates.judge(Gate(rule="better_if_dearer"), evidence(one, comparison(0.0, -0.1, 0.1), other))
    assert (got.outcome, got.reason) == ("pass", "made by the recipe of candidate, so it costs the same")


@pytest.mark.parametrize(
    ("busy", "most", "outcome"), [(0.0, 5, "fail"), (0.3, 5, "inconclusive"), (0.3, 15, "pass"), (None, 5, "fail")]
)
def test_a_busy_machine_fails_nobody(busy: float | None, most: float, outcome: str) -> None:
    timed = row().model_copy(update={"busy": busy})
    got = gates.judge(Gate(rule="at_most", metric="p95_latency_ms", value=most), evidence(timed))
    assert got.outcome == outcome
    assert ("this machine was busy" in got.reason) == (outcome == "inconclusive")


@pytest.mark.parametrize(
    ("effect", "had", "said"),
    [
        (0.05, 0.8, "; 200 test rows show gains from 0.05"),
        (0.25, 0.8, "; 200 test rows are too few to show any gain: the best accuracy is 1"),
        (1.61, 0.2, "; 200 test rows are too few to show any gain: the best accuracy is 1"),
        (None, 0.2, "; 200 test rows are too few to show any gain: the best accuracy is 1"),
    ],
)
def test_no_gain_is_promised_that_the_metric_has_no_room_for(effect: float | None, had: float, said: str) -> None:
    compared = comparison(0.05, -0.02, 0.12).model_copy(update={"minimum_detectable_effect": effect})
    got = gates.judge(Gate(rule="better_if_dearer"), evidence(row(usd=9.0), compared, row("incumbent", had)))
    assert got.outcome == "inconclusive"
    assert said in got.reason


def answers(right: np.ndarray) -> Answers:
    given = ["a" if each else "b" for each in right]
    return label_answers(["a"] * len(right), given, [None] * len(right), ["a", "b"])


def test_each_value_of_a_column_is_compared_by_itself_and_rare_ones_together() -> None:
    random, n = np.random.default_rng(3), 300
    site = ["north"] * 150 + ["south"] * 140 + ["east"] * 6 + ["west"] * 4
    before, after = random.random(n) < 0.8, random.random(n) < 0.8
    after[:150] = random.random(150) < 0.5
    for name in ("accuracy", "f1_macro"):
        found = slice_gains(find_metric(name), [answers(before)], [answers(after)], np.arange(n), site)
        assert [each.value for each in found] == [RARE_VALUES, "north", "south"]
        assert [each.n for each in found] == [10, 150, 140]
        north = found[1]
        assert north.high < 0
        assert north.high <= north.highest  # three values together need wider intervals


def test_examples_of_one_group_are_one_reason_to_judge_a_value() -> None:
    site, right = ["north"] * 100 + ["south"] * 100, np.ones(200, bool)
    clusters = np.concatenate([np.zeros(100, int), np.arange(1, 101)]).astype(np.int64)
    found = slice_gains(find_metric("accuracy"), [answers(right)], [answers(right)], clusters, site)
    assert [each.value for each in found] == [RARE_VALUES, "south"]
    assert LEAST_EXAMPLES > 1


def test_a_candidate_that_is_worse_nowhere_passes_and_says_so(flowers: Workspace) -> None:
    gate = {"rule": "no_slice_worse", "column": "site", "value": 0.1}
    world.define(flowers, gates=[gate])
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert result["decision"]["verdict"] == "promote", result["decision"]
    assert any("no value of 'site' worse in accuracy by 0.1" in reason for reason in result["decision"]["reasons"])


def test_a_gate_on_a_column_that_is_not_there_is_refused(flowers: Workspace) -> None:
    world.define(flowers, gates=[{"rule": "no_slice_worse", "column": "sight"}])
    with pytest.raises(SpeciateError, match="did you mean 'site'"):
        world.evaluate_models(flowers, models=["points"], use_case="flowering")
    with pytest.raises(SpeciateError, match="need one"):
        world.define(flowers, gates=[{"rule": "no_slice_worse"}])


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.99969, "0.9997"), (0.99998, "0.99998"), (1, "1"), (0.9999999, "1.000000"), (0.9991, "0.999"), (1234, "1,234")],
)
def test_what_is_nearly_one_is_not_told_as_one(value: float, told: str) -> None:
    assert gates.figure(value) == told
