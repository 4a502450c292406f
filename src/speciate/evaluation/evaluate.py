"""The job kind `evaluate`: models on one suite, side by side, and the use case's verdict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets import split_warnings
from speciate.datasets.versions import Manifest, Version, version
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.evaluation import (
    answer_cache,
    decisions,
    evaluation_checks,
    evaluation_place,
    judged_rows,
    label_plans,
    metric_libraries,
    near_looks,
    settling,
    shown_gains,
    suite_choice,
    suites,
)
from speciate.evaluation.contamination import compare_statement
from speciate.evaluation.endpoints import cost_check, endpoint_history
from speciate.evaluation.endpoints.pricing import usd_per_core_hour
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.evaluated_models import (
    CANDIDATES,
    EvaluatedModel,
    assign_roles,
    find_incumbent,
    find_model,
    last_candidate,
    why_no_neighbours,
)
from speciate.evaluation.judged_rows import JudgedSuite
from speciate.evaluation.judges import judge_plan
from speciate.evaluation.judges.judge_plan import Judge, Judging
from speciate.evaluation.payload import EvaluationPayload, Scoring
from speciate.evaluation.rare_labels import warnings_of_test_rows
from speciate.evaluation.reports.report import Report, Role, Suite, ValidationEvidence, number
from speciate.evaluation.scorers import likeness, scorer, spoken_wer
from speciate.evaluation.shown_gains import ShownGain
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Limits, Resources
from speciate.jobs.kinds import Kind, Plan, granted
from speciate.models.endpoints import Endpoint
from speciate.models.model_card import needs_whole_transformers
from speciate.refs import DatasetRef, id_from_key
from speciate.sandbox import check as check_sandbox
from speciate.tasks.example_targets import is_label
from speciate.tasks.task import TaskTerms
from speciate.use_cases import NEAREST, UseCase, get
from speciate.vocabulary import Family, Metric, Task, find_metric, find_task, metrics_of
from speciate.workspace.blobs import make_folder, sync_folder
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

_INSERT = "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SERVING = "SELECT model FROM aliases WHERE alias = 'production'"
_ALWAYS: dict[Family, tuple[str, ...]] = {
    "classification": ("accuracy", "f1_macro"),
    "ordinal": ("rank_error", "accuracy", "quadratic_kappa"),
    "anomaly": ("auroc", "auprc", "balanced_accuracy"),
    "regression": ("mae", "rmse", "r2"),
    "multi-label": ("f1_micro", "subset_accuracy"),
    "tokens": ("token_accuracy", "f1_spans"),
    "detection": ("map_50",),
    "segmentation": ("dice", "mean_iou"),
    "panoptic": ("pq",),
    "depth": ("abs_rel", "delta_1"),
    "transcription": ("wer", "wer_normalized", "cer"),
    "retrieval": ("recall_at_1",),
    "forecasting": ("mase", "forecast_mae"),
    "control": ("action_mae", "action_mse"),
    "generation": ("exact_match", "chrf"),
    "image-generation": ("frechet_distance",),
    "speech-synthesis": ("mel_cepstral_distortion", "duration_error"),
}
_START_SECONDS, _SECONDS_PER_ANSWER, _LATENCY_SECONDS = 3.0, 0.002, 3.0
FILES = ("examples.parquet", "predictions.parquet", "scores.parquet", "unscored.parquet")
"""Files of an evaluation, rows by example; the last only where a scorer failed on some."""


class EvaluateSpec(BaseModel):
    """`models`: refs, `column:NAME` (answers of the system in use), `constant:` (the best constant by the metric),
    `nearest:` (the nearest training rows).

    `suite` names one of the use case's; where it has none, `dataset` stands in. A dataset without a split means its
    test split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    models: tuple[str, ...] = Field(min_length=1, max_length=100)
    dataset: str | None = None
    suite: Suite | None = None
    use_case: str | None = None
    candidate: str | None = None
    """None: the last of `models`, or what `pick` says."""
    pick: Literal["last", "gates"] = "last"
    """`gates`: the cheapest model that passes, unless a dearer one surely beats it; with `order` the first there."""
    order: tuple[ValidationEvidence, ...] = ()
    """The candidates in the order in which they may go forward (candidate_order.py)."""
    baseline: str | None = None
    """None: the use case's incumbent, else the first of `models`."""
    baselines: tuple[str, ...] = Field((), max_length=100)
    """Models that are shown beside: they get no verdict and make no interval wider."""
    metrics: tuple[str, ...] = ()
    prompt: Prompt = Prompt()
    label_maps: Mapping[str, Mapping[str, str]] = {}
    """For published models, as `models` names them: {model: {published label: label of the dataset}}."""
    prompts: Mapping[str, tuple[str, ...]] = {}
    """For published models that take sentences: {model: templates with {label}, or {input} for one that writes}."""
    scorer: str | None = None
    """`path/to/file.py:FUNCTION`, `package:NAME` or `code_passes`: its scores are metrics, too."""
    judge: Judging | None = None
    repeats: int = Field(1, ge=1, le=20)
    budget_usd: float | None = Field(None, gt=0)
    latency: bool = True
    seed: int = 0
    shown: ShownGain | None = None
    """Where else a gain is shown; of a candidate whose gain is, `not_worse` is asked as on fresh rows."""


