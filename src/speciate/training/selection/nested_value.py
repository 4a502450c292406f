"""What a choice among candidates is worth on examples that had no part in it.

The best of several seems better than it is, the more so the more there are and the fewer examples judge them (Cawley &
Talbot 2010, "On over-fitting in model selection"). A search whose value is nested cannot be compared with such a value.
So the choice is made anew without each fifth of the held-out examples, and that fifth judges it: nothing is learned
again, for each candidate has answered them all. How a decision is shifted is chosen anew, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.evaluation.statistics import Estimate
from speciate.models.blend import answers_of, as_scores
from speciate.tasks.task import Prediction, predict_examples
from speciate.training.held_out import measure, measure_answers
from speciate.training.selection.learners import EvaluatedLearner, find_shift_for_metric, signed_standing
from speciate.training.training_context import TrainingContext

Places = npt.NDArray[np.int64]
_PARTS, _MOST_HELD = 5, 5000
"""Parts of the examples; examples beyond which a choice among few is as good as unbiased."""


def nested_estimate(
    context: TrainingContext,
    every: Sequence[EvaluatedLearner],
    sign: int,
    choose: Callable[[Sequence[EvaluatedLearner]], EvaluatedLearner],
) -> Estimate | None:
    """`every`: the candidates, in their order, with scores on the same held-out examples. None where that cannot be
    asked: of one group, of very many examples, or where a budget has ended."""
    held = list(every[0].held)
    names = [example.group or example.id for example in held]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    if len(numbers) < _PARTS or len(held) > _MOST_HELD or any(len(one.scores) != len(held) for one in every):
        return None
    part = np.random.default_rng(context.payload.spec.seed).permutation(len(numbers)) % _PARTS
    parts, given = part[[numbers[name] for name in names]], dict[int, Prediction]()
    for number in range(_PARTS):
        context.checkpoint()
        if context.over_budget:
            return None
        own, rest = np.flatnonzero(parts == number), np.flatnonzero(parts != number)
        chosen = choose([_judged_on(context, one, rest, sign) for one in every])
        answers = predict_examples(chosen.task_head, _scores_on(every, chosen, own), [held[place] for place in own])
        given |= dict(zip(own.tolist(), answers, strict=True))
    return measure_answers(context, context.task_head, held, [given[place] for place in range(len(held))])


def _judged_on(context: TrainingContext, one: EvaluatedLearner, places: Places, sign: int) -> EvaluatedLearner:
    """The candidate as these examples alone judge it."""
    held, scores = [one.held[place] for place in places], one.scores[places]
    task_head = context.task_head.calibrated(scores, context.targets(held))
    shift = None if one.shift is None else find_shift_for_metric(context, scores, held)
    estimate = measure(context, task_head, held, scores if shift is None else scores + shift.unseen)
    return one._replace(
        held=held, scores=scores, task_head=task_head, shift=None if shift is None else shift.by, estimate=estimate,
        standing=signed_standing(sign, estimate.value), whole=one.representation, fitted=None,
    )  # fmt: skip


def _scores_on(every: Sequence[EvaluatedLearner], chosen: EvaluatedLearner, places: Places) -> Any:
    whole = {one.name: one.scores for one in every}
    if not chosen.members:
        scores = whole[chosen.name][places]
    else:
        total: Any = sum(
            each.weight * answers_of(whole[each.of.name][places], chosen.averaged, each.temperature)
            for each in chosen.members
        )
        scores = as_scores(np.asarray(total), chosen.averaged)
    return scores if chosen.shift is None else scores + chosen.shift
