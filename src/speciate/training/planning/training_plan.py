"""The trainings that are possible on a dataset, with estimates, and why others are not; kind `measure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.datasets import split_warnings, versions
from speciate.datasets.columns import alike_class_warnings
from speciate.datasets.leaks import group_warnings, leaks_of_report
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.rare_labels import count_test_rows, frequent_label_warnings, rare_label_warnings
from speciate.jobs.egress import NotAllowed
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan, rounded
from speciate.sample_size import counted_share, in_rows, is_rough, to_show_target
from speciate.settings import HERE
from speciate.tasks.example_targets import is_label, usual_task
from speciate.tasks.families import preference
from speciate.training import train
from speciate.training.hyperparameters import in_use
from speciate.training.planning.available_methods import (
    TABLE_FAMILIES,
    all_candidates,
    candidates_for_base,
    unavailable_candidates,
)
from speciate.training.planning.estimates import (
    USUAL_STEPS_SHARE,
    KnownCosts,
    example_count,
    known_costs,
    request_of,
)
from speciate.training.planning.part_encoders import that_read_a_part
from speciate.training.train_spec import METHOD_DESCRIPTIONS, Candidate, Method, Payload, RequestedResources, TrainSpec
from speciate.use_cases import Aim, UseCase
from speciate.vocabulary import Family, find_task
from speciate.workspace.workspace import Workspace


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateEstimate(_Frozen):
    """None: not known before a like run was recorded here."""

    seconds: float | None = None
    peak_memory_mb: int | None = None
    usd: float | None = None
    p95_latency_ms: float | None = None
    known_from: tuple[str, ...] = Field((), description="Jobs that it comes from; or 'measured', 'shipped'.")


class PlannedCandidate(_Frozen):
    method: Method
    base_model: str | None = None
    hyperparameters: dict[str, object]
    head: Literal["published", "new"] | None = None
    """Whether the head that the base model was published with is kept; None where it has none for this task."""
    estimate: CandidateEstimate
    why: str


class UnavailableCandidate(_Frozen):
    method: Method
    base_model: str | None = None
    why: str


class TrainingPlan(_Frozen):
    dataset: str
    candidates: tuple[PlannedCandidate, ...]
    """Candidates from cheap to dear."""
    refused: tuple[UnavailableCandidate, ...]
    needed_test_examples: int | None
    """Test rows of all labels to show the use case's target; None where it has none. By the variance of its metric at
    the labels' present shares; where `target_column` hides them, of recall and the like rows of that label alone."""
    test_examples: int
    warnings: tuple[str, ...] = ()
    """Labels that a split lacks, which neither of the numbers above knows of, leaks of the split, and inputs that hold
    answers of the system in use."""


def plan_training(
    workspace: Workspace,
    dataset: str,
    *,
    use_case: str | None = None,
    task: str | None = None,
    method: Method | None = None,
    base_model: str | None = None,
    budget_minutes: float | None = None,
) -> TrainingPlan:
    """Raises what `train.plan` raises where nothing can be trained, or the one thing that was asked for cannot."""
    found = versions.version(workspace.database, dataset)
    manifest = found.manifest
    family = _family(workspace, manifest, use_case, task)
    named = use_cases.get(workspace.database, use_case) if use_case else None
    tested = count_test_rows(workspace.folders, manifest, named)
    needed = _needed_test_examples(named, manifest, tested)
    specs = candidate_specs(workspace, dataset, use_case=use_case, task=task, method=method, base_model=base_model)
    if named and not (method or base_model):
        specs += [
            specs[0].model_copy(update={"hyperparameters": {"thorough": True}, "budget_minutes": budget_minutes})
            for _ in thorough_candidates(manifest, family, named.objective.aim)
        ]
    planned = [_plan_candidate(workspace, spec) for spec in specs]
    late = [each for each in planned if budget_minutes and (each.estimate.seconds or 0) > 60 * budget_minutes]
    no = [
        UnavailableCandidate(
            method=each.method,
            base_model=each.base_model,
            why=f"Takes about {each.estimate.seconds:.0f} s, more than the budget of {budget_minutes:g} minutes"
            f"{_SHORTENED if each.method in _OF_EPOCHS else ''}.",
        )
        for each in late
    ]
    no += [
        UnavailableCandidate(method=candidate.method, base_model=candidate.base_model, why=why)
        for candidate, why in unavailable_candidates(manifest.modality, family)
    ]
    return TrainingPlan(
        dataset=manifest.ref,
        candidates=tuple(each for each in planned if each not in late),
        refused=tuple(no),
        needed_test_examples=None if needed is None else needed.rows,
        test_examples=manifest.splits.get("test", 0),
        warnings=(
            *split_warnings.warnings_of_report(found.report),
            *leaks_of_report(found.report),
            *group_warnings(found.report.get("split") or {}),
            *alike_class_warnings({} if manifest.numeric else manifest.labels),
            *train.answers_among_inputs(workspace.database, manifest, named),
            *(rare_label_warnings(named.metric.name, tested) if named else ()),
            *frequent_label_warnings(named, manifest),
            *(_doubts_of(needed, found.report.get("split") or {}) if needed else ()),
        ),
    )


