"""All that a page shows of one evaluation, gathered from the report, the stored rows and the media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from speciate import use_cases
from speciate.errors import SpeciateError
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.reports.describe_evaluation import Inspection, against_baseline
from speciate.evaluation.reports.report import BreakEven, Comparison, Pareto, Report, Row, break_even, pareto
from speciate.jobs.pool import Pool
from speciate.use_cases import COLUMN, CONSTANT, UseCase
from speciate.workspace.workspace import Workspace

_PAIRS, _LABELS, _EXAMPLES, _EACH_WAY = 10, 20, 24, 12
_FEWEST_FOR_CONTESTED = 3
_TOLD = ("models", "dataset", "suite", "use_case", "metrics", "candidate", "pick", "baseline", "seed")
"""What the report says itself, or no caller of the tool chooses."""


class PageData(NamedTuple):
    evaluation: str
    created: float
    """Seconds since 1970."""
    report: Report
    use_case: UseCase | None
    baseline: str
    candidate: str
    comparisons: tuple[Comparison, ...]
    pareto: Pareto
    break_even: BreakEven | None
    slices: Mapping[str, Any]
    confusion: Sequence[Mapping[str, Any]]
    calibration: Sequence[Mapping[str, Any]]
    worst: Mapping[str, Any]
    disagreements: Mapping[str, Any] | None
    """None where there is one model."""
    contested: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, bytes]
    """PNGs by example; empty where examples are told by their text."""
    options: Mapping[str, Any]
    """What else the evaluation was asked with, beside models, data and metrics."""

    def role(self, model: str) -> str:
        """`candidate`, `baseline` or `other`: also the class by which the page colours it."""
        return "candidate" if model == self.candidate else "baseline" if model == self.baseline else "other"

    def place(self, model: str) -> int:
        """In the leaderboard, from 1 on: how charts name it."""
        return [row.model for row in self.report.leaderboard].index(model) + 1

    @property
    def main(self) -> Row:
        return self.report.row(self.candidate)


def gather(workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> PageData:
    """Raises NOT_FOUND for an evaluation or a baseline that is not there."""
    found = Inspection(workspace, pool, evaluation, baseline)
    report, models = found.report, found.pair
    worst = found.ask("error_analysis:worst_examples", count=_EXAMPLES)
    differ = found.ask("error_analysis:disagreements", count=_EACH_WAY) if len(models) > 1 else None
    contested = (
        found.ask("error_analysis:contested_examples", count=_EACH_WAY)["examples"]
        if len(report.leaderboard) >= _FEWEST_FOR_CONTESTED
        else []
    )
    shown = [
        *worst["examples"],
        *contested,
        *(differ["candidate_better"] + differ["baseline_better"] if differ else []),
    ]
    return PageData(
        evaluation,
        found.created,
        report,
        _use_case(workspace, report),
        found.baseline,
        found.candidate,
        against_baseline(report, found.baseline),
        pareto(report),
        break_even(report, found.baseline, found.candidate),
        found.ask("slice_metrics:slices_by_columns", but=_answer_columns(report)),
        found.ask("error_analysis:confusion", models=models, pairs=_PAIRS, labels=_LABELS)["models"],
        found.ask("error_analysis:calibration", models=models)["models"],
        worst,
        differ,
        contested,
        found.pictures([one["id"] for one in shown]) if found.has_pictures else {},
        non_default_options(found.spec),
    )


def model_name(model: str) -> str:
    """A model in a sentence."""
    return "the constant answer" if model == CONSTANT else model


def _answer_columns(report: Report) -> list[str]:
    """Columns that hold a contestant's answers: slices by what a model says mislead."""
    return [row.model.removeprefix(COLUMN) for row in report.leaderboard if row.model.startswith(COLUMN)]


def non_default_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not as they are by default."""
    fields = {name: field for name, field in EvaluateSpec.model_fields.items() if not field.is_required()}
    defaults = {
        name: to_jsonable_python(field.get_default(call_default_factory=True)) for name, field in fields.items()
    }
    return {name: value for name, value in spec.items() if name not in _TOLD and value != defaults.get(name)}


def _use_case(workspace: Workspace, report: Report) -> UseCase | None:
    """The version that was asked."""
    if report.use_case is None:
        return None
    try:
        return use_cases.get(workspace.database, report.use_case, report.use_case_version)
    except SpeciateError:
        return None
