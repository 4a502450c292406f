"""Which candidate a training keeps: the best on examples that none of them has learned from, with its interval.

The winner's value is slightly optimistic, as the best of several; the test split decides, and it is not touched here.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from speciate.errors import CallAgain, Code, SpeciateError
from speciate.models.estimators import Estimator
from speciate.tasks.joined_representations import Remembered
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.task import Representation, UnsuitableRepresentation
from speciate.training.held_out import TIGHTNESS_NOTE, measure, tightness
from speciate.training.selection import decision_shift
from speciate.training.selection.arrived_weight import weigh_arrived_rows
from speciate.training.selection.ensembling import mean_of_several, usual_mean
from speciate.training.selection.lanes import NO_LANES, Lanes, Turn
from speciate.training.selection.learners import (
    FAMILIES_WITH_FOLDS,
    FEW_EXAMPLES,
    EvaluatedLearner,
    Learner,
    LearnerGroup,
    StoppedByHeld,
    find_shift_for_metric,
    has_many_numbers,
    learn_from,
    limit_threads,
    mean_log_loss,
    member_rows,
    parts_to_stop,
    signed_standing,
    singles,
)
from speciate.training.selection.learning_curve import note_learning_curve
from speciate.training.selection.nested_value import nested_estimate
from speciate.training.selection.out_of_fold import ON_ALL_FOLDS, confirm_target, decide_between
from speciate.training.selection.selected_model import CandidateResult, SelectedModel, seconds_of
from speciate.training.training_context import NOT_REFITTED, REFIT_NOTE, Division, TrainingContext
from speciate.vocabulary import find_metric

_log = logging.getLogger(__name__)
_OVER_BUDGET = "the budget had ended"


def select_best(
    context: TrainingContext,
    groups: Sequence[LearnerGroup],
    folds: int,
    *,
    ensemble: bool = False,
    refit: bool = True,
    lanes: Lanes = NO_LANES,
) -> SelectedModel:
    """Try every learner on every representation until the budget ends, and keep the best.

    `ensemble`: or a weighted mean of several, where that is better on the same held-out examples. `refit`: the winner
    learns once more, from the held-out examples, too; not where they judge what a further training forgets. `lanes`:
    candidates learn there before their turn, and the next group's examples are prepared; what comes of it is the same.

    Groups and learners are listed from cheap to expensive, and among equals the earlier one wins, if `decide_between`
    does not tell them apart: few validation examples do not decide alone between equals, nor between groups that see
    different parts of mixed rows. Raises INVALID where none can be tried.
    """
    asked = getattr(context.payload.parameters, "refit", None)
    sign = find_metric(context.payload.objective.metric).sign
    total = sum(len(group.learners) for group in groups)
    best, near, tried, every = _try_each(context, groups, folds, sign, total, lanes, ensemble=ensemble)
    taken = seconds_of((each.name for each in near), tried)
    decided = decide_between(context, near, folds, sign, taken) if len(near) > 1 else None
    best = decided or best
    for mean in (mean_of_several, usual_mean) if len(every) > 1 else ():
        started = time.monotonic()
        if context.seconds_left > 0 and (found := mean(context, every, best, sign)) is not None:
            best = found
            tried.append(CandidateResult(best.name, time.monotonic() - started, best.estimate.value))
    best = weigh_arrived_rows(context, best, tried, folds, sign) if refit else best
    nested = None
    if len(every) > 1 and context.payload.objective.aim == "best" and context.payload.manifest.modality == "tabular":
        nested = nested_estimate(context, every, sign, partial(_chosen_of, context, sign))
    context.progress(total, total, "candidates", f"{best.name} is the best")
    once_more = refit and asked is not False
    finished = _finish(context, best, tried, folds, sign, compared=decided is not None, refit=once_more)
    if asked and context.validation and not context.learned_validation:
        context.notes.append(NOT_REFITTED)
    return finished if finished.best is not best.estimate else finished._replace(nested=nested)


def _chosen_of(context: TrainingContext, sign: int, every: Sequence[EvaluatedLearner]) -> EvaluatedLearner:
    """As `select_best` chooses, on what these say."""
    best = every[0]
    for one in every[1:]:
        best = one if _is_better(one, best, context) else best
    for mean in (mean_of_several, usual_mean):
        best = mean(context, every, best, sign) or best
    return best


class _Tried(NamedTuple):
    best: EvaluatedLearner
    near: list[EvaluatedLearner]
    """Those that it is not told apart from."""
    rows: list[CandidateResult]
    every: list[EvaluatedLearner]
    """Those that a mean may have; none without `ensemble`."""


def _try_each(
    context: TrainingContext, groups: Sequence[LearnerGroup], folds: int, sign: int, total: int, lanes: Lanes,
    *, ensemble: bool,
) -> _Tried:  # fmt: skip
    """Until the budget ends. INVALID where none can be tried."""
    best: EvaluatedLearner | None = None
    near, of_parts = list[EvaluatedLearner](), any(group.sees > 1 for group in groups)
    tried: list[CandidateResult] = []
    every: list[EvaluatedLearner] = []

    def late() -> bool:
        return best is not None and context.over_budget

    preparing = deque(lanes.turn(partial(_prepare, context, group, folds, late)) for group in groups)
    for group in groups:
        prepared = preparing.popleft()
        if late() and prepared.drop():  # not even prepared for
            tried += [CandidateResult(f"{group.name}: {each.name}", 0.0, None, _OVER_BUDGET) for each in group.learners]
            continue
        context.progress(len(tried), total, "candidates", f"{group.name}: preparing examples")
        try:
            with context.meter.stage("preparing"):
                parts, whole = prepared.result()
        except (UnsuitableRepresentation, _NotTried) as error:
            tried += [
                CandidateResult(f"{group.name}: {learner.name}", 0.0, None, str(error)) for learner in group.learners
            ]
            _log.info("%s: not tried: %s", group.name, error)
            continue
        learning = _learn_ahead(context, group, parts, lanes, late)
        if preparing and not context.over_budget:
            preparing[0].begin()
        for learner, learned in zip(group.learners, learning, strict=True):
            context.checkpoint()
            name = f"{group.name}: {learner.name}"
            context.progress(len(tried), total, "candidates", name)  # which may write the best so far
            started = time.monotonic()
            try:
                if reason := _OVER_BUDGET if late() else _refusal(learner, parts, context):
                    learned.drop()
                    raise _NotTried(reason)
                with context.meter.stage("training"):
                    fits = learned.result()
                    judged = time.monotonic()
                    evaluated = _evaluate_learner(context, name, group, whole, learner, parts, fits, sign)
            except _NotTried as error:
                tried.append(CandidateResult(name, time.monotonic() - started, None, str(error)))
                _log.info("%s: not tried: %s", name, error)
                continue
            seconds, value = fits.seconds + time.monotonic() - judged, evaluated.estimate.value
            tried.append(CandidateResult(name, seconds, value))
            _log.info("%s: %s %.4g, %.2f s", name, context.payload.objective.metric, value, seconds)
            if best is None or _is_better(evaluated, best, context):
                best = evaluated
                context.offer_best(partial(_so_far, context, best, parts, tried))
            near = _near_best([*near, evaluated], best) if of_parts else _equals([*near, evaluated], best)
            every += [evaluated] if ensemble else []
    if best is None:
        raise SpeciateError(
            Code.INVALID,
            f"No candidate could be tried: {_describe_refusals(tried)}.",
            "Or on fewer or other examples.",
            next=[CallAgain("train_model", {"hyperparameters": {"candidates": None}})],
        )
    return _Tried(best, near, tried, every)


_SURER = 0.02
"""Log loss."""


def _is_better(one: EvaluatedLearner, best: EvaluatedLearner, context: TrainingContext) -> bool:
    """By the metric; of equal ones on few examples the surer one: there many candidates are right everywhere."""
    if one.standing != best.standing:
        return one.standing > best.standing
    if one.task_head.family != "classification" or len(one.held) > FEW_EXAMPLES:
        return False
    return mean_log_loss(one, context) < mean_log_loss(best, context) - _SURER


def _finish(
    context: TrainingContext,
    best: EvaluatedLearner,
    tried: Sequence[CandidateResult],
    folds: int,
    sign: int,
    *,
    compared: bool,
    refit: bool,
) -> SelectedModel:
    """What the winner is worth and what it becomes. `compared`: out of fold already."""

    def tell(step: str) -> None:
        context.progress(len(tried), len(tried), "candidates", f"{best.name} is the best: {step}")

    with context.meter.stage("training"):
        final = best.fitted or _fit_whole(context, best)
    marked = tuple(one._replace(chosen=one.name == best.name) for one in tried)
    members = member_rows(best)
    context.offer_best(partial(SelectedModel, final, best.estimate, context.how, marked, members=members))
    surer = None if compared else confirm_target(context, best, folds, sign)
    note_learning_curve(context, best, sign, tell)
    taken = seconds_of((each.name for each in singles(best)), tried)
    final = (_refitted(context, best, taken, tell) if refit else None) or final
    how = ON_ALL_FOLDS if surer else context.how
    return SelectedModel(final, surer or best.estimate, how, marked, members=members)


_REFIT_TIMES = 3
"""Times what the winner took that must be left, for it to learn once more from all examples."""


def _refitted(
    context: TrainingContext, best: EvaluatedLearner, seconds: float, tell: Callable[[str], None]
) -> TrainedPredictor | None:
    """The winner, learned from training and validation examples together; temperature and thresholds stay as they were
    found on examples that it had not learned from. None where that cannot be done, or there is no time."""
    if (
        not context.validation
        or context.task_head.family not in FAMILIES_WITH_FOLDS
        or context.seconds_left < _REFIT_TIMES * seconds
    ):
        return None
    context.checkpoint()
    everything = [*context.train, *context.validation]
    if (context.targets(everything) < 0).any() and context.task_head.family != "regression":
        return None  # a label that training has not seen
    tell(f"learns from all {len(everything):,} examples")
    with context.meter.stage("training"):
        try:
            fresh = {each.group.name: each.group.represent(everything) for each in singles(best)}
        except UnsuitableRepresentation:
            return None
        made = learn_from(context, best, everything, fresh, as_found=True)
    context.notes.append(REFIT_NOTE)
    context.learned_validation = True
    return made


def _so_far(
    context: TrainingContext,
    best: EvaluatedLearner,
    parts: Sequence[Division],
    tried: Sequence[CandidateResult],
) -> SelectedModel:
    """What this learner is now; after folds, what it learned from the first of them."""
    made = best.fitted
    if made is None:
        shift = best.shift
        estimator = best.estimator if shift is None else decision_shift.shifted(best.estimator, shift)
        made = TrainedPredictor(context.payload.task, parts[0].representation, estimator, best.task_head)
    marked = tuple(one._replace(chosen=one.name == best.name) for one in tried)
    return SelectedModel(made, best.estimate, context.how, marked, members=member_rows(best))


def _near_best(tried: Sequence[EvaluatedLearner], best: EvaluatedLearner) -> list[EvaluatedLearner]:
    """The best of each group, where it is within one standard error of the best of all (Breiman et al. 1984). Only
    these are kept in memory."""
    error = best.estimate.standard_error
    least = best.standing - (error if math.isfinite(error) else 0.0)
    first: dict[str, EvaluatedLearner] = {}
    for one in tried:
        leader = first.get(one.group.name)
        if one.standing >= least and (leader is None or one.standing > leader.standing):
            first[one.group.name] = one
    return list(first.values())


def _equals(tried: Sequence[EvaluatedLearner], best: EvaluatedLearner) -> list[EvaluatedLearner]:
    """Those that are as good as the best by the metric, the best first."""
    return [best, *(one for one in tried if one.standing == best.standing and one is not best)]


def _describe_refusals(tried: Sequence[CandidateResult]) -> str:
    named: dict[str, list[str]] = {}
    for one in tried:
        named.setdefault(one.reason, []).append(one.name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in named.items())


def _refusal(learner: Learner, parts: Sequence[Division], context: TrainingContext) -> str | None:
    rows, columns = parts[0].inputs.shape
    return learner.refuse(rows, columns, len(context.task_head.labels) or 1)


class _NotTried(Exception):
    """Why a candidate was not tried, or not to its end."""


def _prepare(
    context: TrainingContext, group: LearnerGroup, folds: int, late: Callable[[], bool]
) -> tuple[list[Division], Representation | None]:
    """The parts to be judged by and, where those are folds, what the winner would learn the whole from.

    Raises UnsuitableRepresentation of either: what fits each fold need not fit the whole; and _NotTried where it is
    `late`.
    """
    whole = None if context.validation else group.represent(context.train)
    if whole is not None and group.shared:
        whole = Remembered(whole, context.train)
    parts = list[Division]()
    for part in context.parts((lambda learn: whole) if whole is not None and group.shared else group.represent, folds):
        parts.append(part)
        if late():
            raise _NotTried(_OVER_BUDGET)
    return parts, whole


class _Fits(NamedTuple):
    """What a learner made of each part, and what that says of the held-out examples."""

    estimators: list[Estimator]
    scores: Any
    """(N, K) of all held-out examples."""
    seconds: float


def _learn_ahead(
    context: TrainingContext, group: LearnerGroup, parts: Sequence[Division], lanes: Lanes, late: Callable[[], bool]
) -> list[Turn[_Fits]]:
    """A turn for each learner. It is begun at once, but for networks and for what takes several threads of linear
    algebra, whose number counts for the whole process."""
    turns = [lanes.turn(partial(_learn_parts, context, each, parts, lanes, late)) for each in group.learners]
    for learner, turn in zip(group.learners, turns, strict=True):
        alone = learner.join is not None or has_many_numbers(parts[0].inputs)
        if not alone and not context.over_budget and not _refusal(learner, parts, context):
            turn.begin()
    return turns


def _learn_parts(
    context: TrainingContext, learner: Learner, parts: Sequence[Division], lanes: Lanes, late: Callable[[], bool]
) -> _Fits:
    """Learn on each part's one side, answer the other. Raises _NotTried where the budget ends."""
    started, fitted, given = time.monotonic(), list[Estimator](), list[Any]()
    with limit_threads(parts[0].inputs):
        for part in parts:
            if fitted and late():
                raise _NotTried(_OVER_BUDGET)
            seed, more = context.payload.spec.seed, dict[str, Any]()
            if learner.join is not None:
                more["held"] = part.held_inputs, context.targets(part.held), parts_to_stop(part.held, seed)
            if learner.splits:
                more["lanes"] = lanes
            made: Any = learner.learn(part.inputs, part.targets, seed, **more)
            if isinstance(made, StoppedByHeld):
                made, own = made.estimator, made.scores
            else:
                own = made.scores(part.held_inputs)
            fitted.append(made)
            given.append(own)
    return _Fits(fitted, np.concatenate(given), time.monotonic() - started)


