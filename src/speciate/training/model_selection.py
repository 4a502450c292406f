"""Which candidate a training keeps: the best on examples that none of them has learned from, with its interval.

The winner's value is slightly optimistic, as the best of several; the test split decides, and it is not touched here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.evaluation.statistics import Estimate
from speciate.models.blend import Averaged, Blend, Member, answers_of
from speciate.models.estimators import Estimator
from speciate.tasks.joined_representations import Remembered
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.several_representations import Several, can_be_kept
from speciate.tasks.task import (
    Representation,
    SavablePredictor,
    TaskHead,
    UnsuitableRepresentation,
    predict_examples,
)
from speciate.training import arrived_rows, decision_shift
from speciate.training.ensembling import ChosenMembers, HeldScores, select_members
from speciate.training.held_out import TIGHTNESS_NOTE, measure, scores_of, tightness
from speciate.training.planning.when_to_stop import CurvePoint, examples_for
from speciate.training.training_context import Division, TrainingContext
from speciate.training.training_report import CandidateRow, Validation
from speciate.vocabulary import find_metric

_log = logging.getLogger(__name__)


ON_ALL_FOLDS = "out-of-fold on training and validation"
_OVER_BUDGET = "the budget had ended"
_ONE_THREAD_CELLS = 1_000_000
"""Numbers of a matrix below which one thread fits it: with 384 columns, 2,600 rows."""
_FEW_EXAMPLES = 300
"""Validation examples: the standard error of a share of so many is 0.03 at most."""
_FAMILIES_WITH_FOLDS = ("classification", "ordinal", "regression", "multi-label")
"""Families whose training examples look like test examples, so that held-out folds of them can select a model."""


class Learner(NamedTuple):
    """`learn(inputs, targets, seed)` fits; `refuse(n, d, k)` says why the data are too large for it, or None."""

    name: str
    learn: Callable[..., Estimator]
    refuse: Callable[[int, int, int], str | None] = lambda n, d, k: None
    weighs: bool = False
    """Whether `learn(inputs, targets, seed, weights)` fits with a weight for each example."""


class LearnerGroup(NamedTuple):
    """A representation with the learners that suit it."""

    name: str
    represent: Callable[[Sequence[Example]], Representation]
    learners: tuple[Learner, ...]
    sees: int = 1
    """Parts of a mixed row."""
    usual: bool = False
    """Whether it belongs to the mean that is the best guess before anything was measured: it was that on most of the
    data sets of evals/LOG.md."""
    shared: bool = False
    """Whether folds share one representation: it is costly, looks at no label and learns next to nothing."""


class CandidateResult(NamedTuple):
    """A candidate's place in the report; `value` None where it was not tried, for `reason`."""

    name: str
    seconds: float
    value: float | None
    reason: str = ""
    chosen: bool = False

    def shown(self) -> CandidateRow:
        shown: CandidateRow = {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "value": _finite_or_none(self.value),
            "chosen": self.chosen,
        }
        if self.reason:
            shown["reason"] = self.reason
        return shown


class SelectedModel(NamedTuple):
    predictor: SavablePredictor
    best: Estimate
    how: str
    tried: tuple[CandidateResult, ...]

    def validation(self) -> Validation:
        """The winner's value as JSON; what does not exist is None."""
        low, high, error = map(_finite_or_none, (self.best.low, self.best.high, self.best.standard_error))
        interval = None if low is None or high is None else [low, high]
        return {
            "value": _finite_or_none(self.best.value), "interval": interval, "standard_error": error, "n": self.best.n,
            "how": self.how, "method": self.best.method,
        }  # fmt: skip


