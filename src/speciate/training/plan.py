"""What could be trained on a dataset, what it would take, and what could not be and why. Nothing is started."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from speciate import usecases
from speciate.datasets import missing_labels, versions
from speciate.datasets.versions import Manifest
from speciate.sample_size import counted_share, in_rows, to_show_target
from speciate.tasks import preference
from speciate.tasks.truth import is_label
from speciate.training import train
from speciate.training.options import refused, taking
from speciate.training.present import all_options
from speciate.training.specs import Method, Option, Payload, TrainSpec
from speciate.vocabulary import Family, find_task
from speciate.workspace.workspace import Workspace

_WHY = {
    "classical": "Counts, pixels or columns with the usual learners: seconds, and hard to beat on small data.",
    "probe": "Frozen vectors of a base model, computed once and cached, with a linear head.",
    "lora": "Small changes to a base model's weights: what the frozen vectors lack, for a share of the memory.",
    "full": "Every weight of a network learns: dearest, and best where there are many examples.",
    "sft": "A language model learns the answers word by word: small changes to its weights unless asked otherwise.",
    "dpo": "A language model learns which of two answers is better, and stays near the base model.",
    "kto": "A language model learns from answers that are good or bad, and stays near the base model.",
    "orpo": "A language model learns the better of two answers and to prefer it, without a second copy.",
    "simpo": "A language model learns which of two answers is better, without a second copy.",
    "grpo": "A language model learns from what its own answers are worth: dearest, for it writes them all the while.",
    "rloo": "As grpo, with answers as a whole in place of their words.",
    "reward": "A language model learns to give answers a number, which others can be trained by.",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateEstimate(_Frozen):
    """None: not known before a like run was recorded here."""

    seconds: float | None = None
    peak_memory_mb: int | None = None
    usd: float | None = None
    p95_latency_ms: float | None = None
    known_from: tuple[str, ...] = Field((), description="Jobs that it comes from; 'measured' where one measured it.")


class Candidate(_Frozen):
    method: Method
    base_model: str | None = None
    hyperparameters: dict[str, object]
    estimate: CandidateEstimate
    why: str


class Refused(_Frozen):
    method: Method
    base_model: str | None = None
    why: str


class TrainingPlan(_Frozen):
    dataset: str
    candidates: tuple[Candidate, ...]
    """From cheap to dear."""
    refused: tuple[Refused, ...]
    needed_test_examples: int | None
    """Test rows of all labels to show the use case's target; None where it has none. For recall and the like scaled by
    the positive label's present share; where `target_column` hides that, rows of that label alone."""
    test_examples: int
    warnings: tuple[str, ...] = ()
    """Labels that a split lacks: neither of the numbers above knows of them."""


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
    specs = candidates(workspace, dataset, use_case=use_case, task=task, method=method, base_model=base_model)
    planned = [_candidate(workspace, spec) for spec in specs]
    late = [each for each in planned if budget_minutes and (each.estimate.seconds or 0) > 60 * budget_minutes]
    no = [
        Refused(
            method=each.method,
            base_model=each.base_model,
            why=f"Takes about {each.estimate.seconds:.0f} s, more than the budget of {budget_minutes:g} minutes.",
        )
        for each in late
    ]
    no += [
        Refused(method=way.method, base_model=way.base_model, why=why)
        for way, why in refused(manifest.modality, family)
    ]
    return TrainingPlan(
        dataset=manifest.ref,
        candidates=tuple(each for each in planned if each not in late),
        refused=tuple(no),
        needed_test_examples=_needed(workspace, use_case, manifest),
        test_examples=manifest.splits.get("test", 0),
        warnings=tuple(missing_labels.of_report(found.report)),
    )


def candidates(
    workspace: Workspace,
    dataset: str,
    *,
    use_case: str | None,
    task: str | None,
    method: Method | None,
    base_model: str | None,
) -> list[TrainSpec]:
    """What could be trained, cheapest first; what was asked for where none of it is like that, to hear why not."""
    manifest = versions.resolve(workspace.database, dataset)
    if use_case is not None:
        task = usecases.get(workspace.database, use_case).task
    family = _family(workspace, manifest, None, task)
    if task == preference.TASK or method == preference.METHOD:
        wanted = [Option(method=preference.METHOD, base_model=base_model)]
    elif base_model and method is None:
        wanted = taking(base_model, manifest.modality, family, workspace)
    else:
        wanted = [
            option
            for option in all_options(workspace, manifest.modality, family)
            if method in (None, option.method) and base_model in (None, option.base_model)
        ] or [Option(method=method or ("sft" if family == "generation" else "classical"), base_model=base_model)]
    return [
        TrainSpec(
            name="planned-model", dataset=dataset, method=option.method, base_model=option.base_model, task=task,
            use_case=use_case,
        )
        for option in wanted
    ]  # fmt: skip


def _family(workspace: Workspace, manifest: Manifest, use_case: str | None, task: str | None) -> Family:
    if use_case is not None:
        task = usecases.get(workspace.database, use_case).task
    return find_task(task).family if task else "regression" if manifest.numeric else "classification"


def _candidate(workspace: Workspace, spec: TrainSpec) -> Candidate:
    plan = train.plan(spec, workspace)
    payload = Payload.model_validate(plan.payload)
    option = Option(method=spec.method, base_model=payload.spec.base_model)
    return Candidate(
        method=option.method,
        base_model=option.base_model,
        hyperparameters=payload.parameters.model_dump(mode="json"),
        estimate=CandidateEstimate(
            seconds=plan.seconds,
            peak_memory_mb=plan.peak_memory_mb,
            usd=plan.usd,
            p95_latency_ms=plan.p95_latency_ms,
            known_from=plan.known_from,
        ),
        why=_WHY[option.method],
    )


def _needed(workspace: Workspace, name: str | None, manifest: Manifest) -> int | None:
    if name is None:
        return None
    use_case = usecases.get(workspace.database, name)
    counted = to_show_target(use_case.metric, use_case.objective.target)
    labels = manifest.labels if is_label(manifest, use_case.target_column) else {}
    share = counted_share(use_case.metric, use_case.positive_label, labels)
    return in_rows(counted, share) if counted is not None else None
