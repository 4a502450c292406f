"""The model that a training keeps, with its value on held-out examples and the candidates that it was chosen among."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from speciate.evaluation.statistics import Estimate
from speciate.tasks.task import SavablePredictor
from speciate.training.training_report import CandidateRow, MemberRow, Validation


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
    nested: Estimate | None = None
    """What the choice is worth on examples that had no part in it, where that was asked."""
    members: tuple[MemberRow, ...] = ()
    """The learners that it answers by; empty for a network."""

    def validation(self) -> Validation:
        """The winner's value as JSON; what does not exist is None."""
        low, high, error = map(_finite_or_none, (self.best.low, self.best.high, self.best.standard_error))
        interval = None if low is None or high is None else [low, high]
        found: Validation = {
            "value": _finite_or_none(self.best.value), "interval": interval, "standard_error": error, "n": self.best.n,
            "how": self.how, "method": self.best.method,
        }  # fmt: skip
        if self.nested is not None:
            value, error = map(_finite_or_none, (self.nested.value, self.nested.standard_error))
            found["nested"] = {"value": value, "standard_error": error}
        return found


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def seconds_of(names: Iterable[str], tried: Sequence[CandidateResult]) -> float:
    """What the candidates of these names took together."""
    wanted = set(names)
    return sum(one.seconds for one in tried if one.name in wanted)
