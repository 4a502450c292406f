"""Kind `shortlist`: which of several base models are worth a training; and how the cascade uses its report.

Base models are compared by their frozen vectors of the user's examples (transferability.py). No model is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Child, ChildRequest, Kind, Plan
from speciate.training import train
from speciate.training.planning.brief_tuning import TUNED_FAMILIES, TUNING_MB
from speciate.training.planning.transferability import FAMILIES, KEEP, comparable, kept_base_models
from speciate.training.train_spec import Candidate, Payload, TrainSpec
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


class ShortlistPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    candidates: dict[str, Payload]
    """Base model -> a probe on it."""
    unsuited: dict[str, str]
    """Base model -> why it cannot be compared."""
    seconds: float | None = None
    keep: int
    seed: int


def plan(spec: ShortlistSpec, workspace: Workspace) -> Plan[ShortlistPayload]:
    """Raises what `train.plan` raises where no base model suits, and INVALID for a task that has no such scores."""
    plans, unsuited, refusal = dict[str, Plan[Payload]](), dict[str, str](), None
    for base_model in dict.fromkeys(spec.base_models):
        try:
            plans[base_model] = train.plan(_probe_spec(spec, base_model), workspace)
        except SpeciateError as error:
            unsuited[base_model], refusal = error.message, error
    if not plans:
        assert refusal is not None
        raise refusal
    payload = next(iter(plans.values())).payload
    if find_task(payload.task).family not in FAMILIES:
        raise SpeciateError(
            Code.INVALID,
            f"Base models cannot be compared by their vectors for {payload.task}.",
            "Call specialize with the base_models to try.",
        )
    tuning = TUNING_MB if find_task(payload.task).family in TUNED_FAMILIES else 0
    return Plan(
        payload=ShortlistPayload(
            candidates={name: each.payload for name, each in plans.items()},
            unsuited=unsuited,
            seconds=60 * spec.budget_minutes if spec.budget_minutes else None,
            keep=spec.keep,
            seed=spec.seed,
        ),
        resources=Resources(
            cpu=max(each.resources.cpu for each in plans.values()),
            memory_mb=max(each.resources.memory_mb for each in plans.values()) + tuning,
        ),
        use_case=spec.use_case,
        resolved={"dataset": payload.dataset, "task": payload.task},
        preload=next(iter(plans.values())).preload,
    )


def is_worthwhile(family: Family, base_models: Sequence[str]) -> bool:
    """Whether there are so many that one would be left out, and the task's examples can compare them."""
    return family in FAMILIES and sum(map(comparable, base_models)) > KEEP


def _probe_spec(spec: ShortlistSpec, base_model: str) -> TrainSpec:
    return TrainSpec(
        name="planned-model", dataset=spec.dataset, method="probe", base_model=base_model, use_case=spec.use_case,
        task=spec.task, seed=spec.seed,
    )  # fmt: skip


KIND = Kind(
    name="shortlist",
    spec=ShortlistSpec,
    plan=plan,
    run="speciate.training.planning.shortlist_run:run",
    limits=Limits(silence_seconds=1800),
)


SHORTLIST_STEP = "shortlist"
"""The step."""
_BUDGET_SHARE = 1 / 3
"""Share of the budget left that goes into comparing base models, at most. Their vectors stay for the probes."""


def comparable_base_models(candidates: Sequence[Candidate]) -> list[str]:
    """Base models that a shortlist compares: each once, in their order."""
    found = (candidate.base_model for candidate in candidates if not candidate.continue_from and not candidate.like)
    return list(dict.fromkeys(base for base in found if base is not None and comparable(base)))


def shortlist_request(
    candidates: Sequence[Candidate], *, use_case: str, dataset: str, seed: int, seconds_left: float, grace: float
) -> ChildRequest:
    seconds = _BUDGET_SHARE * seconds_left
    return ChildRequest(
        step=SHORTLIST_STEP,
        kind="shortlist",
        spec={
            "dataset": dataset,
            "use_case": use_case,
            "base_models": comparable_base_models(candidates),
            "budget_minutes": seconds / 60,
            "seed": seed,
        },
        run_seconds=seconds + grace,
    )


def shortlist_report(children: Sequence[Child]) -> Mapping[str, Any] | None:
    """The shortlist's report; None where there is none, and nothing is excluded."""
    return next((child.result["report"] for child in children if child.step == SHORTLIST_STEP and child.result), None)


def keep_shortlisted(candidates: Sequence[Candidate], report: Mapping[str, Any] | None) -> list[Candidate]:
    """Without the base models that the shortlist left out; of each method the most promising ones first."""
    if report is None:
        return list(candidates)
    order = kept_base_models(report)
    left = [one for one in candidates if not comparable_base_models([one]) or one.base_model in order]
    for method in {one.method for one in left}:
        places = [place for place, one in enumerate(left) if one.method == method and comparable_base_models([one])]
        best_first = sorted((left[place] for place in places), key=lambda one: order.index(one.base_model or ""))
        for place, candidate in zip(places, best_first, strict=True):
            left[place] = candidate
    return left