class _Compared(NamedTuple):
    """The models of one evaluation, by what each is in it."""

    named: list[EvaluatedModel]
    """The models that the call names."""
    baseline: EvaluatedModel
    incumbent: EvaluatedModel
    candidate: EvaluatedModel | None
    """None: the gates choose."""
    roles: dict[str, Role]
    every: list[EvaluatedModel]


class _Scored(NamedTuple):
    """What the answers are scored by."""

    task: Task
    target: str | None
    """The column that holds it."""
    terms: TaskTerms
    judge: Judge | None
    scoring: Scoring | None
    metrics: list[Metric]
    label_set: tuple[str, ...]
    """Empty where the target is no label."""


class _Resolved(NamedTuple):
    """An evaluation that was asked for, with everything that it names read and checked."""

    dataset: Version
    ref: DatasetRef
    chosen: suite_choice.SuiteChoice
    use_case: UseCase | None
    compared: _Compared
    scored: _Scored
    settled: label_plans.SettledModels
    models: list[EvaluatedModel]
    """The models as they are asked: with their labels settled, and what others state about their data."""
    cost: cost_check.CostCheck
    examples: int


def plan(spec: EvaluateSpec, workspace: Workspace) -> Plan:
    """Resolve and check everything that the worker needs."""
    resolved = _resolve(spec, workspace)
    payload = _payload(spec, resolved, workspace)
    manifest, models, cost, examples = resolved.dataset.manifest, resolved.models, resolved.cost, resolved.examples
    candidate, earlier = resolved.compared.candidate, payload.earlier
    where = evaluation_place.find_place(payload, workspace)
    if where.place is not None:
        payload = payload.model_copy(update={"threads": 1})  # what a node has is its own
    if where.place is not None and payload.latency:
        measured = f"Latency and memory were measured on a node of {where.place}, not on this machine"
        payload = payload.model_copy(update={"remarks": (*payload.remarks, measured)})
    made: Plan = Plan(
        payload=payload.model_dump(mode="json"),
        secrets=cost.secrets,
        usd=cost.usd,
        spends=cost.spends(manifest.name, spec.budget_usd),
        departures=(*cost.departures, *where.departures),
        resources=Resources(
            cpu=payload.threads,
            memory_mb=_memory_mb(examples, len(models), len(manifest.labels)) + label_plans.weights_mb(models),
            place=where.place,
        ),
        inputs=where.inputs,
        seconds=_seconds(examples, len(models), spec.latency),
        use_case=spec.use_case,
        preload=_preload(models),
        resolved={
            "dataset": str(resolved.ref),
            "examples": examples,
            "models": [each.name for each in models],
            "baseline": payload.baseline,
            "candidate": candidate.name if candidate else "chosen by the gates",
            "metrics": list(payload.metrics),
            **resolved.settled.resolved,
            **({"suite": list(payload.remarks)} if payload.remarks else {}),
            **({"warnings": list(payload.unseen)} if payload.unseen else {}),
            **({"earlier_looks": earlier.model_dump()} if earlier.evaluations or earlier.candidates else {}),
            **cost.resolved,
            **({"place": where.place} if where.place else {}),
            **({"runs_here": where.why_here} if where.why_here else {}),
        },
    )
    return granted(made, cost.missing)