def _evaluate_learner(
    context: TrainingContext,
    name: str,
    group: LearnerGroup,
    whole: Representation | None,
    learner: Learner,
    parts: Sequence[Division],
    fits: _Fits,
    sign: int,
) -> EvaluatedLearner:
    """What it is worth on the held-out examples."""
    fitted, scores = fits.estimators, fits.scores
    held = [example for part in parts for example in part.held]
    task_head = context.task_head.calibrated(scores, context.targets(held))
    shift = find_shift_for_metric(context, scores, held) if decision_shift.can_shift(fitted[0]) else None
    estimate = measure(context, task_head, held, scores if shift is None else scores + shift.unseen)
    learned = None
    if whole is None:
        answering = fitted[0] if shift is None else decision_shift.shifted(fitted[0], shift.by)
        learned = TrainedPredictor(context.payload.task, parts[0].representation, answering, task_head)
    standing = signed_standing(sign, estimate.value)
    if task_head.family == "anomaly" and not context.targets(held).any():
        standing = tightness(fitted, [part.held_inputs for part in parts], scores, context.payload.spec.seed)
        if TIGHTNESS_NOTE not in context.notes:
            context.notes.append(TIGHTNESS_NOTE)
    joined = learner.join(fitted) if learner.join and whole is not None else None
    return EvaluatedLearner(
        name, group, learner, whole, learned, task_head, estimate, standing, scores, held, fitted[0], joined,
        shift=None if shift is None else shift.by,
    )  # fmt: skip


def _fit_whole(context: TrainingContext, best: EvaluatedLearner) -> TrainedPredictor:
    """After folds: the best learner, fitted once more on the whole training split, or joined of its folds."""
    whole = {each.group.name: each.whole for each in singles(best)}
    return learn_from(context, best, context.train, whole, from_folds=True)
