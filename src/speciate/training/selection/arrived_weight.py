"""The weight of rows that arrived from production, found out of fold by what the winner makes of them."""

from __future__ import annotations

import math
import time

import numpy as np

from speciate.training.held_out import measure
from speciate.training.selection import arrived_rows
from speciate.training.selection.learners import EvaluatedLearner, learn_from, log_losses, signed_standing, singles
from speciate.training.selection.out_of_fold import SHARE_TO_DECIDE, OutOfFold, answer_out_of_fold
from speciate.training.selection.selected_model import CandidateResult, seconds_of
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_metric


def weigh_arrived_rows(
    context: TrainingContext, best: EvaluatedLearner, tried: list[CandidateResult], folds: int, sign: int
) -> EvaluatedLearner:
    """The same learner, maybe at another weight of the arrived rows. After folds its value stays that of before."""
    taken = seconds_of((each.name for each in singles(best)), tried)
    if (weight := _chosen_weight(context, best, folds, sign, taken)) == 1:
        return best
    started = time.monotonic()
    made = best._replace(weight=weight, name=f"{best.name}, arrived rows x {weight:g}")
    if best.fitted is not None:
        fitted = {each.group.name: each.fitted_model.representation for each in singles(best)}
        learned, held = learn_from(context, made, context.train, fitted), context.validation
        scores = learned.estimator.scores(learned.representation.encode(held))
        task_head = made.task_head
        if made.shift is None:  # else the scores are moved, and no temperature was found on such
            task_head = task_head.calibrated(scores, context.targets(held))
        learned.task_head = task_head
        estimate = measure(context, task_head, held, scores)
        made = made._replace(
            fitted=learned, task_head=task_head, scores=scores, estimate=estimate,
            standing=signed_standing(sign, estimate.value),
        )  # fmt: skip
    tried.append(CandidateResult(made.name, time.monotonic() - started, made.estimate.value))
    return made


def _chosen_weight(context: TrainingContext, best: EvaluatedLearner, folds: int, sign: int, seconds: float) -> float:
    """How much rows count that arrived later: found out of fold, by those rows and by the others (arrived_rows.py)."""
    wanted: tuple[float, ...] = getattr(context.payload.parameters, "arrived_weight", (1.0,))
    later = sum(map(arrived_rows.has_arrived, context.train))
    weighs = any(each.learner.weighs for each in singles(best))
    if not later or wanted == (1.0,) or not weighs:
        return 1.0
    if len(wanted) == 1:
        return wanted[0]
    if context.task_head.family not in ("classification", "regression"):
        return 1.0
    if len(wanted) * folds * seconds > SHARE_TO_DECIDE * context.seconds_left:
        context.notes.append(f"{later:,} arrived rows count as the others do: there was no time to compare weights.")
        return 1.0
    tried: list[arrived_rows.Weighed] = []
    for weight in wanted:
        found = answer_out_of_fold(context, best._replace(weight=weight), folds, context.train)
        if found is None:
            return 1.0
        tried.append(_on_both_sides(context, best, weight, found, sign))
    chosen = arrived_rows.choose(tried, find_metric(context.payload.objective.metric))
    context.report["arrived_weight"] = arrived_rows.report(later, tried, chosen, sign)
    return chosen


def _on_both_sides(
    context: TrainingContext, best: EvaluatedLearner, weight: float, found: OutOfFold, sign: int
) -> arrived_rows.Weighed:
    def value(places: list[int]) -> float:
        if len(places) < arrived_rows.FEWEST:
            return math.nan
        judged = [found.held[place] for place in places]
        return sign * float(measure(context, best.task_head, judged, found.scores[places]).value)

    came = [arrived_rows.has_arrived(each) for each in found.held]
    later, others = ([place for place, one in enumerate(came) if one == side] for side in (True, False))
    rows, scores = [found.held[place] for place in later], found.scores[later]
    if context.task_head.family == "classification":
        losses = log_losses(rows, scores, best.task_head, context)
    else:
        losses = np.abs(np.asarray(scores)[:, 0] - context.targets(rows))
    return arrived_rows.Weighed(weight, losses, value(later), value(others))