class _EvaluatedLearner(NamedTuple):
    name: str
    group: LearnerGroup
    learner: Learner
    whole: Representation | None
    """Representation of the whole training split, after folds; else the model is `fitted`."""
    fitted: TrainedPredictor | None
    task_head: TaskHead
    estimate: Estimate
    standing: float
    """Greater is better."""
    scores: Any = None
    """(N, K) of the held-out examples."""
    held: Sequence[Example] = ()
    estimator: Any = None
    """Estimator of the first division into training and held-out examples."""
    members: tuple[_Weighted, ...] = ()
    """Members of a mean of candidates, with what `fitted` and `learner` are in a single one; else empty."""
    averaged: Averaged = "classes"
    shift: Any = None
    """(K,) or (1,): added to the scores of the model, not to `scores`."""
    weight: float = 1.0
    """Weight of the arrived rows that it learns from."""

    @property
    def representation(self) -> Representation:
        """Representation of the model itself, or after folds of what it will be."""
        found = self.whole if self.fitted is None else self.fitted.representation
        assert found is not None, "one of the two is there"
        return found

    @property
    def fitted_model(self) -> TrainedPredictor:
        assert self.fitted is not None, "judged on a validation split"
        return self.fitted


class _Weighted(NamedTuple):
    """A member of a mean."""

    of: _EvaluatedLearner
    weight: float
    temperature: float


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _standing(sign: int, value: float) -> float:
    """Greater is better; a value that the held-out examples leave undefined is the worst."""
    return sign * value if math.isfinite(value) else -math.inf


def select_best(
    context: TrainingContext,
    groups: Sequence[LearnerGroup],
    folds: int,
    *,
    ensemble: bool = False,
    refit: bool = True,
) -> SelectedModel:
    """Try every learner on every representation until the budget ends, and keep the best.

    `ensemble`: or a weighted mean of several, where that is better on the same held-out examples. `refit`: the winner
    learns once more, from the held-out examples, too; not where they judge what a further training forgets.

    Groups and learners are listed from cheap to expensive, and among equals the earlier one wins, if `_decide_between`
    does not tell them apart: few validation examples do not decide alone between equals, nor between groups that see
    different parts of mixed rows. Raises INVALID where none can be tried.
    """
    sign = find_metric(context.payload.objective.metric).sign
    total = sum(len(group.learners) for group in groups)
    best, near, tried, every = _try_each(context, groups, folds, sign, total, ensemble=ensemble)
    decided = _decide_between(context, near, folds, sign, _seconds(near, tried)) if len(near) > 1 else None
    best = decided or best
    for mean in (_mean_of_several, _usual_mean) if len(every) > 1 else ():
        started = time.monotonic()
        if context.seconds_left > 0 and (found := mean(context, every, best, sign)) is not None:
            best = found
            tried.append(CandidateResult(best.name, time.monotonic() - started, best.estimate.value))
    best = _weighed(context, best, tried, folds, sign) if refit else best
    context.progress(total, total, "candidates", f"{best.name} is the best")
    return _finish(context, best, tried, folds, sign, compared=decided is not None, refit=refit)


class _Tried(NamedTuple):
    best: _EvaluatedLearner
    near: list[_EvaluatedLearner]
    """Those that it is not told apart from."""
    rows: list[CandidateResult]
    every: list[_EvaluatedLearner]
    """Those that a mean may have; none without `ensemble`."""


def _try_each(
    context: TrainingContext, groups: Sequence[LearnerGroup], folds: int, sign: int, total: int, *, ensemble: bool
) -> _Tried:
    """Until the budget ends. INVALID where none can be tried."""
    best: _EvaluatedLearner | None = None
    near, of_parts = list[_EvaluatedLearner](), any(group.sees > 1 for group in groups)
    tried: list[CandidateResult] = []
    every: list[_EvaluatedLearner] = []
    for group in groups:
        if best and context.over_budget:  # not even prepared for
            tried += [CandidateResult(f"{group.name}: {each.name}", 0.0, None, _OVER_BUDGET) for each in group.learners]
            continue
        context.progress(len(tried), total, "candidates", f"{group.name}: preparing examples")
        try:
            with context.meter.stage("preparing"):
                parts, whole = _prepare(context, group, folds, begun=best is not None)
        except (UnsuitableRepresentation, _NotTried) as error:
            tried += [
                CandidateResult(f"{group.name}: {learner.name}", 0.0, None, str(error)) for learner in group.learners
            ]
            _log.info("%s: not tried: %s", group.name, error)
            continue
        for learner in group.learners:
            context.checkpoint()
            name, started = f"{group.name}: {learner.name}", time.monotonic()
            context.progress(len(tried), total, "candidates", name)
            try:
                if reason := _OVER_BUDGET if best and context.over_budget else _refusal(learner, parts, context):
                    raise _NotTried(reason)
                with context.meter.stage("training"):
                    evaluated = _evaluate_learner(
                        context, name, group, whole, learner, parts, sign, begun=best is not None
                    )
            except _NotTried as error:
                tried.append(CandidateResult(name, time.monotonic() - started, None, str(error)))
                _log.info("%s: not tried: %s", name, error)
                continue
            seconds, value = time.monotonic() - started, evaluated.estimate.value
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


