"""A learning curve: what the winner is worth when it learns from parts of the examples, and how many would do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.tasks.task import UnsuitableRepresentation
from speciate.training.held_out import measure
from speciate.training.selection.learners import EvaluatedLearner, learn_from, singles
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_metric

_CURVE_SHARES = (0.25, 0.5)
_FEWEST_IN_CURVE = 40
"""Examples that the smallest part of a learning curve has at least."""
_MOST_GROWTH = 1000
"""Times the labels that there are, beyond which a curve says nothing."""


def note_learning_curve(
    context: TrainingContext, best: EvaluatedLearner, sign: int, tell: Callable[[str], None]
) -> None:
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
        tell(f"learning curve, {len(part):,} of {count:,} examples")
        with context.meter.stage("training"):
            try:
                fresh = {each.group.name: each.group.represent(part) for each in singles(best)}
                made = learn_from(context, best, part, fresh)
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


class CurvePoint(NamedTuple):
    """One training on so many examples."""

    examples: int
    value: float


def examples_for(curve: Sequence[CurvePoint], target: float, best_possible: float | None) -> int | None:
    """Training examples with which the error's power law through the points reaches the target (Hestness et al. 2017).

    The law falls to no error at all, so this is the least number that would do. None where the curve does not fall, or
    would need more than a thousand times what there is. Values and target: higher is better.
    """
    if best_possible is None or target >= best_possible or len(curve) < 2:
        return None
    points = [
        (math.log(one.examples), math.log(best_possible - one.value)) for one in curve if best_possible > one.value
    ]
    if len(points) < 2:
        return None
    middle = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
    spread = sum((x - middle[0]) ** 2 for x, _ in points)
    slope = sum((x - middle[0]) * (y - middle[1]) for x, y in points) / spread if spread else 0.0
    if slope >= 0:
        return None
    needed = math.exp(middle[0] + (math.log(best_possible - target) - middle[1]) / slope)
    most = max(one.examples for one in curve)
    return None if needed > _MOST_GROWTH * most else max(math.ceil(needed), most)
