"""What `specialize` tells at its end: the decision, each candidate with its value, why the search ended, what it cost.

Where the budget ended in the evaluation there is no verdict: the best by validation examples is named, and the call
that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from speciate.errors import Call
from speciate.evaluation.endpoints.pricing import OWN_PRICE
from speciate.jobs.kinds import Child, Finished
from speciate.training.cascade.candidates import (
    EVALUATE_STEP,
    PROMOTE_STEP,
    TRAIN_STEP,
    SpecializeSpec,
    TrainedCandidate,
    looks_at_test,
    trained_candidates,
)
from speciate.training.cascade.search import (
    adequate,
    search_ended,
    seconds_for_training,
    skipped_candidates,
    untried,
    validation_rank,
)
from speciate.training.planning import when_to_stop
from speciate.training.planning.published_steps import published_report, race_survivors
from speciate.training.planning.shortlist import (
    shortlist_report,
)


def outcome(
    spec: SpecializeSpec, children: Sequence[Child], evaluated: Mapping[str, Any], promote: Child | None
) -> Mapping[str, object]:
    """`evaluated`: the result of the last evaluation that ended."""
    every = [look.result for look in looks_at_test(children) if look.result is not None]
    rows = {row["model"]: row for each in every for row in each["report"]["leaderboard"]}
    decision = evaluated.get("decision") or _no_decision(evaluated)
    result: dict[str, object] = {
        "decision": decision,
        "evaluation": evaluated["evaluation"],
        "candidates": _candidate_rows(children, rows),
        "spent": _spent(children),
        "promotion": _promotion_state(promote, decision),
        "report": evaluated["report"],
        "failed": [_failure(child) for child in children if child.result is None],
    }
    if earlier := [_earlier_verdict(each) for each in every if each is not evaluated]:
        result["earlier_verdicts"] = earlier
    if (report := shortlist_report(children)) is not None:
        result["shortlist"] = report
    if (published := published_report(children)) is not None:
        result["published"] = published
    chosen, ours = evaluated["report"]["candidate"], {one.model for one in trained_candidates(children)}
    result["ended"] = _ended(spec, children, chosen)
    return result | ({"model": chosen} if chosen in ours | set(race_survivors(children)) else {})


_WHY: dict[when_to_stop.EndReason, str] = {
    "sure_pass": "A passing verdict on the test split was sure by validation examples.",
    "all_tried": "Every method that suits was tried.",
    "budget": "The budget ended, or what was left of it was too short for the methods left.",
    "out_of_reach": "No method that is left could reach the target.",
}
_NAMED_TRIED = "Each candidate that the call named was tried; plan_training lists what else suits."


def _ended(spec: SpecializeSpec, children: Sequence[Child], chosen: str) -> Mapping[str, object]:
    """Why the search ended, what was not tried for that, and what more labels would do for the chosen model; where that
    is not one of ours, for our best by validation examples."""
    before = _before_evaluation(children)
    reason = search_ended(spec, before) or "all_tried"
    left = seconds_for_training(spec, before)
    skipped = skipped_candidates(spec, untried(spec, children), left) if reason == "budget" else []
    trained = trained_candidates(children)
    leading = [one for one in trained if one.model == chosen] or sorted(trained, key=validation_rank)
    curve = leading[0].report.get("learning_curve") if leading else None
    named = bool(spec.methods or spec.base_models)
    return {
        "reason": reason,
        "why": _NAMED_TRIED if reason == "all_tried" and named else _WHY[reason],
        **({"skipped": skipped} if skipped else {}),
        **({"learning_curve": curve} if curve else {}),
    }


def _earlier_verdict(evaluated: Mapping[str, Any]) -> Mapping[str, object]:
    decision = evaluated.get("decision") or _no_decision(evaluated)
    return {
        "evaluation": evaluated["evaluation"],
        "model": evaluated["report"]["candidate"],
        **{key: decision[key] for key in ("verdict", "reasons")},
    }


def _before_evaluation(children: Sequence[Child]) -> list[Child]:
    """The search as it was when it ended: with the evaluations before its last training."""
    last = max((place for place, child in enumerate(children) if child.step.startswith(TRAIN_STEP)), default=-1)
    later = (EVALUATE_STEP, PROMOTE_STEP)
    return [child for place, child in enumerate(children) if place < last or not child.step.startswith(later)]


def without_verdict(spec: SpecializeSpec, children: Sequence[Child], evaluated: Child) -> Mapping[str, object]:
    """Where the budget ended in the evaluation: the best by validation examples, and the call that goes on with the
    answers that are there."""
    trained = trained_candidates(children)
    ours = [one.model for one in sorted(adequate(trained), key=validation_rank)] or race_survivors(children)
    reason = (
        f"The evaluation did not end within what was left of budget_minutes={spec.budget_minutes:g} "
        f"({evaluated.run_seconds:.0f} s): there is no verdict, and no model was promoted"
    )
    asked = ("models", "suite", "dataset", "use_case")
    call = Call("evaluate_models", {key: evaluated.spec[key] for key in asked if key in evaluated.spec})
    return {
        "decision": {
            "id": "",
            "verdict": "inconclusive",
            "reasons": [f"{reason}. {call}"],
            "settle": [call.document()],
        },
        "candidates": _candidate_rows(children, {}),
        "spent": _spent(children),
        "promotion": {"state": "refused", "reasons": [f"{reason}."], "next": [call.document()]},
        "failed": [_failure(child) for child in children if child.result is None],
        "model": ours[0],
        **({"published": published} if (published := published_report(children)) is not None else {}),
    }


def _candidate_rows(children: Sequence[Child], rows: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, object]]:
    """`rows`: of the leaderboard, by model. Two trainings that made the same files made one version."""
    first: dict[str, str] = {}
    return [
        _candidate_row(one, rows.get(one.model), first.setdefault(one.model, one.step))
        for one in trained_candidates(children)
    ]


def _candidate_row(candidate: TrainedCandidate, row: Mapping[str, Any] | None, first: str) -> Mapping[str, object]:
    """With its value on the test split, or, where it was not adequate, on validation examples."""
    validation = candidate.report["validation"]
    return {
        "model": candidate.model,
        "step": candidate.step,
        **({"same_as": first} if first != candidate.step else {}),
        **{"method": None, "base_model": None, **candidate.candidate.model_dump(exclude_none=True)},
        "value": row["value"] if row else validation["value"],
        "interval": row["interval"] if row else validation["interval"],
        "measured_on": "test" if row else validation["how"],
        "seconds": candidate.report["seconds"],
        "usd": candidate.report.get("usd", 0.0),
        **{name: candidate.report[name] for name in ("parts", "ignored_parts") if candidate.report.get(name)},
    }


def _spent(children: Sequence[Child]) -> Mapping[str, object]:
    seconds = round(sum(child.run_seconds for child in children), 3)
    return {"seconds": seconds, "usd": _usd(children), "prices": OWN_PRICE}


def _usd(children: Sequence[Child]) -> float:
    """USD of this machine's time in trainings, and of answers of others; what a failed child cost is not known."""
    trained = sum(candidate.report.get("usd", 0.0) for candidate in trained_candidates(children))
    asked = sum(usd for child in children if child.result for usd in child.result.get("spent_usd", {}).values())
    return round(float(trained + asked), 6)