def _is_better(one: _EvaluatedLearner, best: _EvaluatedLearner, context: TrainingContext) -> bool:
    """By the metric; of equal ones on few examples the surer one: there many candidates are right everywhere."""
    if one.standing != best.standing:
        return one.standing > best.standing
    if one.task_head.family != "classification" or len(one.held) > _FEW_EXAMPLES:
        return False
    return _surprise(one, context) < _surprise(best, context) - _SURER


def _surprise(one: _EvaluatedLearner, context: TrainingContext) -> float:
    """Mean log loss of the held-out examples, of those whose label training has seen."""
    losses = _surprises(one.held, one.scores, one.task_head, context)
    return float(losses.mean()) if len(losses) else math.inf


def _surprises(
    held: Sequence[Example], scores: Any, task_head: TaskHead, context: TrainingContext
) -> npt.NDArray[np.float64]:
    targets = context.targets(held)
    shares = answers_of(scores, "classes", float(getattr(task_head, "temperature", 1.0)))
    known = np.flatnonzero(targets >= 0)
    losses: npt.NDArray[np.float64] = -np.log(shares[known, targets[known]] + 1e-12)
    return losses


def _finish(
    context: TrainingContext,
    best: _EvaluatedLearner,
    tried: Sequence[CandidateResult],
    folds: int,
    sign: int,
    *,
    compared: bool,
    refit: bool,
) -> SelectedModel:
    """What the winner is worth and what it becomes. `compared`: out of fold already."""
    with context.meter.stage("training"):
        final = best.fitted or _fit_whole(context, best)
    marked = tuple(one._replace(chosen=one.name == best.name) for one in tried)
    context.offer_best(partial(SelectedModel, final, best.estimate, context.how, marked))
    surer = None if compared else _confirmed(context, best, folds, sign)
    _note_learning_curve(context, best, sign)
    taken = sum(one.seconds for one in tried if one.name in {each.name for each in _singles(best)})
    final = (_refitted(context, best, taken) if refit else None) or final
    return SelectedModel(final, surer or best.estimate, ON_ALL_FOLDS if surer else context.how, marked)


_REFIT_NOTE = "The chosen model was then learned from validation examples, too; its value here is from before."
_REFIT_TIMES = 3
"""Times what the winner took that must be left, for it to learn once more from all examples."""


def _refitted(context: TrainingContext, best: _EvaluatedLearner, seconds: float) -> TrainedPredictor | None:
    """The winner, learned from training and validation examples together; temperature and thresholds stay as they were
    found on examples that it had not learned from. None where that cannot be done, or there is no time."""
    if (
        not context.validation
        or context.task_head.family not in _FAMILIES_WITH_FOLDS
        or context.seconds_left < _REFIT_TIMES * seconds
    ):
        return None
    context.checkpoint()
    everything = [*context.train, *context.validation]
    if (context.targets(everything) < 0).any() and context.task_head.family != "regression":
        return None  # a label that training has not seen
    with context.meter.stage("training"):
        try:
            fresh = {each.group.name: each.group.represent(everything) for each in _singles(best)}
        except UnsuitableRepresentation:
            return None
        made = _learned_from(context, best, everything, fresh)
    context.notes.append(_REFIT_NOTE)
    return made


