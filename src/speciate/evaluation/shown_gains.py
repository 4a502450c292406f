"""Gains that other rows show than those of the suite: of whom the gate `not_worse` asks less.

On rows that chose a model before, "not worse" is passed by luck unless the rows are many, and a loop that promotes on
it collects luck (`gates._not_worse_without_luck`). Where a candidate is surely better on rows that were drawn anew, its
promotion rests on those; the suite has to show no more than that it is not worse, by the intervals of fresh rows:
what it was asked before widens the others alone (`gates.decide`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Code, SpeciateError
from speciate.evaluation.reports.report import Comparison, Report
from speciate.sample_size import LEVEL
from speciate.use_cases import UseCase
from speciate.workspace.database import Database

_REPORT = "SELECT report FROM evaluations WHERE id = ?"


class ShownGain(BaseModel):
    """An evaluation on other rows, and the level at which its intervals must exclude zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    evaluation: str
    level: float = Field(LEVEL, ge=LEVEL, lt=1)


def is_sure(gain_low: float, p_value: float | None, level: float) -> bool:
    """Whether a gain is surely above zero: by its 95 % interval, and by its p-value at this level. Both, as few
    examples have an exact p-value beside an interval that is not exact."""
    return gain_low > 0 and p_value is not None and p_value <= 1 - level


def of(database: Database, shown: ShownGain, use_case: UseCase) -> tuple[str, ...]:
    """The models that are surely better than its baseline there. Raises INVALID for an evaluation of something else."""
    row = database.read_one(_REPORT, [shown.evaluation])
    report = Report.model_validate_json(row[0]) if row else None
    if report is None or report.use_case != use_case.name or report.metric != use_case.objective.metric:
        raise SpeciateError(
            Code.INVALID, f"{shown.evaluation} is no evaluation of {use_case.name} by {use_case.objective.metric}."
        )
    compare = report.comparer()
    found = [compare(report.baseline, row.model) for row in report.leaderboard if row.model != report.baseline]
    return tuple(each.candidate for each in found if each is not None and _is_gain(each, shown.level))


def _is_gain(comparison: Comparison, level: float) -> bool:
    gain = comparison.improvement()
    return gain is not None and is_sure(gain[1][0], comparison.p_value, level)
