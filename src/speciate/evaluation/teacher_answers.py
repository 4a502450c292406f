"""Teachers: models whose answers to examples become training data, for curation's data makers.

A teacher is a model of this workspace, an ensemble, or an endpoint. It is asked as an evaluation asks it, and its
answers are in the same cache, so that no answer is paid twice. `plan` runs in the daemon and refuses what must not be
asked; `answers` runs in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from speciate.datasets import consent
from speciate.datasets.loading.loader import Example
from speciate.datasets.operations import answer
from speciate.datasets.operations.context import TeacherAnswers
from speciate.datasets.operations.operation import Others, Outside
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.endpoints import cost_check, prompts
from speciate.evaluation.endpoints.pricing import usd_per_core_hour
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.evaluated_models import EvaluatedModel, find_model
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import Answer, PredictorRequest, answer_all
from speciate.evaluation.predictors.by_source import predict
from speciate.jobs.run import Run
from speciate.modalities.messages import SYSTEM, Message, format_messages
from speciate.models.language.causal_lm import transformers_folder
from speciate.tasks.predictor import load
from speciate.vocabulary import Family, Task, find_task
from speciate.workspace.workspace import Workspace

_TEACH = ("model", "endpoint", "ensemble")
_FAMILIES: tuple[Family, ...] = (
    "classification", "ordinal", "multi-label", "regression", "generation", "transcription",
)  # fmt: skip
"""Task families whose answers are one cell."""
_LABELLED: tuple[Family, ...] = ("classification", "ordinal", "multi-label")
_USUAL = "text-generation"
_OF_PROMPT = ("template", "system", "temperature", "max_tokens", "seed")


class TeacherRequest(BaseModel):
    """What the run needs to ask a teacher; the payload of `Outside`."""

    model_config = ConfigDict(frozen=True)
    teacher: str
    model: EvaluatedModel
    task: str
    prompt: Prompt
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    budget_usd: float | None
    allowances: dict[str, float]
    private_hosts: tuple[str, ...]
    usd_per_core_hour: float


def plan(parameters: Any, manifest: Manifest, others: Others, workspace: Workspace) -> Outside | None:
    """None where the step names no model.

    Raises NOT_FOUND or INVALID for a model that cannot be asked this, and for a price that is missing. A key or a
    consent that lacks is `missing`.
    """
    if parameters.model is None:
        return None
    evaluated_model = find_model(workspace, parameters.model, tuple(manifest.columns))
    task = _task(evaluated_model, parameters, manifest)
    _check_inputs(evaluated_model, manifest)
    labels = tuple(sorted(manifest.labels)) if task.family in _LABELLED and not manifest.numeric else ()
    prompt = _prompt(parameters.model_dump())
    examples = sum(manifest.splits.get(split, 0) for split in parameters.splits) or manifest.rows
    calls = getattr(parameters, "count", 1)
    planned = cost_check.PlannedCalls(manifest, task.family, labels, prompt, examples, calls, 0)
    cost = cost_check.check_cost(workspace, planned, [evaluated_model], parameters.budget_usd)
    leaving, missing = list(cost.departures), list(cost.missing)
    for endpoint in cost_check.endpoints_of([evaluated_model]):
        if not endpoint.is_local:  # rows that earlier steps take in are sent, too
            for other in others.values():
                try:
                    consent.check(workspace.database, other.ref, endpoint.host)
                except SpeciateError as error:
                    missing.append(error)
                    continue
                leaving += consent.departures(workspace.database, [other.ref], endpoint.host)
    request = TeacherRequest(
        teacher=evaluated_model.name,
        model=evaluated_model,
        task=task.name,
        prompt=prompt,
        inputs=evaluated_model.inputs,
        labels=labels,
        budget_usd=parameters.budget_usd,
        allowances=cost.allowances,
        private_hosts=tuple(workspace.settings.private_hosts),
        usd_per_core_hour=usd_per_core_hour(workspace.settings),
    )
    return Outside(
        names={"model": evaluated_model.name},
        payload=request.model_dump(mode="json"),
        secrets=cost.secrets,
        usd=cost.usd,
        spends=cost.spends(manifest.name, parameters.budget_usd),
        departures=tuple(leaving),
        resolved={"model": evaluated_model.name, "task": task.name, **cost.resolved},
        missing=tuple(missing),
    )


def answers(
    run: Run,
    outside: Mapping[str, Any],
    manifest: Manifest,
    examples: list[Example],
    on_progress: Callable[[int], None],
    repeats: int = 1,
) -> TeacherAnswers:
    """Raises Stopped if the run is to stop, and SpeciateError if the teacher cannot be asked at all."""
    request = TeacherRequest.model_validate(outside)
    model, prompt = request.model, request.prompt
    payload = EvaluationPayload(
        dataset=manifest,
        split=None,
        models=(model,),
        task=request.task,
        metrics=(),
        baseline=model.name,
        latency=False,
        prompt=prompt,
        repeats=repeats,
        budget_usd=request.budget_usd,
        allowances=request.allowances,
        private_hosts=request.private_hosts,
        usd_per_core_hour=request.usd_per_core_hour,
    )
    how = f"{request.task}" + (f": {' '.join(prompt.template.split())[:200]}" if prompt.template else "")
    if not examples:
        return TeacherAnswers(model.name, how, [[]] * repeats)
    notes: tuple[str, ...] = ()
    if model.source == "model":
        prompted = prompted_examples(prompt, manifest, examples) if prompt.template or prompt.system else examples
        given = [_ask_local_model(run, model, prompted, on_progress, repeat) for repeat in range(repeats)]
    else:
        made = predict(PredictorRequest(run, payload, model, examples, request.labels, (), (), on_progress))
        given, notes = list(made.repeats), made.notes
    return TeacherAnswers(model.name, how, [[(each.output, each.error) for each in time] for time in given], notes)


def _ask_local_model(
    run: Run, evaluated_model: EvaluatedModel, examples: list[Example], on_progress: Callable[[int], None], repeat: int
) -> list[Answer]:
    """Answers of a model on this machine, without measuring costs."""
    folder = transformers_folder(Path(evaluated_model.path or ""), run.folders.cache)
    return answer_all(run, evaluated_model.identity, examples, load(folder, run.folders).predict, on_progress, repeat)


def prompted_examples(prompt: Prompt, manifest: Manifest, examples: list[Example]) -> list[Example]:
    """Each as the conversation that an endpoint would get; instructions only if the caller gives some."""
    form = prompts.prompt_form(prompt, "generation", manifest.modality, columns=manifest.inputs)
    found = []
    for example in examples:
        turns = [
            Message(str(each["role"]), str(each["content"]))
            for each in prompts.request(form, example).messages
            if prompt.system is not None or each["role"] != SYSTEM
        ]
        found.append(example._replace(media=format_messages(turns)))
    return found


def _task(evaluated_model: EvaluatedModel, parameters: Any, manifest: Manifest) -> Task:
    if evaluated_model.source not in _TEACH:
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name!r} is no model that can be asked here.",
            "Name a registered model, ensemble:A+B, or api:PROVIDER/MODEL.",
        )
    task_name = getattr(parameters, "task", None)
    if evaluated_model.task and task_name and task_name != evaluated_model.task:
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} is made for {evaluated_model.task!r}, not for {task_name!r}.",
            "Leave task out.",
        )
    task = find_task(evaluated_model.task or task_name or _USUAL)
    if getattr(parameters, "rewrites", False) and task.family != "generation":
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} answers {task.name!r}: it does not write texts anew.",
            "Name a model that writes, such as api:PROVIDER/MODEL.",
        )
    if getattr(parameters, "rationale", False) and task.family != "generation":
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} answers {task.name!r}, and says nothing of how it comes to that.",
            "Leave rationale out, or name a model that writes, such as api:PROVIDER/MODEL, and no task.",
        )
    if task.family not in _FAMILIES:
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} gives answers of the kind {task.name!r}, which this step does not make.",
            "Name a model whose answers are labels, numbers or texts.",
            next=[
                Call(
                    "predict",
                    {
                        "model": evaluated_model.name, "dataset": manifest.ref,
                        "save_as": f"{manifest.name}-answers",
                    },
                    "for a dataset with the answers in a column, which export_dataset writes as files",
                )
            ],
        )  # fmt: skip
    if evaluated_model.source == "model" and task.family != "generation" and getattr(parameters, "template", None):
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} answers {task.name!r} as it was trained: a template has no meaning for it.",
            "Leave template out.",
        )
    serves = evaluated_model.source == "model"
    if serves and not task.suits(manifest.modality):
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} is made for {task.name!r}, and {manifest.ref} holds {manifest.modality}.",
            f"Name a model that reads {manifest.modality}.",
        )
    if task.family in _LABELLED and not serves and not manifest.labels:
        raise SpeciateError(
            Code.INVALID,
            f"{task.name!r} needs labels to choose from, and {manifest.ref} has none.",
            "Leave task out and ask with a template, or bring labels.",
        )
    return task


def _check_inputs(evaluated_model: EvaluatedModel, manifest: Manifest) -> None:
    lacking = [name for name in evaluated_model.inputs if name not in (*manifest.columns, *manifest.inputs)]
    if lacking:
        raise SpeciateError(
            Code.INVALID,
            f"{evaluated_model.name} reads the column {lacking[0]!r}, which {manifest.ref} lacks.",
            f"Name a model that reads {', '.join(manifest.inputs) or 'files'}.",
        )


def _prompt(parameters: Mapping[str, Any]) -> Prompt:
    known = {name: parameters[name] for name in _OF_PROMPT if name in parameters}
    if parameters.get("rationale"):
        known["template"] = answer.rationale_template(known.get("template"))
        known["system"] = answer.SYSTEM if known.get("system") is None else known["system"]
    return Prompt.model_validate(known)
