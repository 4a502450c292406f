"""Learners on representations: what is tried, what came of it on held-out examples, and how it learns from others."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.environment import compute_threads, openmp_threads
from speciate.evaluation.statistics import Estimate
from speciate.models.blend import Averaged, Blend, Member, answers_of
from speciate.models.estimators import Estimator
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.several_representations import Several
from speciate.tasks.task import Representation, TaskHead
from speciate.training.selection import arrived_rows, decision_shift
from speciate.training.training_context import TrainingContext
from speciate.training.training_report import MemberRow

_ONE_THREAD_CELLS, _BLAS_CELLS = 1_000_000, 20_000_000
"""Numbers of a matrix below which one thread fits it: with 384 columns, 2,600 rows."""
FEW_EXAMPLES = 300
"""Validation examples: the standard error of a share of so many is 0.03 at most."""
FAMILIES_WITH_FOLDS = ("classification", "ordinal", "regression", "multi-label")
"""Families whose training examples look like test examples, so that held-out folds of them can select a model."""


class Learner(NamedTuple):
    """`learn(inputs, targets, seed)` fits; `refuse(n, d, k)` says why the data are too large for it, or None."""

    name: str
    learn: Callable[..., Estimator]
    refuse: Callable[[int, int, int], str | None] = lambda n, d, k: None
    weighs: bool = False
    """Whether `learn(inputs, targets, seed, weights)` fits with a weight for each example."""
    join: Callable[[Sequence[Any]], Estimator] | None = None
    """Makes one estimator of those of all folds, which is the model then. A learner that has it takes
    `held=(inputs, targets, parts)`, by which it stops, and gives a `StoppedByHeld` then; its group is `shared`."""
    settings: str = ""
    """How it learns, in a few words; empty: what its name says behind its kind."""
    found: Callable[[Any], Mapping[str, Any]] | None = None
    """What an estimator that was fitted has found, as arguments of `learn`, so that a fit on some more examples does
    not look for it again."""
    splits: bool = False
    """Whether it takes `lanes=`, to do parts of its work side by side."""


def in_words(settings: Mapping[str, object]) -> str:
    """Settings under the names of their library.

    >>> in_words({"C": 5.0, "gamma": 0.1234, "extra_trees": True, "bagging": False})
    'C 5, gamma 0.123, extra_trees'
    """
    said = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in said.items() if value is not False)


class StoppedByHeld(NamedTuple):
    """What learned until held-out examples said to stop, with scores of these that they had no part in."""

    estimator: Any
    scores: Any
    """(M, K) of the held-out examples, each by what the other parts of them would have stopped."""


PARTS_TO_STOP = 5
"""Parts of the held-out examples by which a learner stops."""


def parts_to_stop(held: Sequence[Example], seed: int) -> npt.NDArray[np.int64]:
    """(M,): the part of each; groups stay together."""
    names = np.unique([example.group or example.id for example in held], return_inverse=True)[1]
    part = np.random.default_rng(seed).permutation(int(names.max()) + 1) % PARTS_TO_STOP
    return np.asarray(part[names], np.int64)


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


class EvaluatedLearner(NamedTuple):
    """A learner on a representation, or a mean of several, with what it is worth on held-out examples."""

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
    joined: Any = None
    """Estimator of all folds together, where the learner can join them; else None."""
    members: tuple[WeightedMember, ...] = ()
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


class WeightedMember(NamedTuple):
    """A member of a mean."""

    of: EvaluatedLearner
    weight: float
    temperature: float


def signed_standing(sign: int, value: float) -> float:
    """Greater is better; a value that the held-out examples leave undefined is the worst."""
    return sign * value if math.isfinite(value) else -math.inf


def singles(one: EvaluatedLearner) -> list[EvaluatedLearner]:
    return [each.of for each in one.members] or [one]


_KIND = re.compile(r"(.+?)(?:, | (?=[0-9]))(.*)")
"""The name of a learner: what it is, and then a number or what is special about it."""


def member_rows(one: EvaluatedLearner) -> tuple[MemberRow, ...]:
    """What the candidate answers by, the heaviest first."""
    rows = [_member_row(each.of, each.weight) for each in one.members] or [_member_row(one, 1.0)]
    return tuple(sorted(rows, key=lambda row: -row["weight"]))


def _member_row(one: EvaluatedLearner, weight: float) -> MemberRow:
    named = _KIND.fullmatch(one.learner.name)
    kind, special = named.groups() if named else (one.learner.name, "")
    settings = one.learner.settings or special
    return {"learner": kind, "settings": settings, "reads": one.group.name, "weight": round(weight, 4)}


def learn_from(
    context: TrainingContext,
    one: EvaluatedLearner,
    examples: Sequence[Example],
    represented: Mapping[str, Representation | None],
    *,
    from_folds: bool = False,
    as_found: bool = False,
) -> TrainedPredictor:
    """The candidate, or each member of a mean, learned from these examples. `represented`: by the name of a group.

    `from_folds`: what can be joined of the folds that judged it is not learned once more. `as_found`: by what the fit
    on the training examples has found, where it had the same weights.
    """
    targets, made = context.targets(examples), list[TrainedPredictor]()
    for each in singles(one):
        representation = represented[each.group.name]
        assert representation is not None, "made with the folds"
        more = (arrived_rows.weights(examples, one.weight),) if each.learner.weighs and one.weight != 1 else ()
        inputs = representation.encode(examples)
        estimator = each.joined if from_folds and not more else None
        if estimator is None:
            found = each.learner.found(each.estimator) if as_found and each.learner.found and not more else {}
            with limit_threads(inputs):
                estimator = each.learner.learn(inputs, targets, context.payload.spec.seed, *more, **found)
        if each.shift is not None and not one.members:
            estimator = decision_shift.shifted(estimator, each.shift)
        made.append(TrainedPredictor(context.payload.task, representation, estimator, one.task_head))
    return blend_members(context, one, made) if one.members else made[0]


def blend_members(
    context: TrainingContext, mean: EvaluatedLearner, made: Sequence[TrainedPredictor]
) -> TrainedPredictor:
    """`made`: each member's model, in their order. Members of one group share its representation."""
    groups = list(dict.fromkeys(each.of.group.name for each in mean.members))
    seen = {each.of.group.name: one.representation for each, one in zip(mean.members, made, strict=True)}
    members = tuple(
        Member(one.estimator, groups.index(each.of.group.name), each.weight, each.temperature)
        for each, one in zip(mean.members, made, strict=True)
    )
    blend: Any = Blend(members, mean.averaged, mean.shift)
    return TrainedPredictor(context.payload.task, Several([seen[name] for name in groups]), blend, mean.task_head)


