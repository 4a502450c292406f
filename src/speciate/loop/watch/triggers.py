"""Which triggers fire, by what is seen: each with its cause, evidence, expected gain and cost. Pure."""

from __future__ import annotations

import hashlib
import math

from speciate.loop.watch.definition import TriggerKind, Watch
from speciate.loop.watch.facts import Alarm, Cause, Evidence, Memory, WatchFacts

CHECK_MINUTES = 2.0
AGREEMENT = 0.6
"""Krippendorff's alpha below which labels are too noisy to learn from (his own bound is 0.667)."""
DOUBLY = 50
"""Answers that several people labelled, before alpha says anything."""
_EXPECTED, _ERRORS = 0.5, 3.0
"""In `surely_disagree`: the expected disagreement, and how many standard errors alpha must lie below `AGREEMENT`."""
_QUALITY = ("quality", "wrong", "error")
_LIMITS = ("latency", "slow", "failed", "usd", "limit")


def kind_of_signal(name: str) -> TriggerKind:
    """Which trigger a detector of the monitoring job belongs to, by its name."""
    if name.startswith(_QUALITY):
        return "quality_regression"
    return "limit_breach" if name.startswith(_LIMITS) else "data_shift"


def fired(watch: Watch, memory: Memory, seen: WatchFacts) -> tuple[Cause, ...]:
    """All that fire now, whether or not they were dealt with before."""
    found: list[Cause] = []
    minutes = seen.usual_minutes

    def add(
        kind: TriggerKind, text: str, evidence: Evidence, *same: object, gain: float | None = None,
        labels: int = 0, cost: float = minutes,
    ) -> None:  # fmt: skip
        if watch.has(kind):
            found.append(Cause(kind, _fingerprint(kind, *same), text, evidence, gain, cost, labels))

    if seen.recalled is not None:
        add("recall", seen.recalled, {"model": seen.production}, memory.model, seen.recalled)
    if seen.asked > memory.asked:
        add("now", "somebody asked for it", {"asked": seen.asked}, seen.asked, labels=watch.ask)
    for kind in ("quality_regression", "data_shift", "limit_breach"):
        alarms = [each for each in memory.alarms if kind_of_signal(each.signal) == kind]
        if alarms:
            add(
                kind, _ALARMED[kind], _evidence_of(alarms), memory.generation, labels=0 if kind == "limit_breach"
                else watch.ask,
            )  # fmt: skip
    if seen.requirement is not None and seen.requirement.version > memory.requirement > 0:
        version = seen.requirement.version
        if seen.requirement.meets is not True:
            text = f"the use case is version {version} now, and " + (
                "what serves does not meet it" if seen.requirement.meets is False else "whether it is met is not known"
            )
            evidence: Evidence = {"version": version, "failing": list(seen.requirement.failing)}
            known = seen.requirement.meets is False
            add("requirement_change", text, evidence, version, cost=minutes if known else CHECK_MINUTES)
    if seen.provider > memory.provider:
        text = "an endpoint that the use case leans on answers as another model"
        add("provider_change", text, {"event": seen.provider}, seen.provider, cost=CHECK_MINUTES)
    if (
        seen.bases is not None
        and memory.looked_up
        and (fresh := [one for one in seen.bases if one not in memory.bases])
    ):
        add("new_base_model", "base models that suit are there that were not", {"bases": fresh}, *fresh)
    for each in watch.triggers:
        if each.on == "new_labels" and seen.labels_new >= each.labels:
            text = f"at least {each.labels} labelled answers came that no model has learned from"
            add("new_labels", text, {"labels": seen.labels_new}, memory.learned_until)
    if seen.due is not None:
        add("schedule", "its time came", {"due": seen.due}, seen.due)
    if seen.alpha is not None and surely_disagree(seen.alpha, seen.doubly_labelled):
        evidence = {"alpha": round(seen.alpha, 3), "answers": seen.doubly_labelled}
        add("label_disagreement", "those who label do not agree", evidence, "alpha", cost=0.0)
    return tuple(found)


_ALARMED: dict[TriggerKind, str] = {
    "quality_regression": "more answers are wrong than the target allows",
    "data_shift": "what is asked is no longer what was asked",
    "limit_breach": "more requests than allowed are over a limit",
}


def _evidence_of(alarms: list[Alarm]) -> Evidence:
    onsets = [each.onset for each in alarms if each.onset is not None]
    return {
        "signals": sorted(each.signal for each in alarms),
        "log_evidence": round(max(each.log_evidence for each in alarms), 2),
        "window": max(each.window for each in alarms),
        "onset": max(onsets) if onsets else None,
    }


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def surely_disagree(alpha: float, answers: int) -> bool:
    """Whether Krippendorff's alpha of so many answers, each labelled twice, lies below `AGREEMENT` by more than luck.

    alpha is 1 - D / E, of the observed and the expected disagreement; D is a share of `answers`, so its standard error
    is sqrt(D (1 - D) / answers), and alpha's is that over E. E is taken as 1/2, that of two classes as frequent. The
    watch looks again and again, so three standard errors.
    """
    if answers < DOUBLY:
        return False
    observed = min(1.0, (1 - alpha) * _EXPECTED)
    error = math.sqrt(observed * (1 - observed) / answers) / _EXPECTED
    return alpha + _ERRORS * error < AGREEMENT
