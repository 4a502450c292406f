"""A second opinion where few validation examples decide: candidates judged out of fold, on training examples, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.evaluation.statistics import Estimate
from speciate.tasks.joined_representations import Remembered
from speciate.tasks.task import UnsuitableRepresentation
from speciate.training.held_out import measure
from speciate.training.selection.learners import (
    FAMILIES_WITH_FOLDS,
    FEW_EXAMPLES,
    EvaluatedLearner,
    learn_from,
    mean_log_loss,
    signed_standing,
    singles,
)
from speciate.training.training_context import TrainingContext

ON_ALL_FOLDS = "out-of-fold on training and validation"
SHARE_TO_DECIDE = 0.25
"""Part of the time that is left that telling equals apart may take."""


def decide_between(
    context: TrainingContext, near: Sequence[EvaluatedLearner], folds: int, sign: int, seconds: float
) -> EvaluatedLearner | None:
    """Choose between candidates that few validation examples do not tell apart: the best out of fold on training and
    validation examples alike; among equals the one that sees most parts, as it answers where one of them is missing,
    then the one that is surer of what is right.

    Without a validation split they were judged out of fold already. None where that cannot be done, or there is no
    time: then the first of the best stays. `seconds`: what they took on one division.
    """
    if not context.validation:
        return max(near, key=lambda one: (one.standing, one.group.sees))
    if (
        len(context.validation) > FEW_EXAMPLES
        or context.task_head.family not in FAMILIES_WITH_FOLDS
        or folds * seconds > SHARE_TO_DECIDE * context.seconds_left
    ):
        return None
    standings: list[tuple[float, int, float]] = []
    for one in near:
        found = _everywhere(context, one, folds)
        if found is None:
            return None
        standings.append((signed_standing(sign, found.estimate.value), one.group.sees, -found.surprise))
    values = ", ".join(f"{one.name} {sign * value:.3g}" for one, (value, *_) in zip(near, standings, strict=True))
    context.notes.append(
        f"{len(context.validation)} validation examples do not tell {len(near)} candidates apart, so what they are "
        f"worth {ON_ALL_FOLDS} decided: {values}."
    )
    return near[standings.index(max(standings))]


def confirm_target(context: TrainingContext, best: EvaluatedLearner, folds: int, sign: int) -> Estimate | None:
    """Where the winner meets the target on a validation split that is too small to be sure of it: its value on training
    and validation examples alike, out of fold. None where that tells nothing new, or there is no time.

    The learner is settled by then, so nothing is chosen on these examples; a fold learns from a little less.
    """
    target, estimate = context.payload.objective.target, best.estimate
    if (
        target is None
        or not context.validation
        or context.task_head.family not in FAMILIES_WITH_FOLDS
        or not context.seconds_left > 0
    ):
        return None
    low = min(sign * estimate.low, sign * estimate.high)
    if not (sign * estimate.value >= sign * target and low < sign * target):
        return None
    found = _everywhere(context, best, folds)
    return found and found.estimate


class OutOfFold(NamedTuple):
    scores: Any
    held: Sequence[Example]


def answer_out_of_fold(
    context: TrainingContext, one: EvaluatedLearner, folds: int, examples: Sequence[Example]
) -> OutOfFold | None:
    """What it answers to each of these examples where it did not learn from it. None where no fold can be made, or the
    budget ended."""
    scores, held = [], list[Example]()
    common = [each.group for each in singles(one) if each.group.shared]
    try:
        shared = {group.name: Remembered(group.represent(examples), examples) for group in common}
    except UnsuitableRepresentation:
        return None
    for learn, judge in context.folded(examples, folds):
        context.checkpoint()
        if context.over_budget:
            return None
        context.progress(len(held), len(examples), "examples", f"{one.name}: out of fold")
        with context.meter.stage("training"):
            try:
                fresh = {
                    each.group.name: shared.get(each.group.name) or each.group.represent(learn) for each in singles(one)
                }
            except UnsuitableRepresentation:
                return None
            made = learn_from(context, one, learn, fresh)
            scores.append(made.estimator.scores(made.representation.encode(judge)))
        held += judge
    return OutOfFold(np.concatenate(scores), held) if held else None


class _OnAllFolds(NamedTuple):
    estimate: Estimate
    surprise: float
    """Mean log loss, its confidences fitted to these examples; 0 of what does not answer classes."""


def _everywhere(context: TrainingContext, one: EvaluatedLearner, folds: int) -> _OnAllFolds | None:
    """Its value on training and validation examples alike, each judged by what did not learn from it. None also where
    validation examples have a label that training has not seen."""
    examples = [*context.train, *context.validation]
    if one.task_head.family != "regression" and (context.targets(examples) < 0).any():
        return None
    found = answer_out_of_fold(context, one, folds, examples)
    if found is None:
        return None
    estimate = measure(context, one.task_head, found.held, found.scores)
    if one.task_head.family != "classification":
        return _OnAllFolds(estimate, 0.0)
    fitted = one.task_head.calibrated(found.scores, context.targets(found.held))
    return _OnAllFolds(
        estimate, mean_log_loss(one._replace(task_head=fitted, scores=found.scores, held=found.held), context)
    )
