"""One evaluation as a reader wants it: against any baseline, cut into slices, with what it got wrong and how it looks.

The stored report answers most of it; the rest comes from service processes, which read the stored rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from speciate.evaluation.holm import holm
from speciate.evaluation.inspection import Inspection
from speciate.evaluation.pareto import Pareto, pareto
from speciate.evaluation.report import BreakEven, Comparison, Report, Row, break_even, number
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Workspace

Part = Literal["confusion", "calibration", "disagreements", "metrics", "all_models"]

_PAIRS, _LABELS = 10, 12
_MOST_MODELS, _WITH_METRICS = 10, 4
_DISAGREEMENTS = 5


class Described(NamedTuple):
    report: Report
    baseline: str
    candidate: str
    rows: tuple[Row, ...]
    """Of the leaderboard, the best first."""
    models_left_out: int
    comparisons: tuple[Comparison, ...]
    """Of the main metric, each of these models against the baseline, with Holm's p-values."""
    pareto: Pareto
    break_even: BreakEven | None
    slices: dict[str, Any] | None
    confusion: list[dict[str, Any]] | None
    calibration: list[dict[str, Any]] | None
    worst: dict[str, Any] | None
    """Foreign text."""
    disagreements: dict[str, Any] | None
    """Foreign text but for `tally`."""
    unscored: dict[str, Any] | None
    """What a scorer failed on; `first` of it is foreign text."""
    sheet: bytes | None
    """The worst examples as they look, numbered as they are listed."""


def describe(
    workspace: Workspace,
    pool: Pool,
    evaluation: str,
    *,
    baseline: str | None,
    slice_by: str | None,
    errors: int,
    show: Collection[Part] = (),
) -> Described:
    """Raises NOT_FOUND for an evaluation, a baseline or a column that is not there."""
    found = Inspection(workspace, pool, evaluation, baseline)
    report, against = found.report, found.baseline
    rows = report.leaderboard if "all_models" in show else _foremost(report, found.pair)
    names = {row.model for row in rows}
    worst = found.ask("mistakes:worst", count=errors) if errors else None
    confusion = (
        found.ask("confusion:confused", models=found.pair, pairs=_PAIRS, labels=_LABELS)
        if "confusion" in show
        else None
    )
    calibration = found.ask("reliability:calibrated", models=found.pair) if "calibration" in show else None
    return Described(
        report,
        against,
        found.candidate,
        rows if "metrics" in show or len(rows) <= _WITH_METRICS else tuple(_without_metrics(row) for row in rows),
        len(report.leaderboard) - len(rows),
        tuple(each for each in against_baseline(report, against) if each.candidate in names),
        pareto(report),
        break_even(report, against, found.candidate),
        found.ask("slices:by_column", column=slice_by) if slice_by else None,
        confusion["models"] if confusion else None,
        calibration["models"] if calibration else None,
        worst,
        found.ask("disagreements:disagreed", count=errors or _DISAGREEMENTS) if "disagreements" in show else None,
        found.ask("mistakes:unscored") if found.has_unscored else None,
        found.sheet(captions(worst["examples"])) if worst and found.has_pictures else None,
    )


def captions(examples: Sequence[dict[str, Any]]) -> dict[str, str]:
    """`3: cat, not dog` by id: its place in the list, the truth, and what was answered."""
    return {one["id"]: f"{place}: {_short(one)}" for place, one in enumerate(examples, 1)}


def against_baseline(report: Report, baseline: str) -> tuple[Comparison, ...]:
    """Every other model against this baseline under the main metric."""
    pairs = [report.compare(baseline, row.model) for row in report.leaderboard if row.model != baseline]
    return with_holm([pair for pair in pairs if pair is not None])


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """With p-values adjusted for being looked at together."""
    values = holm([math.nan if c.p_value is None else c.p_value for c in comparisons])
    return tuple(c.model_copy(update={"p_holm": number(p)}) for c, p in zip(comparisons, values, strict=True))


def _foremost(report: Report, always: Collection[str]) -> tuple[Row, ...]:
    """The best ten models, and those that the question is about."""
    return tuple(row for place, row in enumerate(report.leaderboard) if place < _MOST_MODELS or row.model in always)


def _without_metrics(row: Row) -> Row:
    """The main metric is in the row itself."""
    return row.model_copy(update={"metrics": {}})


def _short(example: dict[str, Any]) -> str:
    truth = _number(example["truth"])
    return f"{truth}, not {_number(example['output'])}" if "output" in example else f"{truth}, no answer"


def _number(cell: str | float) -> str:
    """Numbers, which truths hold as text, to four digits; labels as they are."""
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return str(cell)[:12]