def _so_far(
    context: TrainingContext,
    best: _EvaluatedLearner,
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
    return SelectedModel(made, best.estimate, context.how, marked)


def _near_best(tried: Sequence[_EvaluatedLearner], best: _EvaluatedLearner) -> list[_EvaluatedLearner]:
    """The best of each group, where it is within one standard error of the best of all (Breiman et al. 1984). Only
    these are kept in memory."""
    error = best.estimate.standard_error
    least = best.standing - (error if math.isfinite(error) else 0.0)
    first: dict[str, _EvaluatedLearner] = {}
    for one in tried:
        leader = first.get(one.group.name)
        if one.standing >= least and (leader is None or one.standing > leader.standing):
            first[one.group.name] = one
    return list(first.values())


def _equals(tried: Sequence[_EvaluatedLearner], best: _EvaluatedLearner) -> list[_EvaluatedLearner]:
    """Those that are as good as the best by the metric, the best first."""
    return [best, *(one for one in tried if one.standing == best.standing and one is not best)]


def _seconds(near: Sequence[_EvaluatedLearner], tried: Sequence[CandidateResult]) -> float:
    """What these took together."""
    names = {one.name for one in near}
    return sum(one.seconds for one in tried if one.name in names)


_SHARE_TO_DECIDE = 0.25
"""Part of the time that is left that telling equals apart may take."""


def _decide_between(
    context: TrainingContext, near: Sequence[_EvaluatedLearner], folds: int, sign: int, seconds: float
) -> _EvaluatedLearner | None:
    """Choose between candidates that few validation examples do not tell apart: the best out of fold on training and
    validation examples alike; among equals the one that sees most parts, as it answers where one of them is missing,
    then the one that is surer of what is right.

    Without a validation split they were judged out of fold already. None where that cannot be done, or there is no
    time: then the first of the best stays. `seconds`: what they took on one division.
    """
    if not context.validation:
        return max(near, key=lambda one: (one.standing, one.group.sees))
    if (
        len(context.validation) > _FEW_EXAMPLES
        or context.task_head.family not in _FAMILIES_WITH_FOLDS
        or folds * seconds > _SHARE_TO_DECIDE * context.seconds_left
    ):
        return None
    standings: list[tuple[float, int, float]] = []
    for one in near:
        found = _everywhere(context, one, folds)
        if found is None:
            return None
        standings.append((_standing(sign, found.estimate.value), one.group.sees, -found.surprise))
    values = ", ".join(f"{one.name} {sign * value:.3g}" for one, (value, *_) in zip(near, standings, strict=True))
    context.notes.append(
        f"{len(context.validation)} validation examples do not tell {len(near)} candidates apart, so what they are "
        f"worth {ON_ALL_FOLDS} decided: {values}."
    )
    return near[standings.index(max(standings))]


def _confirmed(context: TrainingContext, best: _EvaluatedLearner, folds: int, sign: int) -> Estimate | None:
    """Where the winner meets the target on a validation split that is too small to be sure of it: its value on training
    and validation examples alike, out of fold. None where that tells nothing new, or there is no time.

    The learner is settled by then, so nothing is chosen on these examples; a fold learns from a little less.
    """
    target, estimate = context.payload.objective.target, best.estimate
    if (
        target is None
        or not context.validation
        or context.task_head.family not in _FAMILIES_WITH_FOLDS
        or not context.seconds_left > 0
    ):
        return None
    low = min(sign * estimate.low, sign * estimate.high)
    if not (sign * estimate.value >= sign * target and low < sign * target):
        return None
    found = _everywhere(context, best, folds)
    return found and found.estimate


_CURVE_SHARES = (0.25, 0.5)
_FEWEST_IN_CURVE = 40
"""Examples that the smallest part of a learning curve has at least."""


def _note_learning_curve(context: TrainingContext, best: _EvaluatedLearner, sign: int) -> None:
    """Where the winner misses the target on a validation split: its value when it learns from parts of the training
    examples, and how many would do. What was drawn for a part is in the larger ones."""
    metric, target = find_metric(context.payload.objective.metric), context.payload.objective.target
    count = len(context.train)
    missed = target is not None and math.isfinite(best.estimate.value) and sign * best.estimate.value < sign * target
    if not missed or not context.validation or count * _CURVE_SHARES[0] < _FEWEST_IN_CURVE or context.over_budget:
        return
    assert target is not None, "missed"
    order = _order_of_parts(context)
    curve = [CurvePoint(count, sign * best.estimate.value)]
    for share in _CURVE_SHARES:
        if context.over_budget:
            return
        part = [context.train[place] for place in sorted(order[: round(share * count)])]
        if not context.has_each_label(part):
            return
        with context.meter.stage("training"):
            try:
                fresh = {each.group.name: each.group.represent(part) for each in _singles(best)}
                made = _learned_from(context, best, part, fresh)
            except (UnsuitableRepresentation, ValueError):  # too few of a label in it
                return
            value = measure(
                context,
                best.task_head,
                context.validation,
                made.estimator.scores(made.representation.encode(context.validation)),
            ).value
        curve.append(CurvePoint(len(part), sign * value))
    curve.sort()
    bound = metric.high if sign > 0 else 0.0
    needed = examples_for(curve, sign * target, bound)
    context.report["learning_curve"] = {
        "points": [[one.examples, round(sign * one.value, 6)] for one in curve],
        "examples_for_target": needed,
    }


def _order_of_parts(context: TrainingContext) -> list[int]:
    """Places of the training examples, drawn: one of each label first, since a learner that never saw a label has no
    score for it."""
    order: list[int] = np.random.default_rng(context.payload.spec.seed).permutation(len(context.train)).tolist()
    if not context.labelled:
        return order
    labels, first = context.labels(context.train), dict[Any, int]()
    for place in order:
        first.setdefault(labels[place], place)
    leading = set(first.values())
    return [*first.values(), *(place for place in order if place not in leading)]


class _OutOfFold(NamedTuple):
    scores: Any
    held: Sequence[Example]


def _out_of_fold(
    context: TrainingContext, one: _EvaluatedLearner, folds: int, examples: Sequence[Example]
) -> _OutOfFold | None:
    """What it answers to each of these examples where it did not learn from it. None where no fold can be made, or the
    budget ended."""
    scores, held = [], list[Example]()
    common = [each.group for each in _singles(one) if each.group.shared]
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
                    each.group.name: shared.get(each.group.name) or each.group.represent(learn)
                    for each in _singles(one)
                }
            except UnsuitableRepresentation:
                return None
            made = _learned_from(context, one, learn, fresh)
            scores.append(made.estimator.scores(made.representation.encode(judge)))
        held += judge
    return _OutOfFold(np.concatenate(scores), held) if held else None


