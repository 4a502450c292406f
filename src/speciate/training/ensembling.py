"""Which of the candidates that were tried answer better together: greedy ensemble selection on held-out scores.

Candidates cost their training anyway, so a mean of them costs nothing more to find. It is chosen by a proper loss (log
loss, squared or absolute error), which few examples measure better than they do an accuracy; the objective's metric
then decides whether the mean is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.blend import MEMBER_FORMS, Averaged, answers_of, as_scores, choose_members
from speciate.tasks.task import TaskHead
from speciate.vocabulary import Family, is_absolute

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