_OF_EPOCHS = ("lora", "full")
_SHORTENED = " if all its epochs are trained; specialize trains fewer where some fit"
_FEWEST_TO_SEARCH = 60
"""Examples: by fewer a choice among a hundred configurations is luck."""


def thorough_candidates(manifest: Manifest, family: Family, aim: Aim) -> list[Candidate]:
    """The last step of a search on a table where the best is wanted; none elsewhere."""
    searches = aim == "best" and manifest.modality == "tabular" and family in TABLE_FAMILIES
    enough = example_count(manifest) >= _FEWEST_TO_SEARCH
    return [Candidate(method="classical", thorough=True)] if searches and enough else []


def candidate_specs(
    workspace: Workspace,
    dataset: str,
    *,
    use_case: str | None,
    task: str | None,
    method: Method | None,
    base_model: str | None,
) -> list[TrainSpec]:
    """The possible trainings, cheapest first. If none is as requested, the request itself: its plan says why not."""
    manifest = versions.resolve(workspace.database, dataset)
    if use_case is not None:
        task = use_cases.get(workspace.database, use_case).task
    family = _family(workspace, manifest, None, task)
    if task == preference.PREFERENCE or method == preference.REWARD:
        wanted = [Candidate(method=preference.REWARD, base_model=base_model)]
    elif base_model and method is None:
        wanted = candidates_for_base(base_model, manifest.modality, family, workspace)
    else:
        wanted = [
            candidate
            for candidate in that_read_a_part(workspace, manifest, all_candidates(workspace, manifest.modality, family))
            if method in (None, candidate.method) and base_model in (None, candidate.base_model)
        ] or [Candidate(method=method or ("sft" if family == "generation" else "classical"), base_model=base_model)]
    return [
        TrainSpec(
            name="planned-model", dataset=dataset, method=candidate.method, base_model=candidate.base_model, task=task,
            use_case=use_case, hyperparameters={"tabm": True} if candidate.tabm else {},
        )
        for candidate in wanted
    ]  # fmt: skip


def _family(workspace: Workspace, manifest: Manifest, use_case: str | None, task: str | None) -> Family:
    if use_case is not None:
        task = use_cases.get(workspace.database, use_case).task
    task = task or usual_task(manifest)
    return find_task(task).family if task else "regression" if manifest.numeric else "classification"


_TABM = "The usual learners and TabM, a network for tables: takes longer than without."
_THOROUGH = "Many configurations of the learners, and a mean of the best: specialize runs it last, with what is left."


def _plan_candidate(workspace: Workspace, spec: TrainSpec) -> PlannedCandidate:
    plan = train.plan(spec, workspace)
    payload = plan.payload
    candidate = Candidate(method=spec.method, base_model=payload.spec.base_model)
    assert candidate.method is not None, "candidate_specs names one"
    return PlannedCandidate(
        method=candidate.method,
        base_model=candidate.base_model,
        hyperparameters=in_use(payload.parameters, find_task(payload.task).family),
        head=payload.head,
        estimate=CandidateEstimate(
            seconds=rounded(plan.seconds),
            peak_memory_mb=plan.peak_memory_mb,
            usd=rounded(plan.usd),
            p95_latency_ms=rounded(plan.p95_latency_ms),
            known_from=plan.known_from,
        ),
        why=_why(payload.parameters) or METHOD_DESCRIPTIONS[candidate.method],
    )


def _why(parameters: object) -> str | None:
    if getattr(parameters, "thorough", None):
        return _THOROUGH
    return _TABM if getattr(parameters, "tabm", None) else None


class _NeededRows(NamedTuple):
    rows: int
    rough: str | None
    """The metric, where the figure takes it as a share of right answers though it is none."""


def _needed_test_examples(
    use_case: UseCase | None, manifest: Manifest, tested: Mapping[str, int]
) -> _NeededRows | None:
    """`tested`: test rows by label, where they were counted."""
    if use_case is None:
        return None
    metric, positive = use_case.metric, use_case.positive_label
    labels = manifest.labels if is_label(manifest, use_case.target_column) else {}
    counted = to_show_target(metric, use_case.objective.target, tested or labels, positive)
    if counted is None:
        return None
    rough = metric.plain if is_rough(metric, tested or labels, positive) else None
    return _NeededRows(in_rows(counted, counted_share(metric, positive, labels)), rough)