class _OnAllFolds(NamedTuple):
    estimate: Estimate
    surprise: float
    """Mean log loss, its confidences fitted to these examples; 0 of what does not answer classes."""


def _everywhere(context: TrainingContext, one: _EvaluatedLearner, folds: int) -> _OnAllFolds | None:
    """Its value on training and validation examples alike, each judged by what did not learn from it. None also where
    validation examples have a label that training has not seen."""
    examples = [*context.train, *context.validation]
    if one.task_head.family != "regression" and (context.targets(examples) < 0).any():
        return None
    found = _out_of_fold(context, one, folds, examples)
    if found is None:
        return None
    estimate = measure(context, one.task_head, found.held, found.scores)
    if one.task_head.family != "classification":
        return _OnAllFolds(estimate, 0.0)
    fitted = one.task_head.calibrated(found.scores, context.targets(found.held))
    return _OnAllFolds(
        estimate, _surprise(one._replace(task_head=fitted, scores=found.scores, held=found.held), context)
    )


def _chosen_weight(context: TrainingContext, best: _EvaluatedLearner, folds: int, sign: int, seconds: float) -> float:
    """How much rows count that arrived later: found out of fold, by those rows and by the others (arrived_rows.py)."""
    wanted: tuple[float, ...] = getattr(context.payload.parameters, "arrived_weight", (1.0,))
    later = sum(map(arrived_rows.has_arrived, context.train))
    weighs = any(each.learner.weighs for each in _singles(best))
    if not later or wanted == (1.0,) or not weighs:
        return 1.0
    if len(wanted) == 1:
        return wanted[0]
    if context.task_head.family not in ("classification", "regression"):
        return 1.0
    if len(wanted) * folds * seconds > _SHARE_TO_DECIDE * context.seconds_left:
        context.notes.append(f"{later:,} arrived rows count as the others do: there was no time to compare weights.")
        return 1.0
    tried: list[arrived_rows.Weighed] = []
    for weight in wanted:
        found = _out_of_fold(context, best._replace(weight=weight), folds, context.train)
        if found is None:
            return 1.0
        tried.append(_on_both_sides(context, best, weight, found, sign))
    chosen = arrived_rows.choose(tried, find_metric(context.payload.objective.metric))
    context.report["arrived_weight"] = arrived_rows.report(later, tried, chosen, sign)
    return chosen


