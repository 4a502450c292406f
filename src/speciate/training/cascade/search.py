"""Which training comes next, and when there is enough: pure rules on what the trainings so far have shown.

A way that cannot end in what is left of the budget is skipped, and told; a search ends where a verdict on the test
split is a sure pass, or where no way that is left can reach the target (planning/when_to_stop.py)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speciate.evaluation.candidate_order import evidence_of, fixed_order
from speciate.evaluation.holdout_reuse import level_for
from speciate.evaluation.reports.report import Doubt, ValidationEvidence
from speciate.jobs.kinds import Child, ChildRequest
from speciate.sample_size import LEVEL
from speciate.training.cascade.candidates import (
    TRAIN_STEP,
    SpecializeSpec,
    TrainedCandidate,
    judged_models,
    looks_at_test,
    named_candidates,
    of_named_bases,
    step_name,
    train_spec,
    trained_candidates,
    with_like,
)
from speciate.training.planning import when_to_stop
from speciate.training.planning.published_steps import RACE, race_survivors
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
_LEAST_SHARE_SECONDS = 60.0
"""Trainings at once divide what is left of the budget; none gets less than this for it."""
_BEFORE_THOROUGH = 0.3
"""Share of what is left that one before a thorough search gets, after the first: that tries its like, too."""
_EVALUATION_SHARE, _EVALUATION_MOST = 0.1, 60.0
"""Share of the budget, and most seconds, that trainings leave for the evaluation that follows them."""
_READING_SECONDS = 300.0
"""What a training may take beyond its budget while there is no model yet: reading examples does not count to a budget,
and a limit that passes meanwhile would leave nothing at all."""


def seconds_for_training(spec: SpecializeSpec, children: Sequence[Child]) -> float:
    """What is left of the budget for another training and the evaluation after it, without that evaluation's share."""
    budget = 60 * spec.budget_minutes
    return budget - min(_EVALUATION_SHARE * budget, _EVALUATION_MOST) - sum(child.run_seconds for child in children)


def next_training(spec: SpecializeSpec, children: Sequence[Child]) -> list[ChildRequest]:
    """The cheapest way that was not tried, unless what was found is enough or the budget is spent; with those that run
    beside it, where there is room for several. The first of all is alone: often it is enough."""
    trained, tried = trained_candidates(children), {child.step for child in children}
    left = seconds_for_training(spec, children)
    begun = any(step.startswith(TRAIN_STEP) for step in tried)
    if begun and (left < _LEAST_SECONDS or search_ended(spec, children) in ("sure_pass", "out_of_reach")):
        return []
    left = max(left, _LEAST_SECONDS)
    dataset = trained[0].report["dataset"] if trained else spec.dataset
    wanted = [each for each in untried(spec, children) if not too_slow(spec, each, left)]
    if spec.shortlist and SHORTLIST_STEP not in tried:
        compared = next((place for place, each in enumerate(wanted) if comparable_base_models([each])), len(wanted))
        if compared == 0 and wanted:
            possible = keep_shortlisted(of_named_bases(spec, _possible(spec, children)), shortlist_report(children))
            return [
                shortlist_request(
                    possible, use_case=spec.use_case, dataset=dataset, seed=spec.seed, seconds_left=left,
                    grace=GRACE_SECONDS,
                )
            ]  # fmt: skip
        wanted = wanted[:compared]
    together = _those_at_once(spec, wanted, left) if begun else wanted[:1]
    left /= max(len(together), 1)
    if begun and len(together) == 1 and not together[0].thorough and any(each.thorough for each in wanted):
        left *= _BEFORE_THOROUGH
    level = _level(spec, children, 1)
    return [
        ChildRequest(
            step=step_name(candidate),
            kind="train",
            spec=train_spec(spec, candidate, dataset, left / 60, level).model_dump(
                mode="json", exclude_unset=True, exclude_none=True
            ),
            run_seconds=left + GRACE_SECONDS + (0.0 if trained else _READING_SECONDS),
        )
        for candidate in together
    ]