def _resolve(spec: EvaluateSpec, workspace: Workspace) -> _Resolved:
    database = workspace.database
    use_case = get(database, spec.use_case) if spec.use_case else None
    chosen = suite_choice.choose(workspace, use_case, spec.dataset, spec.suite, spec.scorer)
    dataset = version(database, chosen.ref._replace(split=None))
    manifest = dataset.manifest
    ref = chosen.ref._replace(version=manifest.version)
    evaluation_checks.check_split(manifest, ref)
    compared = _compared(spec, workspace, use_case, manifest, ref, chosen.role)
    scored = _scored(spec, workspace, use_case, manifest, ref, compared)
    settled = label_plans.settle_models(
        compared.every, scored.task, manifest, scored.target, spec.label_maps, spec.prompts
    )
    models = [_with_statement(workspace, each, manifest) for each in settled.models]
    examples = manifest.splits[ref.split or ""]
    calls = cost_check.PlannedCalls(
        manifest,
        scored.task.family,
        scored.label_set,
        spec.prompt,
        examples,
        spec.repeats,
        _timed_calls(spec, use_case),
    )
    verdicts = judge_plan.planned_verdicts(scored.judge, calls, len(models)) if scored.judge else None
    cost = cost_check.check_cost(workspace, calls, models, spec.budget_usd, verdicts)
    return _Resolved(dataset, ref, chosen, use_case, compared, scored, settled, models, cost, examples)


def _compared(
    spec: EvaluateSpec,
    workspace: Workspace,
    use_case: UseCase | None,
    manifest: Manifest,
    ref: DatasetRef,
    suite: Suite,
) -> _Compared:
    """Every model that the call or the use case names, found once."""
    columns = tuple(manifest.columns)

    def find(name: str) -> EvaluatedModel:
        return find_model(workspace, name, columns, use_case.task if use_case else None)

    named = [find(name) for name in spec.models]
    incumbent = find_incumbent(workspace, use_case, columns) if use_case else named[0]
    baseline = find(spec.baseline) if spec.baseline else incumbent
    free = _free_method(use_case, manifest, ref, suite, baseline, named)
    beside = [find(name) for name in (*spec.baselines, *free)]
    asked = [each for each in named if each.name not in {one.name for one in beside}]
    roles = assign_roles(
        asked, beside, baseline, incumbent.name if use_case else None, explicit=spec.baseline is not None,
        serving=[name for (name,) in workspace.database.read(_SERVING)],
    )  # fmt: skip
    last = last_candidate(asked, roles) if spec.pick == "last" else None
    candidate = find(spec.candidate) if spec.candidate else last
    if candidate is not None:
        roles.setdefault(candidate.name, "candidate" if candidate.source in CANDIDATES else "baseline")
    every = {each.name: each for each in (baseline, *named, *beside, *([candidate] if candidate else []))}
    return _Compared(named, baseline, incumbent, candidate, roles, list(every.values()))


def _scored(
    spec: EvaluateSpec,
    workspace: Workspace,
    use_case: UseCase | None,
    manifest: Manifest,
    ref: DatasetRef,
    compared: _Compared,
) -> _Scored:
    """Task, target, judge and metrics, each checked against the data and the models."""
    models = compared.every
    task = evaluation_checks.task_of(manifest, use_case, models)
    evaluation_checks.check_models(manifest, ref.split, task, models, compared.named if use_case else ())
    target = evaluation_checks.target_of(manifest, use_case, task, models)
    label_set = tuple(manifest.labels) if is_label(manifest, target) else ()
    terms = evaluation_checks.common_terms(task, use_case, label_set, models)
    evaluation_checks.check_target(manifest, target, task)
    evaluation_checks.check_use_case(manifest, use_case)
    evaluation_checks.check_scorer(manifest, spec.scorer)
    judge = (
        judge_plan.resolve_judge(workspace, spec.judge, manifest, task.family, models, compared.baseline)
        if spec.judge
        else None
    )
    if scorer.is_sandboxed(spec.scorer) or any(each.source == "code" for each in models):
        check_sandbox(workspace.settings.cage, code=True)
    scoring = _scoring(workspace, spec.scorer, task)
    extra = [each.metric for each in (scoring, judge) if each]
    metrics = _metrics(spec, use_case, task, terms.positive_label, extra)
    evaluation_checks.check_environments(manifest, metrics)
    return _Scored(task, target, terms, judge, scoring, metrics, label_set)


