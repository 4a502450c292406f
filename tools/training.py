"""Training: plan it, train one method, find the right model for a use case, or merge models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from speciate.refs import dataset_ref
from speciate.server.jobs_after_fetch import start_job_after_fetch
from speciate.server.roots import check_function, check_refs
from speciate.server.tool_api import (
    LISTED_ELSEWHERE,
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    NextAction,
    Result,
    make_sparse_spec,
    make_spec,
    start_job,
    tool,
)
from speciate.training.cascade.candidates import (
    SpecializeSpec,
    choose_candidates,
    find_published,
    needs_shortlist,
    search_terms,
)
from speciate.training.hyperparameters import MOST_SEED
from speciate.training.merging.merge_models import KIND as MERGE
from speciate.training.merging.merge_spec import MergeMethod, MergeSpec
from speciate.training.planning import training_plan
from speciate.training.planning.training_plan import KIND as MEASURE
from speciate.training.planning.training_plan import MeasureSpec, PlannedCandidate, UnavailableCandidate
from speciate.training.specialize import KIND as SPECIALIZE
from speciate.training.train import KIND as TRAIN
from speciate.training.train_spec import Method, PriorModelMethod, RequestedResources, TrainSpec

_LONGEST_NAME = 58
"""Characters of a dataset's name before `-model`: a name has 64."""
DatasetName = Annotated[str, Field(description="name or name@v3.")]
AS_TRAINED = Field(description="As of train_model.")
MethodOfTraining = Annotated[Method, Field(json_schema_extra={LISTED_ELSEWHERE: True})]
"""With the values that train_model lists."""
BaseModel = Annotated[
    str | None,
    Field(description="Yours, pkg:minilm, new:vit, timm:NAME, hf:org/name, path:/dir."),
]
Minutes = Annotated[float, Field(gt=0, le=100_000, description="Run time of all jobs.")]
TaskName = Annotated[str | None, Field(description="Default: the use case's, else by the labels.")]
UseCaseOfTraining = Annotated[str | None, Field(description="Whose task, target and limits hold.")]


class TrainingPlan(Result):
    dataset: str
    candidates: tuple[PlannedCandidate, ...]
    refused: tuple[UnavailableCandidate, ...]
    needed_test_examples: int | None = Field(
        None,
        description="Test rows in all by which a model half-way from the target to perfect shows it at a first look in "
        "four of five cases; a model nearer to the target needs more. test_examples are there.",
    )
    test_examples: int
    warnings: tuple[str, ...] = ()
    next_actions: tuple[NextAction, ...] = ()


@tool()
def plan_training(
    app: App,
    dataset: DatasetName,
    use_case: Annotated[str | None, AS_TRAINED] = None,
    task: Annotated[str | None, AS_TRAINED] = None,
    base_model: Annotated[str | None, AS_TRAINED] = None,
    method: Annotated[MethodOfTraining | None, Field(description="Only this; see train_model.")] = None,
    budget_minutes: Minutes | None = None,
    measure: Annotated[bool, Field(description="By a job: times real steps, if no similar run is known.")] = False,
    idempotency_key: IdempotencyKey = None,
) -> TrainingPlan | JobStarted:
    """List the methods that can be trained on a dataset, with time estimates, and why others cannot.

    Trains nothing: to train, call specialize or train_model."""
    if measure:
        spec = make_sparse_spec(
            MeasureSpec,
            dataset=dataset,
            use_case=use_case,
            task=task,
            method=method,
            base_model=check_refs(app, base_model),
            budget_minutes=budget_minutes,
        )
        started = start_job_after_fetch(app, MEASURE, spec, _one_or_none(base_model), idempotency_key=idempotency_key)
        assert isinstance(started, JobStarted), "nothing else comes without dry_run"
        return started
    base = check_refs(app, base_model)
    plan = training_plan.plan_training(
        app.workspace,
        dataset,
        use_case=use_case,
        task=task,
        method=method,
        base_model=base,
        budget_minutes=budget_minutes,
    )
    next_actions: tuple[NextAction, ...] = ()
    if use_case and plan.test_examples:  # specialize refuses what has no test split
        arguments: dict[str, Any] = {
            "use_case": use_case,
            "dataset": plan.dataset,
            "budget_minutes": budget_minutes or 5,
            **({"base_models": [base]} if base else {}),  # what was asked for, not whatever suits
            **({"methods": [method]} if method else {}),
        }
        next_actions = (NextAction(tool="specialize", arguments=arguments),)
    elif not use_case and plan.candidates:
        arguments = {
            "name": f"{dataset_ref(plan.dataset).name[:_LONGEST_NAME]}-model",
            "dataset": plan.dataset,
            **plan.candidates[0].model_dump(include={"method", "base_model"}, exclude_none=True),
            **({"task": task} if task else {}),
            **({"budget_minutes": budget_minutes} if budget_minutes else {}),
        }
        next_actions = (NextAction(tool="train_model", arguments=arguments),)
    return TrainingPlan(
        dataset=plan.dataset,
        candidates=plan.candidates,
        refused=plan.refused,
        needed_test_examples=plan.needed_test_examples,
        test_examples=plan.test_examples,
        warnings=plan.warnings,
        next_actions=next_actions,
    )