class DecisionSummary(TypedDict):
    id: str
    verdict: str
    reasons: list[str]


def _no_decision(evaluated: Mapping[str, Any]) -> DecisionSummary:
    """Where no decision is stored: training found the incumbent again, to the byte, or what `evaluate` says."""
    serving = evaluated["report"]["baseline"]
    if evaluated["report"]["candidate"] == serving:
        reason = f"The best that training found is {serving}, which serves already."
        return {"id": "", "verdict": "hold", "reasons": [reason]}
    return {"id": "", "verdict": "inconclusive", "reasons": [f"No decision is made: {evaluated['no_decision']}."]}


def _promotion_state(promote: Child | None, decision: Mapping[str, Any]) -> Mapping[str, object]:
    if promote is None:
        return {"state": "refused", "reasons": [f"The verdict is {decision['verdict']}: what serves today stays."]}
    if promote.result is None:
        return {"state": "refused", "reasons": [_failure(promote)["why"]]}
    return {key: promote.result[key] for key in ("state", "reasons", "approval") if promote.result.get(key)}


def failed(child: Child, what: str) -> Finished:
    why = _failure(child)
    return Finished(error=f"{what}: {why['why']}", recovery=why["recovery"])


def _given_up(child: Child) -> str:
    said = f"{child.step} is {child.state}"
    if not child.reason:
        return said
    early = ", before it had a first model" if child.reason.startswith("timed_out") else ""
    return f"{said}: {child.reason}{early}"


def _failure(child: Child) -> dict[str, str]:
    error = child.error or {}
    return {
        "step": child.step,
        "job": child.id,
        "why": str(error.get("message") or _given_up(child)),
        "recovery": str(error.get("recovery") or f"Call get_job(job={child.id!r})."),
    }