def _payload(spec: EvaluateSpec, resolved: _Resolved, workspace: Workspace) -> EvaluationPayload:
    """What the worker gets: with the suite's rows as they are now, and how often they were looked at."""
    database, settings = workspace.database, workspace.settings
    manifest, ref, use_case, scored = resolved.dataset.manifest, resolved.ref, resolved.use_case, resolved.scored
    baseline, incumbent, roles = resolved.compared.baseline, resolved.compared.incumbent, resolved.compared.roles
    task, role, stands_on = scored.task, resolved.chosen.role, resolved.chosen.line
    column = suites.reference_column(manifest, task.family, scored.target)
    suite = suites.read_suite(
        workspace.folders, manifest, ref.split, task.family, column, [each.name for each in resolved.models],
        suites.columns_read(manifest, task.name, use_case, role, spec.scorer),
    )  # fmt: skip
    change = suites.suite_change(database, stands_on, suite) if stands_on else None
    waiting = suites.under_way(database, manifest, ref.split, suite.rows)
    no_decision = (
        _no_decision(use_case, baseline, incumbent, roles)
        or suite_choice.other_suite(database, use_case, role, ref)
        or suite_choice.no_test_rows(ref)
    )
    about_suite = () if no_decision else suite_choice.suite_remarks(use_case, ref, change)
    unseen = is_label(manifest, scored.target) and task.family != "generation"
    elsewhere = near_looks.judged_elsewhere(database, manifest, suite.rows, _candidates(roles))
    return EvaluationPayload(
        dataset=manifest,
        split=ref.split,
        models=tuple(resolved.models),
        task=task.name,
        metrics=tuple(metric.name for metric in scored.metrics),
        target_column=scored.target,
        positive_label=scored.terms.positive_label,
        terms=scored.terms,
        baseline=baseline.name,
        candidate=resolved.compared.candidate.name if resolved.compared.candidate else None,
        use_case=use_case,
        no_decision=no_decision,
        suite=role,
        unseen=(
            *suite_choice.learning_split_notes(ref),
            *(split_warnings.warnings_of_report(resolved.dataset.report, [ref.split]) if ref.split and unseen else ()),
            *warnings_of_test_rows(workspace.folders, manifest, use_case, ref.split),
        ),
        earlier=suites.looks(database, suite.rows, _candidates(roles), waiting),
        elsewhere=elsewhere.suites,
        older_elsewhere=elsewhere.older,
        suite_id=judged_rows.suite_id(suite.rows),
        known_jobs=tuple(sorted({each.evaluation for each in waiting})),
        suite_change=change,
        reference_column=suite.target,
        roles=roles,
        order=spec.order,
        gain_shown=shown_gains.of(database, spec.shown, use_case) if spec.shown and use_case else (),
        remarks=(*resolved.chosen.remarks, *about_suite),
        latency=spec.latency,
        threads=_threads(resolved.models, workspace),
        seed=spec.seed,
        prompt=spec.prompt,
        scoring=scored.scoring,
        judge=scored.judge,
        repeats=spec.repeats,
        budget_usd=spec.budget_usd,
        usd_per_core_hour=usd_per_core_hour(settings),
        allowances=resolved.cost.allowances,
        private_hosts=tuple(settings.private_hosts),
    )


def _scoring(workspace: Workspace, asked: str | None, task: Task) -> Scoring | None:
    ref = spoken_wer.settle(workspace, likeness.settle(workspace, asked, task), task)
    return Scoring(ref=ref, metric=scorer.find_scorer(ref).metric()) if ref else None