def mean_log_loss(one: EvaluatedLearner, context: TrainingContext) -> float:
    """Mean log loss of the held-out examples, of those whose label training has seen."""
    losses = log_losses(one.held, one.scores, one.task_head, context)
    return float(losses.mean()) if len(losses) else math.inf


def log_losses(
    held: Sequence[Example], scores: Any, task_head: TaskHead, context: TrainingContext
) -> npt.NDArray[np.float64]:
    targets = context.targets(held)
    shares = answers_of(scores, "classes", float(getattr(task_head, "temperature", 1.0)))
    known = np.flatnonzero(targets >= 0)
    losses: npt.NDArray[np.float64] = -np.log(shares[known, targets[known]] + 1e-12)
    return losses


def find_shift_for_metric(
    context: TrainingContext, scores: Any, held: Sequence[Example]
) -> decision_shift.DecisionShift | None:
    """What is added to scores for the sake of the metric; None where nothing helps."""
    objective = context.payload.objective
    wanted = decision_shift.measure_for(objective.metric, context.task_head.labels, objective.positive_label)
    if wanted is None or context.task_head.family != "classification":
        return None
    groups = [example.group or example.id for example in held]
    return decision_shift.find_shift(scores, context.targets(held), wanted, context.payload.spec.seed, groups)


@contextlib.contextmanager
def limit_threads(inputs: Any) -> Iterator[None]:
    """Few numbers by one thread: several wait for each other in each step, on a busy machine ten times as long. Linear
    algebra takes more for very many numbers alone, where a product lasts longer than the wait."""
    openmp = 1 if _cells(inputs) < _ONE_THREAD_CELLS else openmp_threads()
    with compute_threads(openmp, openmp if has_many_numbers(inputs) else None):
        yield


def has_many_numbers(inputs: Any) -> bool:
    """So many that linear algebra takes several threads."""
    return _cells(inputs) >= _BLAS_CELLS


def _cells(inputs: Any) -> int:
    return int(getattr(inputs, "size", _ONE_THREAD_CELLS))
