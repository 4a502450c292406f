"""Which training comes next, and when there is enough: pure rules on what the trainings so far have shown.

A way that cannot end in what is left of the budget is skipped, and told; a search ends where a verdict on the test
split is a sure pass, or where no way that is left can reach the target (planning/when_to_stop.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from speciate.jobs.kinds import Child, ChildRequest
from speciate.training.cascade.candidates import (
    TRAIN_STEP,
    SpecializeSpec,
    TrainedCandidate,
    named_candidates,
    of_named_bases,
    step_name,
    train_spec,
    trained_candidates,
    with_like,
)
from speciate.training.planning import when_to_stop
from speciate.training.planning.shortlist import (
    SHORTLIST_STEP,
    comparable_base_models,
    keep_shortlisted,
    shortlist_report,
    shortlist_request,
)
from speciate.training.train_spec import Candidate
from speciate.vocabulary import find_metric

GRACE_SECONDS = 30.0
"""A training ends by itself after the candidate at hand; one that does not is stopped so long after its budget."""
_LEAST_SECONDS = 1.0
"""With less budget left no further method is started."""
_READING_SECONDS = 300.0
"""What a training may take beyond its budget while there is no model yet: reading examples does not count to a budget,
and a limit that passes meanwhile would leave nothing at all."""


def next_training(spec: SpecializeSpec, children: Sequence[Child]) -> list[ChildRequest]:
    """The cheapest way that was not tried, unless what was found is enough or the budget is spent."""
    trained, tried = trained_candidates(children), {child.step for child in children}
    left = 60 * spec.budget_minutes - sum(child.run_seconds for child in children)
    begun = any(step.startswith(TRAIN_STEP) for step in tried)
    if begun and (left < _LEAST_SECONDS or search_ended(spec, children) in ("sure_pass", "out_of_reach")):
        return []
    left = max(left, _LEAST_SECONDS)
    dataset = trained[0].report["dataset"] if trained else spec.dataset
    possible = keep_shortlisted(of_named_bases(spec, _possible(spec, children)), shortlist_report(children))
    for candidate in untried(spec, children):
        if (step := step_name(candidate)) not in tried and not too_slow(spec, candidate, left):
            if spec.shortlist and SHORTLIST_STEP not in tried and comparable_base_models([candidate]):
                return [
                    shortlist_request(
                        possible, use_case=spec.use_case, dataset=dataset, seed=spec.seed, seconds_left=left,
                        grace=GRACE_SECONDS,
                    )
                ]  # fmt: skip
            request = train_spec(spec, candidate, dataset, left / 60)
            return [
                ChildRequest(
                    step=step,
                    kind="train",
                    spec=request.model_dump(mode="json", exclude_unset=True, exclude_none=True),
                    run_seconds=left + GRACE_SECONDS + (0.0 if trained else _READING_SECONDS),
                )
            ]
    return []


def _possible(spec: SpecializeSpec, children: Sequence[Child]) -> Sequence[Candidate]:
    return spec.ways or named_candidates(spec) or _default_candidates(children)


def _default_candidates(children: Sequence[Child]) -> list[Candidate]:
    """Before the first result: what every modality has. Then what that training's plan found to be possible.

    Where that one failed, its plan's finding is lost.
    """
    first, trained = Candidate(method="classical"), trained_candidates(children)
    if trained:
        return [first, *(Candidate.model_validate(candidate) for candidate in trained[0].report["dearer"])]
    return [first]


def untried(spec: SpecializeSpec, children: Sequence[Child]) -> list[Candidate]:
    """Candidates that were not tried, in their order, without those that a shortlist excluded."""
    tried = {child.step for child in children}
    possible = keep_shortlisted(of_named_bases(spec, _possible(spec, children)), shortlist_report(children))
    recipe = [  # it stands for its like
        one.candidate.model_copy(update={"like": None}) for one in trained_candidates(children) if one.candidate.like
    ]
    return [each for each in with_like(spec, possible) if step_name(each) not in tried and each not in recipe]


def too_slow(spec: SpecializeSpec, candidate: Candidate, seconds_left: float) -> bool:
    """Whether it cannot end in what is left. What the caller named is tried all the same: an estimate may be wrong."""
    named = bool(spec.methods or spec.base_models) or candidate.like is not None
    least = spec.least_seconds.get(step_name(candidate))
    return not named and least is not None and least > seconds_left


def skipped_candidates(
    spec: SpecializeSpec, ways: Sequence[Candidate], seconds_left: float
) -> list[Mapping[str, object]]:
    return [
        {
            **each.model_dump(include={"method", "base_model"}),
            "why": f"needs about {spec.least_seconds[step_name(each)]:.0f} s at least; "
            f"{max(seconds_left, 0):.0f} s were left",
        }
        for each in ways
        if too_slow(spec, each, seconds_left)
    ]


def will_surely_pass(candidate: TrainedCandidate, test_examples: int | None) -> bool:
    """Whether a verdict on so many test examples is a sure pass, by what validation examples say: all of them, as what
    is left after some were taken away is another sample."""
    target, measured = candidate.report.get("target"), measured_of(candidate)
    if candidate.judged_apart or target is None or measured is None:
        return False
    sign = find_metric(candidate.report["metric"]).sign
    return when_to_stop.probability_of_pass(measured, sign * float(target), test_examples) >= when_to_stop.SURE


def measured_of(candidate: TrainedCandidate) -> when_to_stop.Measured | None:
    """None where validation examples left the value or its spread undefined."""
    said = candidate.report["validation"]
    if said["value"] is None or said["standard_error"] is None:
        return None
    sign = find_metric(candidate.report["metric"]).sign
    return when_to_stop.Measured(sign * said["value"], said["standard_error"], said.get("n") or 0)


def search_ended(spec: SpecializeSpec, children: Sequence[Child]) -> when_to_stop.EndReason | None:
    """Why no further training is begun; None while one is. `budget` also where none of those left can end in time."""
    trained, left = trained_candidates(children), 60 * spec.budget_minutes - sum(c.run_seconds for c in children)
    if spec.aim == "pass" and any(will_surely_pass(one, spec.test_examples) for one in trained):
        return "sure_pass"
    remaining = untried(spec, children)
    if not remaining:
        return "all_tried"
    if left < _LEAST_SECONDS or all(too_slow(spec, each, left) for each in remaining):
        return "budget"
    compared = [one for one in trained if not one.judged_apart and measured_of(one) is not None]
    target = trained[0].report.get("target") if trained else None
    if spec.aim != "pass" or target is None or not compared or spec.methods:
        return None
    metric = find_metric(trained[0].report["metric"])
    best = max(filter(None, map(measured_of, compared)), key=lambda each: each.value)
    methods = [each.method for each in remaining if each.method]
    bound = metric.high if metric.sign > 0 else 0.0
    given_up = len(methods) == len(remaining) and when_to_stop.is_out_of_reach(
        best, metric.sign * float(target), bound, methods
    )
    return "out_of_reach" if given_up else None


def adequate(trained: Sequence[TrainedCandidate]) -> list[TrainedCandidate]:
    """Candidates worth a look on the test split: not surely below the target, nor surely worse than the best.

    All of them where held-out examples left every value undefined.
    Judged by one standard error on validation examples (Breiman et al. 1984): the best stays, and with it whatever is
    within that of it or reaches the target. What was judged on other examples than the rest is not compared with it:
    it stays, and nothing falls behind it.
    """
    if not trained:
        return []
    sign = find_metric(trained[0].report["metric"]).sign
    measured = [candidate for candidate in trained if math.isfinite(candidate.value)]
    if not measured:
        return list(trained)
    alike = [candidate for candidate in measured if not candidate.judged_apart]
    best = max(alike or measured, key=lambda candidate: sign * candidate.value)
    room = best.report["validation"]["standard_error"] or 0.0
    target = best.report.get("target")

    def worth(candidate: TrainedCandidate) -> bool:
        near = sign * candidate.value >= sign * best.value - room
        return near or candidate.judged_apart or (target is not None and sign * candidate.value >= sign * float(target))

    return [candidate for candidate in measured if worth(candidate) or candidate is best]


def validation_rank(candidate: TrainedCandidate) -> float:
    """The best by validation examples first."""
    return -find_metric(candidate.report["metric"]).sign * candidate.value