def _those_at_once(spec: SpecializeSpec, wanted: Sequence[Candidate], left: float) -> Sequence[Candidate]:
    """The first, and as many of those that follow it as run beside it. Each gets its share of the budget that is left,
    which counts the time of all; so there are fewer where a share would be too short. A thorough search is alone: it
    uses all that the others leave, not a share."""
    wanted = [*itertools.takewhile(lambda each: not each.thorough, wanted)] or wanted[:1]
    rooms = [spec.at_once.get(step_name(each), 1) for each in wanted]
    for count in range(min(len(wanted), *rooms[:1], int(left // _LEAST_SHARE_SECONDS)), 1, -1):
        batch = wanted[:count]
        fits = min(rooms[:count]) >= count and not any(too_slow(spec, each, left / count) for each in batch)
        if fits and len({step_name(each) for each in batch}) == count:
            return batch
    return wanted[:1]


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
            "step": step_name(each),
            **each.model_dump(include={"method", "base_model"}),
            **each.model_dump(include={"tabm", "thorough"}, exclude_none=True),
            "why": f"needs about {spec.least_seconds[step_name(each)]:.0f} s at least; "
            f"{max(seconds_left, 0):.0f} s were left",
        }
        for each in ways
        if too_slow(spec, each, seconds_left)
    ]


def will_surely_pass(
    candidate: TrainedCandidate, test_examples: int | None, level: float = LEVEL, luck: float = 0.0
) -> bool:
    """Whether a verdict on so many test examples is a sure pass, by what validation examples say: all of them, as what
    is left after some were taken away is another sample. `luck`: of these examples, as a verdict has shown it."""
    return not candidate.judged_apart and _chance(candidate, test_examples, level, luck) >= when_to_stop.SURE


def _chance(candidate: TrainedCandidate, test_examples: int | None, level: float, luck: float = 0.0) -> float:
    """Probability of a pass; 0 where there is no target, or validation examples left the value undefined."""
    target, measured = candidate.report.get("target"), measured_of(candidate)
    if target is None or measured is None:
        return 0.0
    sign = find_metric(candidate.report["metric"]).sign
    expected = measured._replace(value=measured.value - luck)
    return when_to_stop.probability_of_pass(expected, sign * float(target), test_examples, level)


def _level(spec: SpecializeSpec, children: Sequence[Child], judged: int) -> float:
    """Level of the intervals of the next verdict, on so many own candidates at once; the published models that came
    through their race are judged beside them in the first one."""
    published = race_survivors(children)
    before = len(judged_models(children) & {*published, *(one.model for one in trained_candidates(children))})
    judged += 0 if looks_at_test(children) else len(published)
    return level_for(judged, spec.looks.model_copy(update={"candidates": spec.looks.candidates + before}))


def _luck(children: Sequence[Child]) -> float:
    """By how much validation examples are too kind, as far as a verdict shows it: a candidate that they said would
    pass, and that did not, counts as one that just reaches the target. 0 before a first verdict.

    Nothing else that was measured on test rows has a say in what is tried next (docs/design/training.md).
    """
    judged = judged_models(children)
    beyond = [
        measured.value - find_metric(one.report["metric"]).sign * float(target)
        for one in trained_candidates(children)
        if one.model in judged
        and not one.judged_apart
        and (measured := measured_of(one)) is not None
        and (target := one.report.get("target")) is not None
    ]
    return max([0.0, *beyond])


def to_judge(spec: SpecializeSpec, children: Sequence[Child]) -> list[TrainedCandidate]:
    """Candidates for the next look at the test split. After a first one: those that were not judged and have a chance
    of passing at the level that is left; without any there is no further look.

    Where the best is wanted, the first look is at the first of the order alone. It is judged at the full level then,
    and where it passes nothing else is asked of these rows.
    """
    worth = adequate(trained_candidates(children))
    looks = len(looks_at_test(children))
    if looks == 0 and spec.aim == "best" and not race_survivors(children):
        order = order_candidates(spec, children, [one.model for one in worth])
        return [one for one in worth if one.model == order[0]["model"]][:1] if order else worth
    if looks == 0:
        return worth
    fresh = [one for one in worth if one.model not in judged_models(children)]
    level = _level(spec, children, len(fresh))
    behind_the_first = spec.aim == "best" and looks == 1

    def is_worth_it(one: TrainedCandidate) -> bool:
        if one.report.get("target") is None:
            return behind_the_first
        return _chance(one, spec.test_examples, level) >= when_to_stop.WORTH_A_LOOK

    return [one for one in fresh if is_worth_it(one)]


def order_candidates(spec: SpecializeSpec, children: Sequence[Child], models: Iterable[str]) -> list[dict[str, Any]]:
    """What validation examples say of these models, the first to go forward first; empty where the cheapest that passes
    is wanted. JSON, as the spec of an evaluation holds it."""
    if spec.aim != "best":
        return []
    wanted, candidates = set(models), trained_candidates(children)
    once = {one.model: one for one in reversed(candidates) if one.model in wanted}
    every = [*reversed(once.values())]  # two trainings may end in one version
    nested = any(one.figures.get("nested") for one in every)
    searched = any(one.candidate.thorough for one in every)
    trained = [_evidence(one, nested=nested, searched=searched) for one in every]
    races = [child.result for child in children if child.step == RACE and child.result]
    raced = [evidence_of(row, row["n"], RACE) for race in races for row in race["rows"] if row["model"] in wanted]
    metrics = [*(one.report["metric"] for one in candidates), *(race["metric"] for race in races)]
    if not metrics:
        return []
    return [one.model_dump(mode="json") for one in fixed_order([*raced, *trained], find_metric(metrics[0]))]


def _evidence(candidate: TrainedCandidate, *, nested: bool, searched: bool) -> ValidationEvidence:
    """`nested`: whether the value of some candidate is. `searched`: whether there was a thorough search.

    A thorough search has most learners of the others among its own, and was the better one in seven of eight draws in
    which values put it first in two (evals/LOG.md); so who goes before it must be better by a standard error.
    """
    said = candidate.figures
    doubt: Doubt | None = None
    if candidate.judged_apart:
        doubt = "judged_apart"
    elif searched and not candidate.candidate.thorough:
        doubt = "beside_thorough"
    elif nested and not said.get("nested"):
        doubt = "not_nested"
    return ValidationEvidence(
        model=candidate.model, value=said["value"], standard_error=said["standard_error"], n=said.get("n") or 0,
        how=f"{said['how']}, nested" if said.get("nested") else said["how"], optimistic=doubt is not None, doubt=doubt,
    )  # fmt: skip


_BY_QUALITY = {"reaches", "not_worse", "better", "better_if_dearer", "no_slice_worse", "free_method", "fresh_rows"}
"""Gates that a better model may pass where this one did not."""


def may_go_on(evaluated: Mapping[str, Any]) -> bool:
    """Whether, after this evaluation, another candidate may pass."""
    unmet = set(evaluated.get("unmet") or ())
    return bool(unmet) and unmet <= _BY_QUALITY


def measured_of(candidate: TrainedCandidate) -> when_to_stop.Measured | None:
    """None where validation examples left the value or its spread undefined."""
    said = candidate.figures
    if said["value"] is None or said["standard_error"] is None:
        return None
    sign = find_metric(candidate.report["metric"]).sign
    return when_to_stop.Measured(sign * said["value"], said["standard_error"], said.get("n") or 0)


def search_ended(spec: SpecializeSpec, children: Sequence[Child]) -> when_to_stop.EndReason | None:
    """Why no further training is begun; None while one is. `budget` also where none of those left can end in time."""
    trained, left = trained_candidates(children), seconds_for_training(spec, children)
    judged, luck = judged_models(children), _luck(children)
    level = _level(spec, children, len(to_judge(spec, children)))
    fresh = [one for one in trained if one.model not in judged]
    if spec.aim == "pass" and any(will_surely_pass(one, spec.test_examples, level, luck) for one in fresh):
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
    within that of it or reaches the target; of values on other examples, one standard error of their difference. What
    was judged on fewer than the rest, as it knows some, is not compared: it stays, and nothing falls behind it.
    """
    if not trained:
        return []
    sign = find_metric(trained[0].report["metric"]).sign
    measured = [candidate for candidate in trained if math.isfinite(candidate.value)]
    if not measured:
        return list(trained)
    alike = [candidate for candidate in measured if not candidate.judged_apart]
    best = max(alike or measured, key=lambda candidate: sign * candidate.value)
    target = best.report.get("target")

    def worth(candidate: TrainedCandidate) -> bool:
        near = sign * candidate.value >= sign * best.value - _room(best, candidate)
        return near or candidate.judged_apart or (target is not None and sign * candidate.value >= sign * float(target))

    return [candidate for candidate in measured if worth(candidate) or candidate is best]


def _room(best: TrainedCandidate, other: TrainedCandidate) -> float:
    """By how much a candidate may be worse than the best, and still not surely be it."""
    mine, its = best.figures, other.figures
    same = (mine["how"], mine.get("n")) == (its["how"], its.get("n"))
    return math.hypot(mine["standard_error"] or 0.0, 0.0 if same else its["standard_error"] or 0.0)


def validation_rank(candidate: TrainedCandidate) -> float:
    """The best by validation examples first."""
    return -find_metric(candidate.report["metric"]).sign * candidate.value