def _on_both_sides(
    context: TrainingContext, best: _EvaluatedLearner, weight: float, found: _OutOfFold, sign: int
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
        losses = _surprises(rows, scores, best.task_head, context)
    else:
        losses = np.abs(np.asarray(scores)[:, 0] - context.targets(rows))
    return arrived_rows.Weighed(weight, losses, value(later), value(others))


def _weighed(
    context: TrainingContext, best: _EvaluatedLearner, tried: list[CandidateResult], folds: int, sign: int
) -> _EvaluatedLearner:
    """The same learner, maybe at another weight of the arrived rows. After folds its value stays that of before."""
    taken = _seconds(_singles(best), tried)
    if (weight := _chosen_weight(context, best, folds, sign, taken)) == 1:
        return best
    started = time.monotonic()
    made = best._replace(weight=weight, name=f"{best.name}, arrived rows x {weight:g}")
    if best.fitted is not None:
        fitted = {each.group.name: each.fitted_model.representation for each in _singles(best)}
        learned, held = _learned_from(context, made, context.train, fitted), context.validation
        scores = learned.estimator.scores(learned.representation.encode(held))
        task_head = made.task_head
        if made.shift is None:  # else the scores are moved, and no temperature was found on such
            task_head = task_head.calibrated(scores, context.targets(held))
        learned.task_head = task_head
        estimate = measure(context, task_head, held, scores)
        made = made._replace(
            fitted=learned, task_head=task_head, scores=scores, estimate=estimate,
            standing=_standing(sign, estimate.value),
        )  # fmt: skip
    tried.append(CandidateResult(made.name, time.monotonic() - started, made.estimate.value))
    return made


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
    context: TrainingContext, group: LearnerGroup, folds: int, *, begun: bool
) -> tuple[list[Division], Representation | None]:
    """The parts to be judged by and, where those are folds, what the winner would learn the whole from.

    Raises UnsuitableRepresentation of either: what fits each fold need not fit the whole; and _NotTried, where
    something was tried before (`begun`).
    """
    whole = None if context.validation else group.represent(context.train)
    if whole is not None and group.shared:
        whole = Remembered(whole, context.train)
    parts = list[Division]()
    for part in context.parts((lambda learn: whole) if whole is not None and group.shared else group.represent, folds):
        parts.append(part)
        if begun and context.over_budget:
            raise _NotTried(_OVER_BUDGET)
    return parts, whole