_GROUPED = 1.2
"""Test rows to an independent unit, from which on groups count."""


def _doubts_of(needed: _NeededRows, split: Mapping[str, Any]) -> list[str]:
    """What the figure leaves out."""
    rows, units = split.get("test_rows", 0), split.get("test_units", 0)
    doubts = []
    if needed.rough:
        doubts.append(
            f"needed_test_examples takes {needed.rough} as a share of right answers. It is none, so that is rough."
        )
    if units and rows >= _GROUPED * units:
        doubts.append(
            f"needed_test_examples counts independent rows, and the {rows:,} test rows lie in {units:,} groups: it is "
            "a lower bound."
        )
    return doubts


class MeasureSpec(BaseModel):
    """What trainings would cost, by real steps and fits on a sample of the examples. No model is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    use_case: str | None = None
    task: str | None = None
    method: Method | None = None
    base_model: str | None = None
    budget_minutes: float | None = Field(None, gt=0)


class MeasurePayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    candidates: tuple[Payload, ...]
    shares: tuple[float, ...]
    """By candidate: of its planned steps, those that similar trainings made."""
    budget_minutes: float | None = None
    preloads: tuple[str, ...]


def plan(spec: MeasureSpec, workspace: Workspace) -> Plan[MeasurePayload]:
    """Raises what `train.plan` raises of the candidates."""
    wanted = candidate_specs(
        workspace, spec.dataset, use_case=spec.use_case, task=spec.task, method=spec.method, base_model=spec.base_model
    )
    place, plans, why_here = _plans_where_measured(wanted, workspace)
    payloads = [each.payload for each in plans]
    records = known_costs(workspace.database, place)
    return Plan(
        payload=MeasurePayload(
            candidates=payloads,
            shares=[usual_steps_share(records, payload) for payload in payloads],
            budget_minutes=spec.budget_minutes,
            preloads=[_whole(each.preload) for each in plans],
        ),
        resources=Resources(
            cpu=max(each.resources.cpu for each in plans),
            memory_mb=max(each.resources.memory_mb for each in plans),
            gpu=max(each.resources.gpu for each in plans) if place else 0,
            place=place,
        ),
        inputs=tuple(dict.fromkeys(name for each in plans for name in each.inputs)),
        departures=tuple(dict.fromkeys(leaving for each in plans for leaving in each.departures)),
        use_case=spec.use_case,
        resolved={
            "dataset": payloads[0].dataset,
            "task": payloads[0].task,
            **({"place": place} if place else {}),
            **({"runs_here": why_here} if why_here else {}),
        },
        preload=_whole(plans[0].preload),
    )


def _whole(preload: str | None) -> str:
    """One process measures all candidates, so it has the imports of any."""
    return "torch" if preload in ("networks", "optimizer") else preload or ""


class _Measured(NamedTuple):
    place: str | None
    """None: this machine."""
    plans: list[Plan[Payload]]
    why_here: str = ""
    """What a person did not allow."""


def _plans_where_measured(wanted: Sequence[TrainSpec], workspace: Workspace) -> _Measured:
    """The first place that takes the kind, where every candidate may go there; else None, for this machine."""
    place, why_here = workspace.settings.place_taking("measure"), ""
    if place is not None:
        there = RequestedResources(place=place)
        try:
            plans = [train.plan(each.model_copy(update={"resources": there}), workspace) for each in wanted]
            return _Measured(place, plans)
        except SpeciateError as error:
            if error.code is not Code.REFUSED:
                raise
            if isinstance(error, NotAllowed):
                why_here = error.sentence
    here = RequestedResources(place=HERE)  # whatever place takes trainings
    plans = [train.plan(each.model_copy(update={"resources": here}), workspace) for each in wanted]
    return _Measured(None, plans, why_here)


def usual_steps_share(records: KnownCosts, payload: Payload) -> float:
    """Share of the steps planned at most that like runs did before patience or a met target ended them."""
    asked = request_of(payload)
    shares = [run.share for run in records.runs if run.share is not None and run.request.like(asked)]
    return median(shares[:5]) if shares else USUAL_STEPS_SHARE


KIND = Kind(
    name="measure",
    spec=MeasureSpec,
    plan=plan,
    run="speciate.training.planning.measure_run:run",
    limits=Limits(silence_seconds=1800),
)
