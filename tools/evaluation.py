"""Models side by side on the same examples, with intervals, costs and the use case's verdict."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from speciate.evaluation.describe import Described, describe
from speciate.evaluation.leaderboard import draw
from speciate.evaluation.report import BreakEven, Comparison, Decision, Row
from speciate.server.surface import (
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    Picture,
    Result,
    start_job,
    tool,
)  # fmt: skip


class Slice(Result):
    value: str
    n: int
    baseline: float | None = None
    candidate: float | None = None
    delta: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    minimum_detectable_effect: float | None = None


class Foreign(Result):
    worst_examples: tuple[dict[str, Any], ...]


class EvaluationView(Result):
    evaluation: str
    dataset: str
    use_case: str | None = None
    metric: str
    better: Literal["higher", "lower"]
    n: int
    clusters: int = Field(description="Independent groups among the n examples.")
    baseline: str
    candidate: str
    leaderboard: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = Field(description="Candidate minus baseline.")
    slices: tuple[Slice, ...] | None = None
    slice_metric: str | None = None
    slices_left_out: int | None = None
    break_even: BreakEven | None = None
    decision: Decision | None = None
    notes: tuple[str, ...]
    wrong: int | None = Field(None, description="Examples that the candidate got wrong.")
    untrusted: Foreign | None = None

    @classmethod
    def of(cls, evaluation: str, found: Described) -> EvaluationView:
        report, cut, worst = found.report, found.slices, found.worst
        return cls(
            evaluation=evaluation,
            dataset=report.dataset,
            use_case=report.use_case,
            metric=report.metric,
            better=report.better,
            n=report.n,
            clusters=report.clusters,
            baseline=found.baseline,
            candidate=found.candidate,
            leaderboard=report.leaderboard,
            comparisons=found.comparisons,
            slices=tuple(Slice(**one) for one in cut["slices"]) if cut else None,
            slice_metric=cut["metric"] if cut else None,
            slices_left_out=cut["left_out"] if cut else None,
            break_even=found.break_even,
            decision=report.decision,
            notes=report.notes,
            wrong=worst["wrong"] if worst else None,
            untrusted=Foreign(worst_examples=tuple(worst["examples"])) if worst else None,
        )


@tool()
def evaluate_models(
    app: App,
    models: Annotated[
        list[str],
        Field(
            min_length=1, max_length=20, description="Refs, 'column:NAME' or 'constant:'; the last is the candidate."
        ),
    ],
    dataset: Annotated[str | None, Field(description="Its test split unless another is named.")] = None,
    suite: Annotated[Literal["core", "heldout", "regression"] | None, Field(description="Of the use case.")] = None,
    use_case: str | None = None,
    metrics: list[str] | None = None,
    latency: bool = True,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Compare models on examples that they have not seen. With use_case also against its incumbent, and a decision.

    To read the result, call describe_evaluation.
    """
    spec = {
        "models": models,
        "dataset": dataset,
        "suite": suite,
        "use_case": use_case,
        "metrics": metrics or [],
        "latency": latency,
    }
    return start_job(app, "evaluate", spec, idempotency_key=idempotency_key, dry_run=dry_run)


@tool(read_only=True)
def describe_evaluation(
    app: App,
    evaluation: str,
    baseline: Annotated[str | None, Field(description="Default: the incumbent.")] = None,
    slice_by: Annotated[str | None, Field(description="A column of the dataset, or 'label'.")] = None,
    errors: Annotated[int, Field(ge=0, le=50, description="How many of the worst examples to show.")] = 0,
    picture: bool = False,
) -> tuple[EvaluationView, *tuple[Picture, ...]]:
    """Leaderboard, paired comparisons with intervals, costs and the decision of one evaluation."""
    found = describe(app.workspace, app.pool, evaluation, baseline=baseline, slice_by=slice_by, errors=errors)
    view = EvaluationView.of(evaluation, found)
    return (view, Picture(draw(found.report))) if picture else (view,)