def _with_statement(workspace: Workspace, model: EvaluatedModel, manifest: Manifest) -> EvaluatedModel:
    """A model of others with what its statement has in common with these examples."""
    if model.statement is None:
        return model
    stated, here = compare_statement(workspace.database, model.statement, manifest)
    return model.model_copy(update={"statement": stated, "stated_data": here})


def _timed_calls(spec: EvaluateSpec, use_case: UseCase | None) -> int:
    """Calls to each endpoint that are made for their latency alone."""
    if not spec.latency:
        return 0
    limited = use_case is not None and use_case.limits.p95_latency_ms is not None
    return cost_check.WARM_UP + (cost_check.TIMED_FOR_A_LIMIT if limited else cost_check.TIMED)


def _threads(models: Iterable[EvaluatedModel], workspace: Workspace) -> int:
    """Two where there are two and a frozen network reads texts: half of an evaluation is its work."""
    reads = any(one.base_model and one.modality == "text" for each in models for one in (each, *each.members))
    return max(1, min(2, int(workspace.settings.capacity.cpu or cores()))) if reads else 1


def _preload(models: Iterable[EvaluatedModel]) -> str:
    networks = [one for each in models for one in (each, *each.members) if one.base_model or one.published]
    if any(needs_whole_transformers(one.base_model, one.modality, one.task) for one in networks):
        return "torch"
    return "networks" if networks else "classical"


def _no_decision(
    use_case: UseCase | None, baseline: EvaluatedModel, incumbent: EvaluatedModel, roles: Mapping[str, Role]
) -> str | None:
    """Why this evaluation must not decide on promotion, or None: a weak baseline or an easy suite proves nothing."""
    if use_case is None:
        return "no use case was named"
    if baseline.name != incumbent.name:
        return f"the baseline {baseline.name} is not the incumbent {incumbent.name} of {use_case.name}"
    if "candidate" not in roles.values():
        beside = [name for name, role in roles.items() if role == "baseline" and name != incumbent.name]
        shown = f"; {', '.join(beside)} cannot be promoted, and gets no verdict" if beside else ""
        return f"there is no model beside the incumbent {incumbent.name}{shown}"
    return None


def _free_method(
    use_case: UseCase | None,
    manifest: Manifest,
    ref: DatasetRef,
    role: Suite,
    baseline: EvaluatedModel,
    candidates: Sequence[EvaluatedModel],
) -> tuple[str, ...]:
    """What is shown beside the constant where a use case has nothing in use: a method that costs nothing to train."""
    if use_case is None or role != "core" or baseline.source != "constant":
        return ()
    return () if why_no_neighbours(manifest, ref.split, find_task(use_case.task), candidates) else (NEAREST,)


def _candidates(roles: Mapping[str, Role]) -> list[str]:
    """The candidates of this evaluation, which are no further look at its rows. What is in use was a candidate once,
    and that counts."""
    return [model for model, role in roles.items() if role == "candidate"]


def _metrics(
    spec: EvaluateSpec, use_case: UseCase | None, task: Task, positive: str | None, extra: list[str]
) -> list[Metric]:
    """The main metric first: the use case's, else the first requested one, else the scorer's or judge's, else the
    task's default.
    """
    every = use_case.in_force if use_case else ()
    gates = [gate.metric for gate in every if gate.metric and gate.rule != "at_most"]
    main = [use_case.objective.metric] if use_case else []
    chosen = list(spec.metrics) or [
        name for name in _ALWAYS[task.family] if not metric_libraries.lacks_library(find_metric(name))
    ]
    usual = [] if main or spec.metrics else [*extra, task.default_metric]
    names = dict.fromkeys([*main, *gates, *usual, *chosen, *extra])
    fitting = metrics_of(task.family, positive)
    metrics = [find_metric(name) for name in names]
    for metric in metrics:
        if metric.name not in (*fitting, *extra):
            fits = task.family in metric.families
            families = " and ".join(metric.families) or "the evaluation that brings it along"
            why = "needs a use case with positive_label" if fits else f"is for {families}"
            raise SpeciateError(
                Code.INVALID,
                f"The metric {metric.name!r} {why}; this evaluation is of {task.name!r}.",
                f"Call again with metrics among: {', '.join(fitting)}.",
            )
    metric_libraries.check_libraries(metrics)
    return metrics


