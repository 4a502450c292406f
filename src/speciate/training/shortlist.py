"""Kind `shortlist`: which of several base models are worth a training, told by their frozen vectors of the user's
examples. No model is made."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.training import train
from speciate.training.pruning import FAMILIES, KEEP, comparable
from speciate.training.specs import Payload, TrainSpec
from speciate.vocabulary import Family, find_task
from speciate.workspace.workspace import Workspace


class ShortlistSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    base_models: tuple[str, ...] = Field(min_length=2)
    use_case: str | None = None
    task: str | None = None
    budget_minutes: float | None = Field(None, gt=0)
    keep: int = Field(KEEP, ge=3)
    seed: int = 0


def plan(spec: ShortlistSpec, workspace: Workspace) -> Plan:
    """Raises what `train.plan` raises where no base model suits, and INVALID for a task that has no such scores."""
    plans, unsuited, refusal = dict[str, Plan](), dict[str, str](), None
    for base_model in dict.fromkeys(spec.base_models):
        try:
            plans[base_model] = train.plan(_probe(spec, base_model), workspace)
        except SpeciateError as error:
            unsuited[base_model], refusal = error.message, error
    if not plans:
        assert refusal is not None
        raise refusal
    payload = Payload.model_validate(next(iter(plans.values())).payload)
    if find_task(payload.task).family not in FAMILIES:
        raise SpeciateError(
            Code.INVALID,
            f"Base models cannot be compared by their vectors for {payload.task}.",
            "Call specialize with the base_models to try.",
        )
    return Plan(
        payload={
            "candidates": {name: each.payload for name, each in plans.items()},
            "unsuited": unsuited,
            "seconds": 60 * spec.budget_minutes if spec.budget_minutes else None,
            "keep": spec.keep,
            "seed": spec.seed,
        },
        resources=Resources(
            cpu=max(each.resources.cpu for each in plans.values()),
            memory_mb=max(each.resources.memory_mb for each in plans.values()),
        ),
        use_case=spec.use_case,
        resolved={"dataset": payload.dataset, "task": payload.task},
        preload=next(iter(plans.values())).preload,
    )


def pays(family: Family, base_models: Sequence[str]) -> bool:
    """Whether there are so many that one would be left out, and the task's examples can compare them."""
    return family in FAMILIES and sum(map(comparable, base_models)) > KEEP


def _probe(spec: ShortlistSpec, base_model: str) -> TrainSpec:
    return TrainSpec(
        name="planned-model", dataset=spec.dataset, method="probe", base_model=base_model, use_case=spec.use_case,
        task=spec.task, seed=spec.seed,
    )  # fmt: skip


KIND = Kind(
    name="shortlist",
    spec=ShortlistSpec,
    plan=plan,
    run="speciate.training.promising:run",
    limits=Limits(silence_seconds=1800),
)
