"""Kind `measure`: what trainings would cost, by real steps and fits on a sample of the examples. No model is kept."""

from __future__ import annotations

from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.training import train
from speciate.training.estimate import USUAL_SHARE, Known, asked_by, known
from speciate.training.plan import candidates
from speciate.training.specs import Method, Payload
from speciate.workspace.workspace import Workspace


class MeasureSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    use_case: str | None = None
    task: str | None = None
    method: Method | None = None
    base_model: str | None = None
    budget_minutes: float | None = Field(None, gt=0)


def plan(spec: MeasureSpec, workspace: Workspace) -> Plan:
    """Raises what `train.plan` raises of the candidates."""
    wanted = candidates(
        workspace, spec.dataset, use_case=spec.use_case, task=spec.task, method=spec.method, base_model=spec.base_model
    )
    plans = [train.plan(each, workspace) for each in wanted]
    payloads = [Payload.model_validate(each.payload) for each in plans]
    records = known(workspace.database)
    return Plan(
        payload={
            "candidates": [each.payload for each in plans],
            "shares": [done_share(records, payload) for payload in payloads],
            "budget_minutes": spec.budget_minutes,
            "preloads": [each.preload or "" for each in plans],
        },
        resources=Resources(
            cpu=max(each.resources.cpu for each in plans), memory_mb=max(each.resources.memory_mb for each in plans)
        ),
        use_case=spec.use_case,
        resolved={"dataset": payloads[0].dataset, "task": payloads[0].task},
        preload=plans[0].preload,
    )


def done_share(records: Known, payload: Payload) -> float:
    """Of the steps that are planned at most: what like runs did before patience or a met target ended them."""
    asked = asked_by(payload)
    shares = [run.share for run in records.runs if run.share is not None and run.asked.like(asked)]
    return median(shares[:5]) if shares else USUAL_SHARE


KIND = Kind(
    name="measure",
    spec=MeasureSpec,
    plan=plan,
    run="speciate.training.weighing:run",
    limits=Limits(silence_seconds=1800),
)
