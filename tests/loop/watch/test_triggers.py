"""When each trigger fires and with what, from what is seen alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from speciate.loop.watch.definition import Trigger, TriggerKind, Watch
from speciate.loop.watch.facts import Alarm, Cause, Memory, Requirement, WatchFacts
from speciate.loop.watch.triggers import DOUBLY, fired, kind_of_signal, surely_disagree

MINUTES, ASK = 7.0, 100
EVERY: tuple[TriggerKind, ...] = (
    "now", "data_shift", "quality_regression", "limit_breach", "requirement_change", "new_base_model",
    "provider_change", "label_disagreement", "recall", "schedule",
)  # fmt: skip
WATCH = Watch(
    use_case="triage",
    triggers=(
        *(Trigger(on=kind, cron="0 3 * * 1") if kind == "schedule" else Trigger(on=kind) for kind in EVERY),
        Trigger(on="new_labels", n=30),
    ),
)
MEMORY = Memory(
    model="m@v1", generation=4, requirement=2, provider=5, asked=10.0, learned_until=50.0, bases=("a",), looked_up=True
)
FACTS = WatchFacts(
    production="m@v1", generation=4, usual_minutes=MINUTES, requirement=Requirement(2, None), asked=10.0, provider=5,
    bases=("a",), labels_new=29, alpha=0.9, doubly_labelled=10**6,
)  # fmt: skip


def alarm(signal: str, onset: float | None = None, log_evidence: float = 4.0, window: int = 1) -> Alarm:
    return Alarm(signal=signal, onset=onset, log_evidence=log_evidence, window=window)


def causes(remembered: dict[str, Any], seen: dict[str, Any]) -> tuple[Cause, ...]:
    return fired(WATCH, MEMORY.model_copy(update=remembered), replace(FACTS, **seen))


def test_nothing_fires_where_nothing_is_new() -> None:
    assert fired(WATCH, MEMORY, FACTS) == ()


REQUIREMENT = Requirement(3, meets=False, failing=("latency",))
FIRING: dict[str, tuple[dict[str, Any], dict[str, Any], TriggerKind, dict[str, Any], float, int]] = {
    "recall": ({}, {"recalled": "a licence"}, "recall", {"model": "m@v1"}, MINUTES, 0),
    "asked": ({}, {"asked": 11.0}, "now", {"asked": 11.0}, MINUTES, ASK),
    "fails": (
        {}, {"requirement": REQUIREMENT}, "requirement_change", {"version": 3, "failing": ["latency"]}, MINUTES, 0,
    ),
    "unknown": (
        {}, {"requirement": Requirement(3, None)}, "requirement_change", {"version": 3, "failing": []}, 2.0, 0,
    ),
    "provider": ({}, {"provider": 6}, "provider_change", {"event": 6}, 2.0, 0),
    "bases": ({}, {"bases": ("a", "c", "b")}, "new_base_model", {"bases": ["c", "b"]}, MINUTES, 0),
    "labels": ({}, {"labels_new": 30}, "new_labels", {"labels": 30}, MINUTES, 0),
    "due": ({}, {"due": 99.0}, "schedule", {"due": 99.0}, MINUTES, 0),
    "alpha": (
        {}, {"alpha": 0.12345, "doubly_labelled": 400}, "label_disagreement", {"alpha": 0.123, "answers": 400}, 0.0, 0,
    ),
    "shift": (
        {"alarms": (alarm("inputs", 3.0, 4.0, 9), alarm("confidence", 8.0, 5.126, 2), alarm("words", None, 1.0, 3))},
        {}, "data_shift",
        {"signals": ["confidence", "inputs", "words"], "log_evidence": 5.13, "window": 9, "onset": 8.0}, MINUTES, ASK,
    ),
    "quality": (
        {"alarms": (alarm("quality"),)}, {}, "quality_regression",
        {"signals": ["quality"], "log_evidence": 4.0, "window": 1, "onset": None}, MINUTES, ASK,
    ),
    "limit": (
        {"alarms": (alarm("latency", 0.0),)}, {}, "limit_breach",
        {"signals": ["latency"], "log_evidence": 4.0, "window": 1, "onset": 0.0}, MINUTES, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FIRING)
def test_a_trigger_fires_with_its_evidence_its_cost_and_the_labels_that_it_asks_for(case: str) -> None:
    remembered, seen, kind, evidence, minutes, labels = FIRING[case]
    [cause] = causes(remembered, seen)
    assert (cause.kind, cause.evidence, cause.minutes, cause.labels) == (kind, evidence, minutes, labels)
    assert cause.gain is None
    assert cause.text
    others = WATCH.model_copy(update={"triggers": tuple(each for each in WATCH.triggers if each.on != kind)})
    assert fired(others, MEMORY.model_copy(update=remembered), replace(FACTS, **seen)) == (), "nobody watches for it"


@pytest.mark.parametrize(
    ("remembered", "seen"),
    [
        ({}, {"asked": 10.0}),
        ({"requirement": 0}, {"requirement": Requirement(3, meets=False)}),  # the first look
        ({"requirement": -1}, {"requirement": Requirement(3, meets=False)}),
        ({}, {"requirement": Requirement(3, meets=True)}),
        ({"requirement": 3}, {"requirement": Requirement(3, meets=False)}),
        ({}, {"requirement": None}),
        ({}, {"provider": 5}),
        ({}, {"bases": None}),
        ({"looked_up": False}, {"bases": ("b",)}),
        ({"bases": ("a", "b")}, {"bases": ("a",)}),
        ({}, {"labels_new": 29}),
        ({}, {"alpha": None}),
        ({}, {"alpha": 0.6}),
    ],
)
def test_what_was_dealt_with_or_is_not_known_fires_nothing(remembered: dict[str, Any], seen: dict[str, Any]) -> None:
    assert causes(remembered, seen) == ()


@pytest.mark.parametrize(
    ("case", "remembered", "seen", "same"),
    [
        ("recall", {}, {}, True),
        ("recall", {"model": "m@v2"}, {}, False),
        ("recall", {}, {"recalled": "a purge"}, False),
        ("asked", {}, {"asked": 12.0}, False),
        ("fails", {}, {"requirement": Requirement(4, meets=False)}, False),
        ("fails", {}, {"requirement": Requirement(3, None)}, True),
        ("fails", {"requirement": 1}, {}, True),
        ("provider", {}, {"provider": 7}, False),
        ("bases", {}, {"bases": ("a", "c")}, False),
        ("labels", {}, {"labels_new": 31}, True),
        ("labels", {"learned_until": 60.0}, {}, False),
        ("due", {}, {"due": 100.0}, False),
        ("alpha", {}, {"alpha": 0.2}, True),
        ("shift", {"alarms": (alarm("inputs"),)}, {}, True),
        ("shift", {"generation": 5}, {}, False),
        ("quality", {"generation": 5}, {}, False),
        ("limit", {"generation": 5}, {}, False),
    ],
)
def test_a_cause_is_the_same_until_what_makes_it_changes(
    case: str, remembered: dict[str, Any], seen: dict[str, Any], same: bool
) -> None:
    first, again = FIRING[case][:2], (FIRING[case][0] | remembered, FIRING[case][1] | seen)
    [one], [other] = causes(*first), causes(*again)
    assert (one.fingerprint == other.fingerprint) == same


def test_no_two_kinds_of_cause_are_the_same_cause() -> None:
    found = [cause.fingerprint for case in FIRING for cause in causes(*FIRING[case][:2]) if case != "unknown"]
    assert len(set(found)) == len(found) == len(FIRING) - 1
    assert {len(each) for each in found} == {12}


def test_fingerprints_of_before_stay() -> None:
    """They are stored, with when their cause may fire again."""
    assert [causes(*FIRING[case][:2])[0].fingerprint for case in ("alpha", "asked")] == ["b42fdc05bc4f", "55c170fd25c3"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("quality_regression", ["quality", "quality_of_dogs", "wrong", "wrong_answers", "errors"]),
        ("limit_breach", ["latency", "slow", "failed", "usd", "usd_per_1k", "limit_p95"]),
        ("data_shift", ["inputs", "confidence", "no_quality", "the_latency", "Latency"]),
    ],
)
def test_a_detector_belongs_to_a_trigger_by_how_its_name_begins(kind: str, names: list[str]) -> None:
    assert {kind_of_signal(name) for name in names} == {kind}


@pytest.mark.parametrize(
    ("alpha", "answers", "fires"),
    [
        # 3 sqrt(D (1 - D) / n) / 0.5, of D = (1 - alpha) / 2, against 0.6 - alpha
        (0.5, 674, False), (0.5, 677, True),  # 3 sqrt(.25 .75 / n) / .5 = .1 at 675
        (0.2, 53, False), (0.2, 55, True),  # 3 sqrt(.4 .6 / n) / .5 = .4 at 54
        (0.59, 10_000, False), (0.6, 10**9, False), (0.7, 10**9, False), (1.0, 10**9, False),
        (-1.0, 50, True), (-3.0, 50, True),
        (-1.0, DOUBLY - 1, False), (-1.0, DOUBLY, True),
    ],
)  # fmt: skip
def test_labels_disagree_only_where_it_is_no_luck(alpha: float, answers: int, fires: bool) -> None:
    assert surely_disagree(alpha, answers) == fires
