"""The evaluations of a training by reward: which one is the best, and what chance would make of their differences.

All are of the same held-out examples, so two of them are compared example by example. Scores are kept of those alone
that a later one is compared with; of the others, what such comparisons said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from speciate.evaluation.statistics import Difference, paired_difference
from speciate.training.language.reinforcement.hacking import Held, best


class Evaluations:
    def __init__(self, groups: Sequence[str], keep_by: Literal["metric", "reward"]) -> None:
        """`groups`: of the examples that have a truth, in their order; those of one group are not independent.
        `keep_by`: what the best one is best in; among equals the other one decides, then the earlier step."""
        self.clusters = np.unique(np.array(groups), return_inverse=True)[1]
        self._keep_by = keep_by
        self.held: list[Held] = []
        self.scores: dict[int, list[float]] = {}
        """By step, of the first, the best and the newest evaluation, and of the one with the best metric: the metric of
        each example that has a truth. Empty of a corpus metric."""
        self._kept: int | None = None

    def see(self, row: Held, scores: list[float]) -> bool:
        """Whether it is the best one so far."""
        self.scores[row.step] = scores
        if self.held:
            p_since_first = self._p_value(self.held[0], row)
            row = row._replace(p_since_first=p_since_first, p_since_best=self._p_value(best(self.held), row))
        self.held.append(row)
        better = self._kept is None or self.rank(row) > self.rank(self.kept)
        if better:
            self._kept = row.step
        compared = {each.step for each in (self.held[0], best(self.held), self.kept, row) if each is not None}
        self.scores = {step: each for step, each in self.scores.items() if step in compared}
        return better

    @property
    def kept(self) -> Held:
        """The best one; there must be one."""
        return next(each for each in self.held if each.step == self._kept)

    def difference(self, earlier: int, later: int) -> Difference | None:
        """Of the metric's own numbers at these steps, later minus earlier; None where they are not known."""
        before, after = self.scores.get(earlier), self.scores.get(later)
        if not before or not after or len(before) != len(after):
            return None
        return paired_difference(before, after, self.clusters)

    def _p_value(self, earlier: Held | None, later: Held) -> float:
        found = None if earlier is None else self.difference(earlier.step, later.step)
        return math.nan if found is None else found.p_value

    def rank(self, row: Held) -> tuple[float, float]:
        """The larger the better."""
        known = [value if math.isfinite(value) else -math.inf for value in (row.metric, row.reward)]
        judged = any(math.isfinite(each.metric) for each in self.held)
        first, second = known if self._keep_by == "metric" and judged else reversed(known)
        return first, second

    def state(self) -> dict[str, Any]:
        """As JSON, which has no number for NaN."""
        return {
            "held": [[plain(value) for value in each] for each in self.held],
            "scores": {str(step): [plain(value) for value in each] for step, each in self.scores.items()},
        }

    def restore(self, state: dict[str, Any], kept: int | None) -> None:
        """`kept`: the step of the best one. Evaluations of older checkpoints, which were not compared by example, have
        no p-values: those stay unknown."""
        self.held = [Held(int(each[0]), *map(number, each[1:])) for each in state["held"]]
        self.scores = {int(step): [number(value) for value in each] for step, each in state["scores"].items()}
        self._kept = kept


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
