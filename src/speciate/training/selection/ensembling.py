"""Which of the candidates that were tried answer better together: greedy ensemble selection on held-out scores.

Candidates cost their training anyway, so a mean of them costs nothing more to find. It is chosen by a proper loss (log
loss, squared or absolute error), which few examples measure better than they do an accuracy; the objective's metric
then decides whether the mean is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.blend import MEMBER_FORMS, Averaged, answers_of, as_scores, choose_members
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.several_representations import can_be_kept
from speciate.tasks.task import TaskHead, predict_examples
from speciate.training.held_out import measure, scores_of
from speciate.training.selection.learners import (
    FEW_EXAMPLES,
    EvaluatedLearner,
    WeightedMember,
    blend_members,
    find_shift_for_metric,
    signed_standing,
)
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import Family, find_metric, is_absolute

_AVERAGED: dict[Family, Averaged] = {"classification": "classes", "multi-label": "labels", "regression": "numbers"}
_LEAST_HELD = 30
"""Held-out examples below which a choice of weights is a draw."""
_MOST_MEMBERS = 4
"""Members at most: each is asked in production."""
_LEAST_GAIN = 0.01
"""Share of the best candidate's loss."""


class HeldScores(NamedTuple):
    """What a candidate said of the held-out examples, which are the same for all."""

    scores: Any  # (N, K)
    task_head: TaskHead
    estimator: Any


class ChosenMembers(NamedTuple):
    weights: dict[int, float]
    """Place of the candidate -> its weight."""
    temperatures: dict[int, float]
    scores: npt.NDArray[np.float64]
    """Scores of the mean, on the held-out examples."""
    averaged: Averaged
    loss: float
    loss_of_best: float
    """Loss of the candidate that is the best by itself."""

    @property
    def is_surer(self) -> bool:
        """Whether the loss falls by enough to prefer the mean where the metric sees no difference."""
        return self.loss < (1 - _LEAST_GAIN) * self.loss_of_best


def select_members(
    candidates: Sequence[HeldScores], targets: Any, best: int, metric: str, together: Sequence[int] = ()
) -> ChosenMembers | None:
    """None where the task has no mean, there are too few examples, or no other member helps the best one.

    `targets`: of the held-out examples, as the task head encodes them. `best`: the place of the best candidate.
    `together`: places of the members, each with the same weight, where they are settled.
    """
    family = candidates[best].task_head.family
    averaged = _AVERAGED.get(family)
    if averaged is None or len(targets) < _LEAST_HELD:
        return None
    usable = [place for place, each in enumerate(candidates) if type(each.estimator) in MEMBER_FORMS.values()]
    if best not in usable or len(usable) < 2:
        return None
    temperatures = {place: float(getattr(candidates[place].task_head, "temperature", 1.0)) for place in usable}
    answers = [answers_of(candidates[place].scores, averaged, temperatures[place]) for place in usable]

    def loss(mean: npt.NDArray[np.float64]) -> float:
        return _loss(mean, targets, averaged, absolute=is_absolute(metric))

    own = [usable.index(place) for place in together or ()]
    found = choose_members(answers, loss, _MOST_MEMBERS) if not own else {place: 1 / len(own) for place in own}
    if len(found) < 2:
        return None
    mean = sum(weight * answers[place] for place, weight in found.items())
    weights = {usable[place]: weight for place, weight in found.items()}
    return ChosenMembers(
        weights, temperatures, as_scores(np.asarray(mean), averaged), averaged, loss(np.asarray(mean)),
        loss(answers[usable.index(best)]),
    )  # fmt: skip


def _loss(mean: npt.NDArray[np.float64], targets: Any, averaged: Averaged, *, absolute: bool) -> float:
    if averaged == "numbers":
        errors = np.abs(mean[:, 0] - np.asarray(targets))
        return float((errors if absolute else errors**2).mean())
    if averaged == "labels":
        kept, wanted = np.clip(mean, 1e-12, 1 - 1e-12), np.asarray(targets)
        return float(-(wanted * np.log(kept) + (1 - wanted) * np.log(1 - kept)).mean())
    rows = np.flatnonzero(np.asarray(targets) >= 0)
    return float(-np.log(mean[rows, np.asarray(targets)[rows]] + 1e-12).mean()) if len(rows) else np.inf