def _seconds(examples: int, models: int, latency: bool) -> float:
    """A rough guess for small models: start, answers, and the time that latency is measured for."""
    return round(_START_SECONDS + models * (examples * _SECONDS_PER_ANSWER + (_LATENCY_SECONDS if latency else 0)), 1)


def _memory_mb(examples: int, models: int, labels: int) -> int:
    """Libraries, examples and resamples, and what is kept of every answer: about 1 kB, and 150 bytes for each label."""
    return 1024 + examples * models * (1000 + 150 * labels) // 2**20


class _Collected(NamedTuple):
    """`paid`: USD by host, of all attempts until now."""

    paid: dict[str, float]
    evaluation: str
    report: Report
    further: tuple[str, ...] = ()
    """Suites on which a candidate must also pass."""
    core: str | None = None
    served: tuple[tuple[Endpoint, tuple[str, ...]], ...] = ()
    """The model names that each endpoint reported, if it reported others."""
    suite: JudgedSuite | None = None
    """None in a run that began before judged rows were kept."""
    roles: Mapping[str, Role] = MappingProxyType({})
    accounted: int = 0
    """Earlier candidates that the decisions' level accounts for."""


def collect(folder: RunFolder) -> _Collected:
    """Check the run's files and link them to `evaluations/ID/`, where they stay when the run folder is deleted."""
    spec = folder.spec()
    payload = EvaluationPayload.model_validate(spec["payload"])
    folders, result = Folders(Path(spec["workspace"])), folder.result() or {}
    evaluation = id_from_key("evaluation", spec["job"])
    report = Report.model_validate(result["report"])
    target = folders.evaluations / evaluation
    make_folder(target)
    for name in FILES:
        if not (target / name).exists() and (name != FILES[-1] or (folder.outputs / name).exists()):
            os.link(folder.outputs / name, target / name)
    sync_folder(target)
    identified = {decision.candidate: decisions.identify(decision, evaluation) for decision in report.decisions}
    chosen = identified[report.decision.candidate] if report.decision else None
    return _Collected(
        paid=answer_cache.paid(folders, spec["job"]),
        evaluation=evaluation,
        further=payload.use_case.suites.further if payload.use_case else (),
        core=payload.use_case.suites.core if payload.use_case else None,
        served=_served_names(payload, report),
        suite=judged_rows.read_file(folder.outputs / judged_rows.FILE, payload.reference_column),
        roles=payload.roles,
        accounted=payload.earlier.candidates,
        report=report.model_copy(update={"decision": chosen, "decisions": tuple(identified.values())}),
    )


def paid(folder: RunFolder) -> dict[tuple[str, str], float]:
    """USD by dataset and host, of all attempts until now at most."""
    spec = folder.spec()
    payload = EvaluationPayload.model_validate(spec["payload"])
    if not payload.allowances:
        return {}  # nothing leaves this machine
    spent = answer_cache.paid(Folders(Path(spec["workspace"])), spec["job"])
    return {(payload.dataset.name, host): usd for host, usd in spent.items()}


def _served_names(payload: EvaluationPayload, report: Report) -> tuple[tuple[Endpoint, tuple[str, ...]], ...]:
    served = {row.model: tuple(row.served_model.split(" and ")) for row in report.leaderboard}
    return tuple(
        (each.endpoint, served[each.name])
        for each in payload.models
        if each.endpoint and served.get(each.name, (each.name,)) != (each.name,)
    )


class BriefReport(TypedDict):
    """A `Report` without what describe_evaluation gives."""

    dataset: str
    metric: str
    n: int
    judged_split: NotRequired[str]
    """Where it is no test split."""
    baseline: str
    candidate: str
    leaderboard: list[Mapping[str, object]]
    comparisons: list[Mapping[str, object]]
    notes: list[str]