def _evaluate_learner(
    context: TrainingContext,
    name: str,
    group: LearnerGroup,
    whole: Representation | None,
    learner: Learner,
    parts: Sequence[Division],
    sign: int,
    *,
    begun: bool,
) -> _EvaluatedLearner:
    """Learn on each part's one side, be judged on the other. Raises _NotTried where the budget ends."""
    fitted = list[Estimator]()
    with _threads_for(parts[0].inputs):
        for part in parts:
            if fitted and begun and context.over_budget:
                raise _NotTried(_OVER_BUDGET)
            fitted.append(learner.learn(part.inputs, part.targets, context.payload.spec.seed))
    scores = np.concatenate([one.scores(part.held_inputs) for one, part in zip(fitted, parts, strict=True)])
    held = [example for part in parts for example in part.held]
    task_head = context.task_head.calibrated(scores, context.targets(held))
    shift = _shift_for(context, scores, held) if decision_shift.can_shift(fitted[0]) else None
    estimate = measure(context, task_head, held, scores if shift is None else scores + shift)
    learned = None
    if whole is None:
        answering = fitted[0] if shift is None else decision_shift.shifted(fitted[0], shift)
        learned = TrainedPredictor(context.payload.task, parts[0].representation, answering, task_head)
    standing = _standing(sign, estimate.value)
    if task_head.family == "anomaly" and not context.targets(held).any():
        standing = tightness(fitted, [part.held_inputs for part in parts], scores, context.payload.spec.seed)
        if TIGHTNESS_NOTE not in context.notes:
            context.notes.append(TIGHTNESS_NOTE)
    return _EvaluatedLearner(
        name, group, learner, whole, learned, task_head, estimate, standing, scores, held, fitted[0], shift=shift
    )


@contextlib.contextmanager
def _threads_for(inputs: Any) -> Iterator[None]:
    """Few numbers by one thread: several wait for each other in each step, on a busy machine ten times as long."""
    if getattr(inputs, "size", _ONE_THREAD_CELLS) >= _ONE_THREAD_CELLS:
        yield
        return
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    with threadpool_limits(limits=1):
        yield


def _shift_for(context: TrainingContext, scores: Any, held: Sequence[Example]) -> Any:
    """What is added to scores for the sake of the metric; None where nothing helps."""
    objective = context.payload.objective
    wanted = decision_shift.measure_for(objective.metric, context.task_head.labels, objective.positive_label)
    if wanted is None or context.task_head.family != "classification":
        return None
    return decision_shift.find_shift(scores, context.targets(held), wanted, context.payload.spec.seed)


def _fit_whole(context: TrainingContext, best: _EvaluatedLearner) -> TrainedPredictor:
    """After folds: the best learner, fitted once more on the whole training split."""
    whole = {each.group.name: each.whole for each in _singles(best)}
    return _learned_from(context, best, context.train, whole)


# A mean of several


def _mean_of_several(
    context: TrainingContext, tried: Sequence[_EvaluatedLearner], best: _EvaluatedLearner, sign: int
) -> _EvaluatedLearner | None:
    """None unless it is better than the best candidate by the metric, or as good and surer by its probabilities."""
    kept = [one for one in tried if can_be_kept(one.representation)]
    found = _members(context, kept, best)
    if found is None:
        return None
    mean = _as_mean(context, kept, found, best, sign)
    perfect = _is_share(context) and sign > 0 and best.estimate.value >= 1
    surer = mean.standing == best.standing and found.is_surer and not perfect
    return mean if mean.standing > best.standing or surer else None


def _usual_mean(
    context: TrainingContext, tried: Sequence[_EvaluatedLearner], best: _EvaluatedLearner, sign: int
) -> _EvaluatedLearner | None:
    """The mean of the usual groups, unless the best is surely better: few examples tell many candidates apart by luck.
    With many of them, or where a usual one is always right, the best stands."""
    few = len({example.id for example in best.held}) <= _FEW_EXAMPLES
    if not few or (best.group.usual and not best.members and sign > 0 and best.estimate.value >= 1):
        return None
    usual: dict[str, _EvaluatedLearner] = {}
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


