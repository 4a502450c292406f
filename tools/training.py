"""Training: what could be done, one method, or the whole way to the right model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.server.surface import (
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    NextAction,
    Result,
    start_job,
    tool,
)
from speciate.training import plan as planning
from speciate.training.plan import Candidate, Refused
from speciate.training.specs import Method

DatasetName = Annotated[str, Field(description="name or name@v3.")]
BaseModel = Annotated[str | None, Field(description="Such as pkg:minilm; default: what suits the modality.")]
Minutes = Annotated[float, Field(gt=0, le=100_000, description="Of run time, all jobs together.")]


class TrainingPlan(Result):
    dataset: str
    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    needed_test_examples: int | None = None
    test_examples: int
    next_actions: tuple[NextAction, ...] = ()


@tool(read_only=True)
def plan_training(
    app: App,
    dataset: DatasetName,
    use_case: str | None = None,
    task: str | None = None,
    base_model: BaseModel = None,
    method: Method | None = None,
    budget_minutes: Minutes | None = None,
) -> TrainingPlan:
    """What could be trained on a dataset, how long, and what not and why. To do it, call specialize or train_model."""
    plan = planning.plan_training(
        app.workspace,
        dataset,
        use_case=use_case,
        task=task,
        method=method,
        base_model=base_model,
        budget_minutes=budget_minutes,
    )
    specialize_it = NextAction(
        tool="specialize", arguments={"use_case": use_case, "dataset": plan.dataset, "budget_minutes": 5}
    )
    return TrainingPlan(
        dataset=plan.dataset,
        candidates=plan.candidates,
        refused=plan.refused,
        needed_test_examples=plan.needed_test_examples,
        test_examples=plan.test_examples,
        next_actions=(specialize_it,) if use_case else (),
    )


@tool()
def train_model(
    app: App,
    name: Annotated[str, Field(description="The model gets the next version of this name.")],
    dataset: DatasetName,
    method: Method,
    base_model: BaseModel = None,
    use_case: str | None = None,
    task: str | None = None,
    target: Annotated[str | None, Field(description="Column to learn; default: the label.")] = None,
    hyperparameters: dict[str, Any] | None = None,
    seed: int = 0,
    budget_minutes: Minutes | None = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Train one method on a dataset as a job. To try several and judge them, call specialize."""
    spec = {
        "name": name,
        "dataset": dataset,
        "method": method,
        "base_model": base_model,
        "use_case": use_case,
        "task": task,
        "target": target,
        "hyperparameters": hyperparameters or {},
        "seed": seed,
        "budget_minutes": budget_minutes,
    }
    return start_job(app, "train", spec, idempotency_key=idempotency_key, dry_run=dry_run)


@tool()
def specialize(
    app: App,
    use_case: str,
    dataset: DatasetName,
    budget_minutes: Minutes,
    base_models: list[str] | None = None,
    methods: Annotated[list[Method] | None, Field(description="Default: from the cheapest up.")] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Find the right model for a use case: train from cheap to dear, judge against what serves, promote if earned.

    For one training alone, call train_model.
    """
    spec = {
        "use_case": use_case,
        "dataset": dataset,
        "budget_minutes": budget_minutes,
        "base_models": base_models or [],
        "methods": methods or [],
    }
    return start_job(app, "specialize", spec, idempotency_key=idempotency_key, dry_run=dry_run)