class EvaluationResult(TypedDict):
    evaluation: str
    report: BriefReport
    spent_usd: NotRequired[dict[str, float | None]]
    """US dollars spent, by host."""
    decision: NotRequired[Mapping[str, object]]
    """About the candidate."""
    decisions: NotRequired[list[Mapping[str, object]]]
    """About each challenger."""
    unmet: NotRequired[list[str]]
    """Rules of the gates that the candidate did not pass."""
    further_suites: NotRequired[list[str]]
    no_decision: NotRequired[str | None]
    """Why there is none, where there is a use case."""


def commit(tx: Transaction, job: Job, collected: _Collected) -> EvaluationResult:
    """Store the evaluation and its decisions."""
    evaluation, report = collected.evaluation, collected.report
    if collected.suite is not None:
        judged_now, asked = _candidates(collected.roles), job.created or tx.now
        found = suites.looks_before(tx, collected.suite.rows, judged_now, job.id, asked)
        report = decisions.without_overtaken(report, found.candidates - collected.accounted)
        suites.store(tx, evaluation, collected.suite, collected.roles)
    models = ",".join(row.model for row in report.leaderboard)
    tx.execute(
        _INSERT,
        [evaluation, report.use_case, report.dataset, models, report.model_dump_json(), job.id, tx.now],
    )
    for endpoint, served in collected.served:
        endpoint_history.store_served_names(tx, endpoint, served, just_now=False)
    subject = f"use_case:{report.use_case}" if report.use_case else f"evaluation:{evaluation}"
    tx.event(subject, "evaluation.created", {"evaluation": evaluation, "dataset": report.dataset, "job": job.id})
    for decision in report.decisions:
        decisions.store(
            tx, decision, use_case=report.use_case or "", version=report.use_case_version or 0, evaluation=evaluation
        )
    result: EvaluationResult = {"evaluation": evaluation, "report": brief(report)}
    if collected.paid:
        result["spent_usd"] = {host: number(usd) for host, usd in sorted(collected.paid.items())}
    if report.decision:
        made = report.decision.model_dump(
            mode="json",
            include={"id", "verdict", "reasons", "needed_examples", "needed_groups", "same_model"},
            exclude_none=True,
        )
        tx.event(subject, "decision.made", {"evaluation": evaluation, "candidate": report.candidate} | made)
        if settle := settling.settling_calls(report.decision, report.use_case or "", collected.core):
            made["settle"] = [settling.document(call) for call in settle]
        result["decision"] = made
        doubts = [each.gate.rule for each in report.decision.gates if each.outcome in ("fail", "inconclusive")]
        result["unmet"] = sorted(set(doubts))
        result["decisions"] = [decisions.verdict_of(each) for each in report.decisions]
        result["further_suites"] = list(collected.further)
    elif report.use_case:
        result["no_decision"] = report.no_decision
    return result


def brief(report: Report) -> BriefReport:
    """The report without what describe_evaluation gives: a job's result is read whole by an agent."""
    shown = {"model", "value", "interval", "n", "errors", "usd_per_1k", "p95_ms"}
    compare = report.comparer()
    compared = [compare(report.baseline, row.model) for row in report.leaderboard if row.model != report.baseline]
    kept = {"candidate", "delta", "interval", "p_value", "minimum_detectable_effect"}
    marked: dict[str, str] = {"judged_split": report.judged_split} if report.judged_split else {}
    return {
        "dataset": report.dataset,
        "metric": report.metric,
        "n": report.n,
        **marked,  # type: ignore[typeddict-item]  # one of its fields
        "baseline": report.baseline,
        "candidate": report.candidate,
        "leaderboard": [
            row.model_dump(mode="json", include=shown | ({"seen"} if row.seen else set())) for row in report.leaderboard
        ],
        "comparisons": [comparison.model_dump(mode="json", include=kept) for comparison in compared if comparison],
        "notes": list(report.notes),
    }


KIND = Kind(
    name="evaluate",
    spec=EvaluateSpec,
    plan=plan,
    run="speciate.evaluation.run_evaluation:run",
    collect=collect,
    commit=commit,
    paid=paid,
    limits=Limits(silence_seconds=900),
)
