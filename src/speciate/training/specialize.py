"""Kind `specialize`: the cascade from the cheapest method up, one evaluation, and the promotion if it is earned.

    screen -> fetch/org--x -> race -> train/classical -> shortlist -> train/probe-... -> train/continue-...
    -> train/full-... -> evaluate (-> train/full-... -> evaluate/2) -> promote

`next` is pure: what it needs to know about data and metric comes with its children's results. A dearer method is tried
only while budget is left, a passing verdict on the test split is not sure yet and the target is within its reach
(planning/when_to_stop.py); what cannot end in what is left is skipped and told. Where a network serves, it is trained
on from the newest data before another one is begun: a warm start. Where there are more than three base models, those
that promise little are excluded before any of them is trained. Published models that are named are tried as they are
before anything is trained. Which models are worth evaluating is decided on validation examples; the test split is used
once, for all of them. Where validation examples were too kind, so that a verdict they were sure of did not pass, the
search goes on with the budget that is left, and what it finds is evaluated once more (`evaluate/2`), at the level that
is left. Losers stay registered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speciate import use_cases
from speciate.datasets import split_warnings, version_rows, versions
from speciate.datasets.leaks import leaks_of_report
from speciate.datasets.versions import Manifest
from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.evaluation import evaluation_checks, rare_labels, screening
from speciate.evaluation.contamination import find_seen
from speciate.evaluation.evaluated_models import find_incumbent
from speciate.evaluation.screening import ScreenSpec
from speciate.jobs.job import ENDED, Resources
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, NextStep, Plan
from speciate.refs import dataset_ref
from speciate.sample_size import counted_share, in_rows, more_of, rows_without_an_error, shown_without_an_error
from speciate.tasks.example_targets import is_label
from speciate.training import train
from speciate.training.cascade.candidates import (
    EVALUATE_STEP,
    PROMOTE_STEP,
    TRAIN_STEP,
    SpecializeSpec,
    TrainedCandidate,
    looks_at_test,
    named_candidates,
    of_named_bases,
    step_name,
    train_spec,
    trained_candidates,
    with_like,
)
from speciate.training.cascade.result import failed, outcome, without_verdict
from speciate.training.cascade.search import (
    GRACE_SECONDS,
    adequate,
    may_go_on,
    next_training,
    order_candidates,
    seconds_for_training,
    skipped_candidates,
    to_judge,
)
from speciate.training.planning.available_methods import (
    available_candidates,
    check_candidate,
    methods_for,
)
from speciate.training.planning.part_encoders import that_read_a_part
from speciate.training.planning.published_steps import next_published, race_survivors
from speciate.training.train_spec import Candidate
from speciate.vocabulary import Family, find_task
from speciate.workspace.workspace import Workspace

_IMPORTS_FIRST = ("language", "torch", "networks", "optimizer")
"""Profiles of imports (`jobs/zygote.py`) of trainings that need more than scikit-learn; the first that a training has
is prepared. What an optimizer needs beyond a frozen network is imported when the first one is trained: before, it would
take a core from those that run."""
_EVALUATION_SECONDS = 60.0
"""What an evaluation gets at least, also where trainings took the whole budget: without one nothing is decided."""


def plan(spec: SpecializeSpec, workspace: Workspace) -> Plan:
    """Checks every training that may come, and that there is something to judge by: a core suite or a test split."""
    use_case = use_cases.get(workspace.database, spec.use_case)
    version = versions.version(workspace.database, spec.dataset)
    manifest = suite = version.manifest
    if use_case.suites.core:
        suite = _core(workspace, use_case.suites.core)
        _check_untaught(workspace, manifest, suite, use_case.suites.core)
    elif not manifest.splits.get("test"):
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no split 'test'; it has {manifest.splits}. Without one there is nothing to judge by.",
            next=[
                Call(
                    "curate_dataset",
                    {"dataset": manifest.ref, "steps": [{"op": "split"}]},
                    ": it gets a leak-free one of train, validation and test",
                )
            ],
        )
    for judged in {manifest.ref: manifest, suite.ref: suite}.values():
        evaluation_checks.check_use_case(judged, use_case)
    find_incumbent(workspace, use_case, tuple(suite.columns))
    family = find_task(use_case.task).family
    if spec.published:
        screening.plan(ScreenSpec(use_case=spec.use_case, dataset=spec.dataset, models=spec.published), workspace)
    for base_model in spec.base_models:
        _check_base(base_model, manifest.modality, family, workspace)
    there = spec.ways or named_candidates(spec)
    there = there or that_read_a_part(workspace, manifest, available_candidates(manifest.modality, family))
    ways = with_like(spec, of_named_bases(spec, there))
    plans = [
        train.plan(train_spec(spec, candidate, spec.dataset, spec.budget_minutes), workspace)
        for candidate in ways or [Candidate(method="classical")]
    ]
    known = [each.seconds for each in plans if each.seconds is not None]
    skipped = skipped_candidates(spec, ways, seconds_for_training(spec, []))
    return Plan(
        resources=Resources(cpu=0),
        seconds=min(sum(known), 60 * spec.budget_minutes) if len(known) == len(plans) else None,
        use_case=spec.use_case,
        preload=next((name for name in _IMPORTS_FIRST if any(each.preload == name for each in plans)), "classical"),
        resolved={
            "dataset": manifest.ref,
            "use_case": f"{use_case.name} version {use_case.version}",
            "candidates": [{"step": step_name(way), **way.model_dump(exclude_none=True)} for way in ways],
            "metric": use_case.objective.metric,
            **({"published": list(spec.published)} if spec.published else {}),
            **({"place": place} if (place := next((p for each in plans if (p := each.resources.place)), None)) else {}),
            **(
                {"runs_here": why}
                if (why := next((w for p in plans if (w := p.resolved.get("runs_here"))), None))
                else {}
            ),
            **({"trainings_at_once": max(spec.at_once.values())} if spec.at_once else {}),
            **(
                {"skipped": skipped}
                if (skipped := skipped_candidates(spec, ways, seconds_for_training(spec, [])))
                else {}
            ),
            **({"warnings": warnings} if (warnings := _warnings(workspace, version, suite, use_case)) else {}),
        },
    )


def _warnings(
    workspace: Workspace, version: versions.Version, suite: Manifest, use_case: use_cases.UseCase
) -> list[str]:
    core = use_case.suites.core
    judged = (dataset_ref(core).split if core else None) or "test"
    return [
        *split_warnings.warnings_of_report(version.report),
        *leaks_of_report(version.report),
        *train.answers_among_inputs(workspace.database, version.manifest, use_case),
        *rare_labels.warnings_of_test_rows(workspace.folders, suite, use_case, judged),
        *_target_warnings(use_case, suite, judged),
    ]


def _target_warnings(use_case: use_cases.UseCase, suite: Manifest, split: str) -> list[str]:
    """Where not even a model without an error could show the target on the rows that count; 1 is never shown."""
    metric, target, rows = use_case.metric, use_case.objective.target, suite.splits.get(split, 0)
    if not target or not metric.is_share or metric.sign < 0:
        return []
    if target >= 1:
        return [f"No number of rows shows a target of {target:g} in {metric.plain}."]
    labels = suite.labels if is_label(suite, use_case.target_column) else {}
    share = counted_share(metric, use_case.positive_label, labels) or 1.0
    most = shown_without_an_error(int(rows * share))
    if target <= most:
        return []
    least = in_rows(rows_without_an_error(target), share)
    return [
        f"Even a model without an error shows at most {most:.2g} in {metric.plain} on {rows:,} test rows, and the "
        f"target is {target:g}. At least {more_of(least - rows, rows, 'test rows')} are needed."
    ]


def _check_base(base_model: str, modality: str, family: Family, workspace: Workspace) -> None:
    for method in methods_for(base_model, family)[:1]:
        check_candidate(Candidate(method=method, base_model=base_model), modality, family, workspace)


_MOST_COMPARED = 300_000
"""Rows of a dataset beside those of a core suite up to which a plan compares them: the evaluation does so anyway."""


def _check_untaught(workspace: Workspace, manifest: Manifest, suite: Manifest, core: str) -> None:
    """INVALID where rows of the core suite would teach, as it is an earlier division of the same examples, or holds
    some of them under another name: no verdict on what learned from them can be better than hold."""
    if suite.ref == manifest.ref or manifest.rows + suite.rows > _MOST_COMPARED:
        return
    split = dataset_ref(core).split or "test"
    judged = set(version_rows.read(workspace.folders, suite, ["id"], splits={split}, usable=True)["id"].to_pylist())
    if known := len(find_seen(workspace.folders, suite, judged, [manifest], ("train", "validation"))):
        earlier = [CallAgain("specialize", {"dataset": suite.ref})] if suite.name == manifest.name else []
        raise SpeciateError(
            Code.INVALID,
            f"{known:,} of the {len(judged):,} rows of the core suite {core!r} are training or validation rows of "
            f"{manifest.ref}, so what learns from it cannot be judged there.",
            f"Name {manifest.ref!r} as suites.core in define_use_case to judge on its own test split.",
            next=earlier,
        )


def _core(workspace: Workspace, core: str) -> Manifest:
    ref = dataset_ref(core)
    suite = versions.resolve(workspace.database, ref._replace(split=None))
    if not suite.splits.get(ref.split or "test"):
        raise SpeciateError(
            Code.INVALID,
            f"The core suite {core} has no split {ref.split or 'test'!r}; it has {suite.splits}.",
            "Call define_use_case again with another suites.core.",
        )
    return suite


def next_step(spec: SpecializeSpec, children: Sequence[Child], now: float) -> NextStep:
    """The next training, else the evaluation, else the promotion, else the end. Pure."""
    if any(child.state not in ENDED for child in children):
        return []
    steps = {child.step: child for child in children}
    looks = looks_at_test(children)
    if not looks:
        return _next_published(spec, children) or next_training(spec, children) or _evaluation(spec, children)
    evaluated = next((look for look in reversed(looks) if look.result is not None), looks[-1])
    if evaluated.result is None and _ran_out_of_budget(spec, children, evaluated):
        return Finished(result=without_verdict(spec, children, evaluated))
    if evaluated.result is None:
        return failed(evaluated, "No model could be evaluated")
    result = evaluated.result
    decision = result.get("decision") or {}
    if evaluated is looks[-1] and decision.get("verdict") != "promote":
        if more := _after_refusal(spec, children, result):
            return more
        result = _told_result(spec, looks) or result
    if decision.get("verdict") == "promote" and PROMOTE_STEP not in steps:
        further = [suite for suite in result.get("further_suites", ()) if f"{EVALUATE_STEP}-{suite}" not in steps]
        return [_further_evaluation(spec, children, result, suite) for suite in further] or [_promotion(spec, result)]
    return Finished(result=outcome(spec, children, result, steps.get(PROMOTE_STEP)))


def _next_published(spec: SpecializeSpec, children: Sequence[Child]) -> list[ChildRequest]:
    if not spec.published or any(child.step.startswith(TRAIN_STEP) for child in children):
        return []
    left = seconds_for_training(spec, children)
    return next_published(
        children, spec.published, use_case=spec.use_case, dataset=spec.dataset, max_bytes=spec.max_bytes,
        seed=spec.seed, seconds_left=left, grace=GRACE_SECONDS,
    )  # fmt: skip


def _evaluation(spec: SpecializeSpec, children: Sequence[Child]) -> NextStep:
    trained, published = trained_candidates(children), race_survivors(children)
    if not trained and not published:
        first = next((child for child in children if child.step.startswith(TRAIN_STEP)), children[0])
        return failed(first, "No model could be trained")
    ours = [candidate.model for candidate in to_judge(spec, children)]
    return [_judgement(spec, children, EVALUATE_STEP, [*published, *ours])]


def _after_refusal(spec: SpecializeSpec, children: Sequence[Child], evaluated: Mapping[str, Any]) -> list[ChildRequest]:
    """Where the best is wanted, those behind the first are judged also where no better model would pass: they may be
    cheaper. Not where the first is what serves already."""
    decision = evaluated.get("decision") or {}
    if may_go_on(evaluated):
        return next_training(spec, children) or _evaluation_again(spec, children)
    serves = not decision or decision.get("same_model") is not None
    return _evaluation_again(spec, children) if spec.aim == "best" and not serves else []


def _told_result(spec: SpecializeSpec, looks: Sequence[Child]) -> dict[str, Any] | None:
    """Where the best is wanted and none passed: the first look whose verdict more rows may change, else the first."""
    ended = [look.result for look in looks if look.result is not None]
    verdicts = [(result.get("decision") or {}).get("verdict") for result in ended]
    if spec.aim != "best" or "promote" in verdicts or not ended:
        return None
    return ended[verdicts.index("inconclusive") if "inconclusive" in verdicts else 0]


def _evaluation_again(spec: SpecializeSpec, children: Sequence[Child]) -> list[ChildRequest]:
    """A further look at the test split, where a candidate that was trained since the last one is worth it."""
    models = [candidate.model for candidate in to_judge(spec, children)]
    number = len(looks_at_test(children)) + 1
    return [_judgement(spec, children, f"{EVALUATE_STEP}/{number}", models)] if models else []


def _judgement(spec: SpecializeSpec, children: Sequence[Child], step: str, models: Sequence[str]) -> ChildRequest:
    return ChildRequest(
        step=step,
        kind="evaluate",
        spec={
            "models": list(dict.fromkeys(models)),
            "suite": "core",
            "dataset": f"{_dataset_used(spec, trained_candidates(children))}:test",  # where there is no core suite
            "use_case": spec.use_case,
            "pick": "gates",
            **({"order": order} if (order := order_candidates(spec, children, _in_order(children, models))) else {}),
            "seed": spec.seed,
            "budget_usd": spec.budget_usd,
        },
        run_seconds=_evaluation_seconds(spec, children) + GRACE_SECONDS,
    )


def _in_order(children: Sequence[Child], models: Sequence[str]) -> list[str]:
    """With those that are not judged in the first look because one before them may pass."""
    behind = [] if looks_at_test(children) else [one.model for one in adequate(trained_candidates(children))]
    return [*models, *behind]


def _dataset_used(spec: SpecializeSpec, trained: Sequence[TrainedCandidate]) -> str:
    return trained[0].report["dataset"] if trained else spec.dataset


def _evaluation_seconds(spec: SpecializeSpec, children: Sequence[Child]) -> float:
    """What is left of the budget for an evaluation after these steps."""
    return max(60 * spec.budget_minutes - sum(child.run_seconds for child in children), _EVALUATION_SECONDS)


def _ran_out_of_budget(spec: SpecializeSpec, children: Sequence[Child], evaluated: Child) -> bool:
    before = [child for child in children if child.id != evaluated.id]
    return evaluated.state == "dead" and evaluated.run_seconds >= _evaluation_seconds(spec, before)


def _further_evaluation(
    spec: SpecializeSpec, children: Sequence[Child], evaluated: Mapping[str, Any], suite: str
) -> ChildRequest:
    """The chosen model on another suite of the use case: a promotion needs a passing decision on each."""
    return ChildRequest(
        step=f"{EVALUATE_STEP}-{suite}",
        kind="evaluate",
        spec={
            "models": [evaluated["report"]["candidate"]],
            "suite": suite,
            "use_case": spec.use_case,
            "latency": False,
            "seed": spec.seed,
            "budget_usd": spec.budget_usd,
        },
        run_seconds=_evaluation_seconds(spec, children) + GRACE_SECONDS,
    )


def _promotion(spec: SpecializeSpec, evaluated: Mapping[str, Any]) -> ChildRequest:
    return ChildRequest(
        step=PROMOTE_STEP,
        kind="promote",
        spec={
            "use_case": spec.use_case,
            "model": evaluated["report"]["candidate"],
            "evaluation": evaluated["evaluation"],
            "decision": evaluated["decision"]["id"],
            "actor": "specialize",
            **({"canary_percent": spec.canary_percent} if spec.canary_percent is not None else {}),
        },
    )


KIND = Kind(name="specialize", spec=SpecializeSpec, plan=plan, next=next_step)