def mean_of_several(
    context: TrainingContext, tried: Sequence[EvaluatedLearner], best: EvaluatedLearner, sign: int
) -> EvaluatedLearner | None:
    """None unless it is better than the best candidate by the metric, or as good and surer by its probabilities."""
    kept = [one for one in tried if can_be_kept(one.representation)]
    found = _members(context, kept, best)
    if found is None:
        return None
    mean = _as_mean(context, kept, found, best, sign)
    perfect = _is_share(context) and sign > 0 and best.estimate.value >= 1
    surer = mean.standing == best.standing and found.is_surer and not perfect
    return mean if mean.standing > best.standing or surer else None


def usual_mean(
    context: TrainingContext, tried: Sequence[EvaluatedLearner], best: EvaluatedLearner, sign: int
) -> EvaluatedLearner | None:
    """The mean of the usual groups, unless the best is surely better: few examples tell many candidates apart by luck.
    With many of them, or where a usual one is always right, the best stands."""
    few = len({example.id for example in best.held}) <= FEW_EXAMPLES
    if not few or (best.group.usual and not best.members and sign > 0 and best.estimate.value >= 1):
        return None
    usual: dict[str, EvaluatedLearner] = {}
    for one in tried:
        if one.group.usual and can_be_kept(one.representation):
            leader = usual.get(one.group.name)
            usual[one.group.name] = one if leader is None or one.standing > leader.standing else leader
    kept = list(usual.values())
    found = _members(context, kept, kept[0], range(len(kept))) if len(kept) > 1 else None
    if found is None or {id(each.of) for each in best.members} == set(map(id, kept)):
        return None
    mean = _as_mean(context, kept, found, kept[0], sign)
    return None if _is_surely_better(context, best, mean, sign) else mean


_SURELY = 2.0
"""Standard errors of a difference."""


def _is_surely_better(context: TrainingContext, one: EvaluatedLearner, other: EvaluatedLearner, sign: int) -> bool:
    """By the differences on the same examples, of which each counts once however often folds were made; where the
    metric has no value of an example, by the error of its value."""
    gain, places = one.standing - other.standing, dict[str, list[int]]()
    first, second = (np.asarray(_values(context, each), np.float64) for each in (one, other))
    if not (len(first) and np.isfinite(first).all() and np.isfinite(second).all()):
        error = one.estimate.standard_error
    else:
        for place, example in enumerate(one.held):
            places.setdefault(example.group or example.id, []).append(place)
        means = np.array([sign * (first[rows] - second[rows]).mean() for rows in places.values()])
        gain = float(means.mean())
        error = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.inf
    return gain > (_SURELY * error if math.isfinite(error) else math.inf)


def _values(context: TrainingContext, one: EvaluatedLearner) -> list[float]:
    scores = one.scores if one.shift is None else one.scores + one.shift
    return scores_of(context, one.task_head, one.held, predict_examples(one.task_head, scores, one.held))


def _is_share(context: TrainingContext) -> bool:
    return find_metric(context.payload.objective.metric).is_share


def _members(
    context: TrainingContext, kept: Sequence[EvaluatedLearner], best: EvaluatedLearner, together: Sequence[int] = ()
) -> ChosenMembers | None:
    names = [one.name for one in kept]
    if best.name not in names:
        return None
    held = [HeldScores(one.scores, one.task_head, one.estimator) for one in kept]
    metric = context.payload.objective.metric
    return select_members(held, context.targets(best.held), names.index(best.name), metric, together)


def _as_mean(
    context: TrainingContext,
    kept: Sequence[EvaluatedLearner],
    found: ChosenMembers,
    best: EvaluatedLearner,
    sign: int,
) -> EvaluatedLearner:
    """`best`: a member, or what was the best by itself."""
    held = best.held
    task_head = context.task_head.calibrated(found.scores, context.targets(held))
    shift = find_shift_for_metric(context, found.scores, held)
    estimate = measure(context, task_head, held, found.scores if shift is None else found.scores + shift.unseen)
    members = tuple(
        WeightedMember(kept[place], weight, found.temperatures[place]) for place, weight in found.weights.items()
    )
    mean = best._replace(
        name=f"mean of {' and '.join(f'{each.weight:.2g} {each.of.name}' for each in members)}", members=members,
        averaged=found.averaged, scores=found.scores, task_head=task_head, estimate=estimate,
        standing=signed_standing(sign, estimate.value), shift=None if shift is None else shift.by,
    )  # fmt: skip
    if best.fitted is None:
        return mean
    made = [
        TrainedPredictor(
            context.payload.task, each.of.fitted_model.representation, each.of.estimator, each.of.task_head
        )
        for each in members
    ]
    return mean._replace(fitted=blend_members(context, mean, made))
