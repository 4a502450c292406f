"""One evaluation as a reader wants it: against any baseline, cut into slices, with the worst examples.

The stored report answers most of it; slices and examples come from a service process, which reads the stored rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.evaluation.holm import holm
from speciate.evaluation.report import BreakEven, Comparison, Report, break_even, find, number
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Workspace

_SLICES, _WORST = "speciate.evaluation.slices:by_column", "speciate.evaluation.mistakes:worst"


class Described(NamedTuple):
    report: Report
    baseline: str
    candidate: str
    comparisons: tuple[Comparison, ...]
    """Of the main metric, each model against the baseline, with Holm's p-values."""
    break_even: BreakEven | None
    slices: dict[str, Any] | None
    worst: dict[str, Any] | None
    """Foreign text."""


def describe(
    workspace: Workspace, pool: Pool, evaluation: str, *, baseline: str | None, slice_by: str | None, errors: int
) -> Described:
    """Raises NOT_FOUND for an evaluation, a baseline or a column that is not there."""
    report = find(workspace.database, evaluation)
    against = report.row(baseline).model if baseline else report.baseline
    candidate = report.candidate if report.candidate != against else report.leaderboard[0].model
    asked = {
        "folder": str(workspace.folders.evaluations / evaluation),
        "metric": report.metric,
        "baseline": against,
        "candidate": candidate,
        "column": slice_by,
        "count": errors,
    }
    return Described(
        report,
        against,
        candidate,
        against_baseline(report, against),
        break_even(report, against, candidate),
        pool.ask(_SLICES, asked) if slice_by else None,
        pool.ask(_WORST, asked) if errors else None,
    )


def against_baseline(report: Report, baseline: str) -> tuple[Comparison, ...]:
    """Every other model against this baseline under the main metric."""
    pairs = [report.compare(baseline, row.model) for row in report.leaderboard if row.model != baseline]
    return with_holm([pair for pair in pairs if pair is not None])


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """With p-values adjusted for being looked at together."""
    values = holm([math.nan if c.p_value is None else c.p_value for c in comparisons])
    return tuple(c.model_copy(update={"p_holm": number(p)}) for c, p in zip(comparisons, values, strict=True))
