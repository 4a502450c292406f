"""What each gate answers, and with how many more rows, where its inputs lie on a bound or are missing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from speciate.evaluation import gates
from speciate.evaluation.reports.report import Comparison, Control, Decision, Outcome, Row, Value
from speciate.evaluation.slice_gains import SliceGain
from speciate.evaluation.statistics import units_needed
from speciate.models.training_statement import TrainingStatement
from speciate.use_cases import Gate, UseCaseLimits
from tests.evaluation.test_gates import LOOKED, comparison, evidence, row

BETTER, NOT_WORSE = Gate(rule="better"), Gate(rule="not_worse")


def judged(gate: Gate, given: gates.Evidence) -> tuple[Outcome, int | None, int | None]:
    found = gates.judge(gate, given)
    return found.outcome, found.needed_examples, found.needed_groups


# On a bound: all numbers are sums of powers of two, so nothing is rounded


@pytest.mark.parametrize(
    ("gate", "low", "high", "outcome"),
    [
        (Gate(rule="better", value=0.25), 0.25, 0.75, "inconclusive"),
        (Gate(rule="better", value=0.25), 0.251, 0.75, "pass"),
        (Gate(rule="better", value=0.25), 0.0, 0.25, "fail"),
        (BETTER, 0.0, 0.5, "inconclusive"),
        (BETTER, -0.5, 0.0, "fail"),
        (Gate(rule="not_worse", value=0.25), -0.25, 0.25, "inconclusive"),
        (Gate(rule="not_worse", value=0.25), -0.125, 0.25, "pass"),
        (Gate(rule="not_worse", value=0.125), -0.25, -0.0625, "fail"),  # surely worse, and by more than it may
        (NOT_WORSE, -0.25, 0.0, "inconclusive"),  # not surely worse
    ],
)
def test_a_gain_on_the_bound_shows_nothing(gate: Gate, low: float, high: float, outcome: str) -> None:
    assert gates.judge(gate, evidence(row(), comparison((low + high) / 2, low, high))).outcome == outcome


@pytest.mark.parametrize(("high", "outcome"), [(0.0199, "fail"), (0.02, "inconclusive")])
def test_a_dearer_candidate_fails_where_its_best_case_is_below_the_margin(high: float, outcome: str) -> None:
    given = evidence(row(usd=9.0), comparison(0.0, -0.02, high))
    assert gates.judge(Gate(rule="better_if_dearer"), given).outcome == outcome


@pytest.mark.parametrize(
    ("gain", "doubt", "error", "outcome"),
    [
        (0.0, 0.125, 0.0625, "pass"),  # doubt and two errors are the margin
        (0.0, 0.25, 0.0, "inconclusive"),  # the worst case is the margin
        (0.125, 0.25, 0.0, "inconclusive"),  # a gain counts as none
        (0.0, 0.125, None, "pass"),
    ],
)
def test_on_reused_rows_the_margin_is_a_bound(gain: float, doubt: float, error: float | None, outcome: str) -> None:
    compared = comparison(gain, gain - doubt, gain + doubt).model_copy(update={"standard_error": error})
    given = evidence(row(), compared)._replace(reused=True)
    assert gates.judge(Gate(rule="not_worse", value=0.25), given).outcome == outcome


def test_a_target_on_the_best_case_is_not_missed() -> None:
    given = evidence(row(value=0.375, interval=(0.25, 0.5)))
    found = gates.judge(Gate(rule="reaches", value=0.5), given)
    assert found.outcome == "inconclusive"
    on_it = evidence(row(value=0.5, interval=(0.25, 0.75)))
    assert "points the other way" in gates.judge(Gate(rule="reaches", value=0.5), on_it).reason


# What is missing


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("gate", [BETTER, NOT_WORSE, Gate(rule="better_if_dearer")], ids=lambda gate: gate.rule)
def test_without_a_comparison_no_gain_is_shown(gate: Gate, reused: bool) -> None:
    found = gates.judge(gate, evidence(row(usd=9.0))._replace(reused=reused))
    assert (found.outcome, found.needed_examples) == ("inconclusive", None)
    assert "there is no paired interval" in found.reason


def test_a_metric_that_was_not_measured_reaches_nothing() -> None:
    other = Gate(rule="reaches", metric="recall", value=0.5)
    assert gates.judge(other, evidence(row())).outcome == "inconclusive"
    undefined = row().model_copy(update={"metrics": {"accuracy": Value(value=None, n=200)}})
    assert gates.judge(Gate(rule="reaches", value=0.5), evidence(undefined)).outcome == "inconclusive"
    assert gates.judge(Gate(rule="reaches"), evidence(row())).outcome == "inconclusive"


def test_gates_that_are_always_in_force_are_not_asked_by_themselves() -> None:
    asked = [Gate(rule="fresh_rows"), Gate(rule="free_method"), Gate(rule="offline")]
    assert [each.gate.rule for each in gates.decide(asked, evidence(row())).gates] == ["offline"]


@pytest.mark.parametrize(
    ("name", "most", "outcome"),
    [
        ("usd_per_1k", 1.0, "inconclusive"), ("usd_per_1k", 2.0, "inconclusive"), ("usd_per_1k", 3.0, "pass"),
        ("usd_per_1k", 0.5, "fail"), ("usd_per_1k", None, "inconclusive"), ("parameters", 2.0, "fail"),
        ("memory_mb", 1.0, "fail"), ("p95_latency_ms", 12.0, "pass"), ("p95_latency_ms", 9.0, "inconclusive"),
        ("p95_latency_ms", 8.5, "fail"),
    ],
)  # fmt: skip
def test_a_limit_within_the_doubt_of_a_cost_or_latency_cannot_be_told(
    name: str, most: float | None, outcome: str
) -> None:
    known = row(usd=2.0).model_copy(update={"usd_interval": (1.0, 3.0), "memory_mb": 1.5})
    assert gates.judge(Gate(rule="at_most", metric=name, value=most), evidence(known)).outcome == outcome


@pytest.mark.parametrize("name", ["usd_per_1k", "parameters", "memory_mb", "p95_latency_ms"])
def test_what_was_not_measured_is_within_no_limit(name: str) -> None:
    unknown = row(usd=None).model_copy(update={"parameters": None, "memory_mb": None, "p95_ms": None})
    found = gates.judge(Gate(rule="at_most", metric=name, value=1.0), evidence(unknown))
    assert (found.outcome, found.reason) == ("inconclusive", f"{name} was not measured")


def test_a_machine_is_busy_beyond_a_fortieth_and_only_where_it_decides() -> None:
    gate = Gate(rule="at_most", metric="p95_latency_ms", value=5.0)
    for busy, outcome in ((gates.BUSY, "fail"), (gates.BUSY + 0.001, "inconclusive")):
        timed = row().model_copy(update={"busy": busy})
        assert gates.judge(gate, evidence(timed)).outcome == outcome
    at_it = row().model_copy(update={"busy": 0.5})
    assert "busy" not in gates.judge(gate.model_copy(update={"value": 9.0}), evidence(at_it)).reason
    assert gates.BUSY == 0.025


# How many more rows


def error_for(total: int, units: int, distance: float, level: float = 0.95) -> float:
    """A standard error of `units` for which `total` are needed to tell a distance."""
    low, high = 0.0, distance * math.sqrt(total)
    while True:
        middle = (low + high) / 2
        found = units_needed(units, middle, distance, level)
        if found == total:
            return middle
        low, high = (middle, high) if found is not None and found < total else (low, middle)


@pytest.mark.parametrize(
    ("rows", "total", "named"),
    [
        (2000, 2020, 200_000),  # a hundred times as many
        (2000, 2021, None),
        (800, 2520, 100_000),  # 125 times as many, and so many in all
        (220, 9111, None),  # 100,001
    ],
)
def test_no_more_than_a_hundred_times_the_rows_or_a_hundred_thousand_are_named(
    rows: int, total: int, named: int | None
) -> None:
    error = error_for(total, 20, 0.05)
    compared = comparison(0.05, -0.1, 0.2).model_copy(update={"standard_error": error, "clusters": 20, "n": rows})
    counted = row().model_copy(update={"metrics": {"accuracy": Value(value=0.9, n=rows)}})
    assert judged(BETTER, evidence(counted, compared)._replace(examples=rows, clusters=20))[1] == named


@pytest.mark.parametrize(("gate", "beyond"), [(BETTER, 0.05), (Gate(rule="better", value=0.0625), 0.0375)])
def test_what_a_gain_lacks_is_told_in_rows_that_the_metric_counts(gate: Gate, beyond: float) -> None:
    gain = 0.05 if gate.value is None else 0.1
    compared = comparison(gain, -0.1, 0.3).model_copy(update={"standard_error": 0.05, "clusters": 100, "n": 130})
    total = units_needed(100, 0.05, beyond)
    assert total is not None
    for metrics, n in (({"accuracy": Value(value=0.9, n=150)}, 150), ({}, 130)):
        counted = row().model_copy(update={"metrics": metrics})
        expected = math.ceil(n * ((total - 100) / 100))
        assert judged(gate, evidence(counted, compared)) == ("inconclusive", expected, None)
        of_some = evidence(counted, compared)._replace(examples=300, clusters=300, positive_label="a")
        found = gates.judge(gate, of_some)
        assert found.needed_examples == math.ceil(300 * ((total - 100) / 100))
        assert found.needed_groups is None
        assert f"{expected:,} more test rows labelled 'a' ({expected + n:,} in all)" in found.reason


def test_on_reused_rows_what_lacks_is_told_from_the_margin_on() -> None:
    compared = comparison(-0.125, -0.5, 0.25).model_copy(update={"standard_error": 0.1, "clusters": 100, "n": 130})
    total = units_needed(100, 0.1, 0.125)
    assert total is not None
    for metrics, n in (({"accuracy": Value(value=0.9, n=150)}, 150), ({}, 130)):
        counted = row().model_copy(update={"metrics": metrics})
        for gain, beyond in ((-0.125, 0.125), (0.125, 0.25)):
            wide = compared.model_copy(update={"delta": gain})
            needed = units_needed(100, 0.1, beyond)
            assert needed is not None
            given = evidence(counted, wide)._replace(reused=True)
            expected = math.ceil(n * (max(1, needed - 100) / 100))
            assert judged(Gate(rule="not_worse", value=0.25), given) == ("inconclusive", expected, None)
        of_some = evidence(counted, compared)._replace(reused=True, examples=300, clusters=300, positive_label="a")
        assert "labelled 'a'" in gates.judge(Gate(rule="not_worse", value=0.25), of_some).reason


def test_an_estimate_without_an_error_lacks_one_row() -> None:
    told = Value(value=0.75, interval=(0.25, 0.9), n=200)
    measured = row().model_copy(update={"metrics": {"accuracy": told}})
    assert judged(Gate(rule="reaches", value=0.5), evidence(measured)) == ("inconclusive", 1, None)
    compared = comparison(0.5, -0.5, 0.9).model_copy(update={"standard_error": None})
    assert judged(BETTER, evidence(row(), compared)) == ("inconclusive", 1, None)


@pytest.mark.parametrize(
    ("examples", "clusters", "units", "needed"),
    [
        (200, 1, 1, (3800, 19)),  # one group
        (200, 0, 4, (16, None)),  # nobody noted groups
        (200, 200, 4, (16, None)),
    ],
)
def test_too_few_units_are_counted_in_groups_where_there_are_groups(
    examples: int, clusters: int, units: int, needed: tuple[int, int | None]
) -> None:
    compared = comparison(0.2, 0.1, 0.3).model_copy(update={"clusters": units})
    found = gates.judge(BETTER, evidence(row(), compared)._replace(examples=examples, clusters=clusters))
    assert (found.outcome, (found.needed_examples, found.needed_groups)) == ("inconclusive", needed)
    assert f"{units} {'groups' if needed[1] else 'test rows'} are too few" in found.reason


@pytest.mark.parametrize(
    ("examples", "clusters", "n", "lacking"), [(200, 0, 200, None), (1000, 1, 10, 19), (1000, 400, 10, 16)]
)
def test_units_of_a_metric_are_its_share_of_all(examples: int, clusters: int, n: int, lacking: int | None) -> None:
    told = Value(value=0.9, interval=(0.85, 0.95), n=n)
    given = evidence(row().model_copy(update={"metrics": {"accuracy": told}}))
    found = gates.judge(Gate(rule="reaches", value=0.5), given._replace(examples=examples, clusters=clusters))
    assert (found.outcome, found.needed_groups) == ("inconclusive" if lacking else "pass", lacking)


def test_one_group_is_asked_for_more_groups() -> None:
    compared = comparison(0.05, -0.1, 0.2).model_copy(update={"clusters": 40})
    assert judged(BETTER, evidence(row(), compared)._replace(examples=200, clusters=1))[2] is not None


def test_a_level_that_nothing_reaches_names_no_fresh_rows() -> None:
    compared = comparison(0.05, -0.1, 0.2)
    assert judged(BETTER, evidence(row(), compared)._replace(fresh_level=1.0))[0] == "inconclusive"


# Licences, networks, consent and what a model has seen


def controlled(**control: Any) -> Row:
    known = {"weights_owned": True, "offline": True, "pinned": True, "license": "MIT", **control}
    return row().model_copy(update={"control": Control(**known)})


@pytest.mark.parametrize(
    ("control", "allowed", "outcome", "said"),
    [
        ({"license": "mit"}, ("Apache-2.0", "MIT"), "pass", "licence mit is allowed"),
        (
            {"weights_license": "Apache-2.0"}, ("apache-2.0", "mit"), "pass",
            "licence MIT and, of the weights, Apache-2.0 is allowed",
        ),
        (
            {"weights_license": "CC-BY-NC-4.0"}, ("MIT", "BSD"), "fail",
            "licence of the weights CC-BY-NC-4.0, which forbids commercial use, is not among MIT, BSD",
        ),
        ({"license": "GPL-3.0"}, ("MIT",), "fail", "licence GPL-3.0 is not among MIT"),
        ({"license": None}, (), "fail", "licence unknown is not among the allowed (none)"),
    ],
)  # fmt: skip
def test_every_licence_of_a_model_must_be_allowed(
    control: dict[str, Any], allowed: tuple[str, ...], outcome: str, said: str
) -> None:
    given = evidence(controlled(**control))._replace(limits=UseCaseLimits(licenses=allowed))
    found = gates.judge(Gate(rule="license"), given)
    assert (found.outcome, found.reason) == (outcome, said)


def test_a_model_that_needs_a_network_is_not_offline() -> None:
    assert gates.judge(Gate(rule="offline"), evidence(controlled(offline=False))).outcome == "fail"


@pytest.mark.parametrize(
    ("known", "if_unknown", "outcome"),
    [
        ({"agreed": 0}, None, "pass"),
        ({"agreed": 3}, "accept", "fail"),
        ({"agreed": 0, "asked": 4}, None, "pass"),
        ({"asked": 0}, "accept", "fail"),  # of another column
        ({}, "ask", "fail"),
        (None, None, "fail"),
        (None, "refuse", "fail"),
        (None, "ask", "not_known"),
        (None, "accept", "pass"),
    ],
)
def test_every_row_that_a_model_learned_from_must_say_yes(
    known: dict[str, int] | None, if_unknown: Any, outcome: str
) -> None:
    learned = row().model_copy(update={"without_consent": known})
    gate = Gate(rule="consent", column="agreed", if_unknown=if_unknown)
    assert gates.judge(gate, evidence(learned)).outcome == outcome


STATED = TrainingStatement(card=("imagenet",))


@pytest.mark.parametrize(
    ("update", "if_unknown", "outcome", "said"),
    [
        ({}, None, "pass", "none of these examples was in its training data"),
        ({"nearly_seen": None}, None, "pass", "; near-duplicates: not_checked"),
        ({"seen": 2}, None, "fail", "2 of these examples were"),
        ({"nearly_seen": 3}, None, "fail", "3 of these examples have a near-duplicate"),
        ({"seen": 0, "training_data": STATED}, None, "pass", "none of these examples was in its training data"),
        ({"seen": None}, None, "inconclusive", "whether it saw these is unknown"),
        ({"seen": None}, "accept", "inconclusive", "whether it saw these is unknown"),
        (
            {"seen": None, "training_data": STATED}, None, "not_known",
            "is not here (its card names imagenet): nobody knows whether it saw these examples; a person accepts",
        ),
        ({"seen": None, "training_data": TrainingStatement()}, "ask", "not_known", "is not here: nobody knows"),
        ({"seen": None, "training_data": STATED}, "refuse", "fail", "this use case refuses such models"),
        ({"seen": None, "training_data": STATED}, "accept", "pass", "this use case accepts that"),
    ],
)  # fmt: skip
def test_nothing_that_judges_a_model_may_have_taught_it(
    update: dict[str, Any], if_unknown: Any, outcome: str, said: str
) -> None:
    found = gates.judge(Gate(rule="unseen", if_unknown=if_unknown), evidence(row().model_copy(update=update)))
    assert found.outcome == outcome
    assert said in found.reason
    assert found.reason.endswith(said) or outcome != "pass"


# Slices


def gain(value: str, low: float, high: float, **more: Any) -> SliceGain:
    usual = SliceGain(value, 100, (low + high) / 2, low, high, high, 0.02)
    return usual._replace(**more)


def by_site(gate: Gate, *gains: SliceGain) -> Any:
    given = evidence(row())._replace(slices={("accuracy", "site"): gains}, examples=200)
    return gates.judge(gate, given)


SITE = Gate(rule="no_slice_worse", column="site", value=0.25)


@pytest.mark.parametrize(
    ("low", "highest", "outcome"),
    [(-0.2, 0.5, "pass"), (-0.25, 0.5, "inconclusive"), (-0.5, -0.25, "inconclusive"), (-0.5, -0.251, "fail")],
)
def test_a_slice_on_the_margin_is_neither_worse_nor_not(low: float, highest: float, outcome: str) -> None:
    assert by_site(SITE, gain("north", low, 0.5, highest=highest)).outcome == outcome


def test_the_worst_slice_is_the_one_with_the_lowest_end() -> None:
    found = by_site(SITE, gain("a", -0.1, 0.5), gain("b", -0.2, 0.5), gain("c", 0.0, 0.5))
    assert found.outcome == "pass"
    assert found.reason.endswith("worst bound: 'b' 0.15 (-0.2 to 0.5)")


def test_slices_without_an_interval_are_named() -> None:
    nothing = [gain("north", math.nan, math.nan), gain("south" * 20, math.nan, math.nan)]
    found = by_site(SITE, *nothing)
    assert found.outcome == "inconclusive"
    assert found.reason.endswith(f": 'north', {('south' * 20)[:64]!r} gives no interval; ")
    assert by_site(SITE).outcome == "inconclusive"


def test_three_slices_that_are_surely_worse_are_named() -> None:
    found = by_site(SITE, *[gain(f"site {at}" * 10, -0.75, -0.5) for at in range(4)])
    assert found.outcome == "fail"
    named = [f"{(f'site {at}' * 10)[:64]!r} -0.625 (-0.75 to -0.5)" for at in range(3)]
    assert found.reason.endswith(f": {', '.join(named)}")


@pytest.mark.parametrize(("clusters", "units"), [(0, 100), (50, 50)])
def test_a_slice_in_doubt_asks_for_rows_of_all_values(clusters: int, units: int) -> None:
    total = units_needed(units, 0.2, 0.125)
    assert total is not None
    found = by_site(SITE, gain("north", -0.75, 0.5, clusters=clusters, standard_error=0.2))
    assert (found.outcome, found.needed_examples) == ("inconclusive", math.ceil(200 * ((total - units) / units)))


# Verdicts


def test_a_verdict_says_what_would_settle_all_doubts_and_on_what_it_rests() -> None:
    grouped = comparison(0.03, -0.01, 0.07).model_copy(update={"n": 400, "clusters": 40})
    given = evidence(row(value=0.93, interval=(0.85, 0.95)), grouped)._replace(examples=400, clusters=40)
    found = gates.decide([BETTER, Gate(rule="reaches", value=0.9)], given)
    parts = [gates.judge(gate, given) for gate in (BETTER, Gate(rule="reaches", value=0.9))]
    assert found.verdict == "inconclusive"
    assert found.needed_examples == max(part.needed_examples or 0 for part in parts)
    assert found.needed_groups == max(part.needed_groups or 0 for part in parts)
    assert (found.rows, found.groups, found.candidate, found.baseline) == (400, 40, "candidate", "incumbent")


def test_what_a_person_must_accept_is_told_after_doubts_and_before_what_passes() -> None:
    learned = row().model_copy(update={"seen": None, "training_data": STATED})
    asked = [Gate(rule="offline"), Gate(rule="unseen"), BETTER]
    found = gates.decide(asked, evidence(learned, comparison(0.0, -0.1, 0.1)))
    assert [reason[:8] for reason in found.reasons] == ["gain in ", "what it ", "runs wit"]
    assert found.verdict == "inconclusive"
    assert gates.decide(asked[:2], evidence(learned)).verdict == "promote"


PASSED = Decision(verdict="promote", reasons=("fine",), candidate="candidate", baseline="incumbent")


@pytest.mark.parametrize(("low", "verdict"), [(0.001, "promote"), (0.0, "hold"), (None, "hold")])
def test_a_cheaper_model_gives_way_only_to_a_sure_gain(low: float | None, verdict: str) -> None:
    over = None if low is None else comparison(0.1, low, 0.2)
    assert gates.prefer_cheaper(PASSED, evidence(row(usd=9.0)), row("cheap"), over).verdict == verdict


@pytest.mark.parametrize(
    ("interval", "clusters", "same_data", "verdict", "said"),
    [
        ((-0.2, -0.1), 200, True, "hold", "worse than the nearest neighbour"),
        ((-0.2, -0.1), 5, True, "hold", "worse than the nearest neighbour"),
        ((-0.2, -0.1), 4, True, "promote", "not shown to be better than the nearest neighbour"),
        ((-0.2, 0.0), 200, True, "promote", "not shown to be better than the nearest neighbour"),
        ((0.0, 0.2), 200, True, "promote", "not shown to be better than the nearest neighbour"),
        ((-0.2, 0.5), 200, True, "promote", "not shown to be better than the nearest neighbour"),
        ((0.1, 0.2), 200, True, "promote", ": better than the nearest neighbour"),
        ((0.1, 0.2), 200, False, "inconclusive", ": better than the nearest neighbour, which is fitted on other data"),
        ((-0.2, -0.1), 200, False, "hold", "worse than the nearest neighbour"),
        (None, 200, True, "promote", "nothing tells whether it is better"),
    ],
)
def test_a_model_is_held_where_what_costs_nothing_to_train_is_surely_better(
    interval: tuple[float, float] | None, clusters: int, same_data: bool, verdict: str, said: str
) -> None:
    over: Comparison | None = None
    if interval is not None:
        over = comparison(sum(interval) / 2, *interval).model_copy(update={"clusters": clusters})
    given = evidence(row())._replace(examples=200, clusters=200)
    found = gates.beside_free_method(PASSED, given, row("near"), over, same_data=same_data)
    assert found.verdict == verdict
    assert found.gates[-1].gate == Gate(rule="free_method")
    assert said in found.gates[-1].reason
    assert found.rows == 200
    undefined = comparison(0.1, 0.0, 0.2).model_copy(update={"interval": None, "method": "undefined"})
    assert gates.beside_free_method(PASSED, given, row("near"), undefined).verdict == "promote"
    if same_data:
        assert gates.beside_free_method(PASSED, given, row("near"), over) == found


# Rows that judged others before


def on_reused(strict: Comparison, *asked: Gate, shown: bool = False, clusters: int = 200) -> Decision:
    fresh = evidence(row(), comparison(0.05, 0.01, 0.09))._replace(examples=200, clusters=200, shown=shown)
    wide = evidence(row(), strict)._replace(
        level=0.99968, fresh_level=0.95, examples=200, clusters=clusters, shown=shown
    )
    return gates.decide(asked, wide, fresh, LOOKED)


def test_what_points_the_other_way_on_reused_rows_names_no_number() -> None:
    found = on_reused(comparison(-0.01, -0.1, 0.08), BETTER)
    assert (found.verdict, found.needed_examples) == ("inconclusive", None)
    assert "; fresh test rows are needed: add_examples" in found.gates[-1].reason


def test_what_holds_on_reused_rows_is_told_at_its_level() -> None:
    found = on_reused(comparison(0.05, 0.001, 0.1), BETTER)
    assert found.gates[-1].reason.endswith("all that passes also holds at 99.968 % intervals")


def test_too_few_units_on_reused_rows_ask_for_fresh_ones() -> None:
    few = comparison(0.05, 0.001, 0.1).model_copy(update={"clusters": 4})
    found = on_reused(few, BETTER)
    assert found.needed_examples == 16
    assert "at least 16 fresh test rows are needed" in found.reasons[0]


def test_not_worse_in_the_metric_itself_is_asked_once_by_either_name() -> None:
    wide = comparison(0.03, -0.05, 0.11)
    for metric in (None, "accuracy"):
        assert on_reused(wide, Gate(rule="not_worse", metric=metric), shown=True).verdict == "promote"
        assert on_reused(wide, Gate(rule="not_worse", metric=metric)).verdict == "inconclusive"


# Margins and figures


@pytest.mark.parametrize(
    ("had", "low", "outcome"),
    [
        (Value(value=10.0, n=200), -0.49, "pass"),  # five per cent of what the baseline has
        (Value(value=10.0, n=200), -0.51, "inconclusive"),
        (Value(value=-10.0, n=200), -0.49, "pass"),
        (Value(value=None, n=200), -0.019, "pass"),
        (Value(value=None, n=200), -0.021, "inconclusive"),
        (None, -0.019, "pass"),
        (None, -0.021, "inconclusive"),
    ],
)
def test_the_margin_of_an_error_is_a_share_of_the_baselines(had: Value | None, low: float, outcome: str) -> None:
    compared = comparison(0.0, -1.0, -low, "mae")
    baseline = row("incumbent", metric="mae").model_copy(update={"metrics": {"mae": had} if had else {}})
    assert gates.judge(NOT_WORSE, evidence(row(metric="mae"), compared, baseline)).outcome == outcome


def test_costs_that_nobody_knows_are_not_called_higher() -> None:
    compared = comparison(0.0, -0.1, 0.1)
    for mine, theirs in ((None, 1.0), (1.0, None)):
        given = evidence(row(usd=mine), compared, row("incumbent", usd=theirs))
        found = gates.judge(Gate(rule="better_if_dearer"), given)
        assert "since it cannot be shown to cost no more" in found.reason


def test_a_gain_that_is_asked_for_is_named() -> None:
    compared = comparison(0.3, -0.1, 0.5)
    assert (
        "'better than incumbent by 0.25'"
        in gates.judge(Gate(rule="better", value=0.25), evidence(row(), compared)).reason
    )
    assert "'better than incumbent'" in gates.judge(BETTER, evidence(row(), compared)).reason
    assert gates.figure(1000) == "1,000"