def _is_surely_better(context: TrainingContext, one: _EvaluatedLearner, other: _EvaluatedLearner, sign: int) -> bool:
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


def _values(context: TrainingContext, one: _EvaluatedLearner) -> list[float]:
    scores = one.scores if one.shift is None else one.scores + one.shift
    return scores_of(context, one.task_head, one.held, predict_examples(one.task_head, scores, one.held))


def _is_share(context: TrainingContext) -> bool:
    return find_metric(context.payload.objective.metric).is_share


def _members(
    context: TrainingContext, kept: Sequence[_EvaluatedLearner], best: _EvaluatedLearner, together: Sequence[int] = ()
) -> ChosenMembers | None:
    names = [one.name for one in kept]
    if best.name not in names:
        return None
    held = [HeldScores(one.scores, one.task_head, one.estimator) for one in kept]
    metric = context.payload.objective.metric
    return select_members(held, context.targets(best.held), names.index(best.name), metric, together)


def _as_mean(
    context: TrainingContext,
    kept: Sequence[_EvaluatedLearner],
    found: ChosenMembers,
    best: _EvaluatedLearner,
    sign: int,
) -> _EvaluatedLearner:
    """`best`: a member, or what was the best by itself."""
    held = best.held
    task_head = context.task_head.calibrated(found.scores, context.targets(held))
    shift = _shift_for(context, found.scores, held)
    estimate = measure(context, task_head, held, found.scores if shift is None else found.scores + shift)
    members = tuple(
        _Weighted(kept[place], weight, found.temperatures[place]) for place, weight in found.weights.items()
    )
    mean = best._replace(
        name=f"mean of {' and '.join(f'{each.weight:.2g} {each.of.name}' for each in members)}", members=members,
        averaged=found.averaged, scores=found.scores, task_head=task_head, estimate=estimate,
        standing=_standing(sign, estimate.value), shift=shift,
    )  # fmt: skip
    if best.fitted is None:
        return mean
    made = [
        TrainedPredictor(
            context.payload.task, each.of.fitted_model.representation, each.of.estimator, each.of.task_head
        )
        for each in members
    ]
    return mean._replace(fitted=_blended(context, mean, made))


def _singles(one: _EvaluatedLearner) -> list[_EvaluatedLearner]:
    return [each.of for each in one.members] or [one]


def _learned_from(
    context: TrainingContext,
    one: _EvaluatedLearner,
    examples: Sequence[Example],
    represented: Mapping[str, Representation | None],
) -> TrainedPredictor:
    """The candidate, or each member of a mean, learned from these examples. `represented`: by the name of a group."""
    targets, made = context.targets(examples), list[TrainedPredictor]()
    for each in _singles(one):
        representation = represented[each.group.name]
        assert representation is not None, "made with the folds"
        more = (arrived_rows.weights(examples, one.weight),) if each.learner.weighs and one.weight != 1 else ()
        inputs = representation.encode(examples)
        with _threads_for(inputs):
            estimator = each.learner.learn(inputs, targets, context.payload.spec.seed, *more)
        if each.shift is not None and not one.members:
            estimator = decision_shift.shifted(estimator, each.shift)
        made.append(TrainedPredictor(context.payload.task, representation, estimator, one.task_head))
    return _blended(context, one, made) if one.members else made[0]


def _blended(context: TrainingContext, mean: _EvaluatedLearner, made: Sequence[TrainedPredictor]) -> TrainedPredictor:
    """`made`: each member's model, in their order. Members of one group share its representation."""
    groups = list(dict.fromkeys(each.of.group.name for each in mean.members))
    seen = {each.of.group.name: one.representation for each, one in zip(mean.members, made, strict=True)}
    members = tuple(
        Member(one.estimator, groups.index(each.of.group.name), each.weight, each.temperature)
        for each, one in zip(mean.members, made, strict=True)
    )
    blend: Any = Blend(members, mean.averaged, mean.shift)
    return TrainedPredictor(context.payload.task, Several([seen[name] for name in groups]), blend, mean.task_head)