@tool()
def train_model(
    app: App,
    name: Annotated[str | None, Field(description="Gets its next version.")] = None,
    dataset: Annotated[str | None, Field(description="name or name@v3.")] = None,
    method: Annotated[
        Literal[Method, PriorModelMethod] | None, Field(description="list_options(kind='method')")
    ] = None,
    base_model: BaseModel = None,
    use_case: UseCaseOfTraining = None,
    task: TaskName = None,
    target: Annotated[str | None, Field(description="Column to learn; default: the label.")] = None,
    hyperparameters: Annotated[
        dict[str, Any] | None, Field(description="list_options(kind='method', name=METHOD).")
    ] = None,
    seed: Annotated[int | None, Field(ge=0, le=MOST_SEED, description="Of all draws.")] = None,
    budget_minutes: Minutes | None = None,
    budget_usd: Annotated[float | None, Field(gt=0, description="Of this machine's time.")] = None,
    resources: Annotated[
        RequestedResources | None,
        Field(description="{cpu: cores, memory_mb, gpu: count (default: one if any), place: cluster, nodes}."),
    ] = None,
    continue_from: Annotated[str | None, Field(description="A version that is trained further.")] = None,
    teacher: Annotated[str | list[str] | None, Field(description="For distill: one or several.")] = None,
    like: Annotated[
        str | None,
        Field(description="A version whose recipe is repeated, save the other arguments; alone: reproduced."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Train one method on a dataset as a job: name, dataset and method, or like. To try several, call specialize.

    Compares nothing: then call evaluate_models.
    """
    spec = make_sparse_spec(
        TrainSpec,
        name=name,
        dataset=dataset,
        method=method,
        base_model=check_refs(app, base_model),
        use_case=use_case,
        task=task,
        target=target,
        hyperparameters=_with_files_below_a_root(app, hyperparameters),
        seed=seed,
        budget_minutes=budget_minutes,
        budget_usd=budget_usd,
        resources=resources.model_dump() if resources else None,
        continue_from=continue_from,
        teacher=[check_refs(app, each) for each in _as_list(teacher)] or None,
        like=like,
    )
    return start_job_after_fetch(
        app, TRAIN, spec, _one_or_none(base_model), idempotency_key=idempotency_key, dry_run=dry_run
    )  # fmt: skip


@tool()
def specialize(
    app: App,
    use_case: Annotated[str, Field(description="Of define_use_case.")],
    dataset: DatasetName,
    budget_minutes: Minutes,
    budget_usd: Annotated[float | None, Field(gt=0, description="For calls to hosted models.")] = None,
    base_models: Annotated[list[str] | None, Field(description="Default: by size and modality.")] = None,
    published: Annotated[
        list[str] | None, Field(description="To try as they are: hf:org/name, or 'search'.", max_length=40)
    ] = None,
    methods: Annotated[
        list[MethodOfTraining] | None, Field(description="Of train_model's; default: from the cheapest up.")
    ] = None,
    order: Annotated[list[str] | None, Field(description="Of ordinal labels, low to high.")] = None,
    like: Annotated[str | None, Field(description="A version whose recipe is tried first.")] = None,
    canary_percent: Annotated[float, Field(gt=0, le=100, description="As of promote_model.")] = 100,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Train cheap methods first, compare the best with production, promote it if it passes every gate; one job.

    Needs define_use_case and a dataset with a test split. For one training alone, call train_model.
    """
    bases = [check_refs(app, base) or base for base in base_models or ()]
    found = choose_candidates(app.workspace, use_case, dataset, bases, methods or ())
    as_they_are: list[str] = check_refs(app, [each for each in published or () if each != "search"])
    if "search" in (published or ()):
        as_they_are = find_published(app.workspace, use_case, dataset, as_they_are)
    terms = search_terms(app.workspace, use_case, dataset, found, budget_minutes)
    spec = make_spec(
        SpecializeSpec,
        use_case=use_case,
        dataset=dataset,
        budget_minutes=budget_minutes,
        budget_usd=budget_usd,
        base_models=bases,
        methods=methods or [],
        order=order or [],
        ways=[way.model_dump(exclude_none=True) for way in found],
        shortlist=needs_shortlist(app.workspace, use_case, found),
        **terms._asdict(),
        **({"like": like} if like else {}),
        **({"canary_percent": canary_percent} if canary_percent < 100 else {}),
        **({"published": list(dict.fromkeys(as_they_are))} if as_they_are else {}),
    )
    return start_job_after_fetch(app, SPECIALIZE, spec, bases, idempotency_key=idempotency_key, dry_run=dry_run)


def _one_or_none(base_model: str | None) -> list[str]:
    return [] if base_model is None else [base_model]


def _as_list(named: str | list[str] | None) -> list[str]:
    return [named] if isinstance(named, str) else named or []


def _with_files_below_a_root(app: App, hyperparameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """A file of a reward or an environment, 'path/to/file.py:NAME', is read like any file of the caller's."""
    if hyperparameters is None:
        return None
    placed, rewards = dict(hyperparameters), hyperparameters.get("rewards")
    if isinstance(rewards, list):
        placed["rewards"] = [_with_checked_file(app, each) for each in rewards]
    if "environment" in placed:
        placed["environment"] = _with_checked_file(app, placed["environment"])
    return placed


def _with_checked_file(app: App, reward: Any) -> Any:
    file = reward.get("file") if isinstance(reward, dict) else None
    return {**reward, "file": check_function(app, file)} if isinstance(file, str) else reward


MergedModels = Annotated[list[str], Field(min_length=1, max_length=64, description="Of one base model.")]


@tool()
def merge_models(
    app: App,
    name: Annotated[str, Field(description="Gets its next version.")],
    models: MergedModels,
    method: Annotated[MergeMethod, Field(description="soup: mean; greedy: of those that help.")],
    weights: Annotated[list[float] | None, Field(description="One a model; slerp: shares of two.")] = None,
    dataset: Annotated[str | None, Field(description="To choose on; default: of their training.")] = None,
    hyperparameters: Annotated[
        dict[str, Any] | None, Field(description="density, scale (ties, dare); seed (dare).")
    ] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Merge models of one base and task by their weights, without training; starts a job.

    Then call evaluate_models, which also takes the mean of answers: 'ensemble:A+B'.
    """
    spec = make_sparse_spec(
        MergeSpec,
        name=name,
        models=models,
        method=method,
        weights=weights,
        dataset=dataset,
        hyperparameters=hyperparameters,
    )
    return start_job(app, MERGE, spec, idempotency_key=idempotency_key, dry_run=dry_run)
