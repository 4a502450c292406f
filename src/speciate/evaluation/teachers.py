"""Models that answer examples for others to learn from: the part of curation's data makers that asks.

A teacher is a contestant: a model of this workspace, several as one, or one that others serve. It is asked as an
evaluation would ask it, and what it answers is kept in the same place, so that neither pays for what the other has
paid. `plan` runs in the daemon and refuses what may not be asked; `answers` runs in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speciate.datasets import consent
from speciate.datasets.loading.loader import Example
from speciate.datasets.operations import rationale
from speciate.datasets.operations.context import Answered
from speciate.datasets.operations.contract import Others, Outside
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation import outlay
from speciate.evaluation.answers import Answer, answer_all
from speciate.evaluation.contestants import Contestant, find
from speciate.evaluation.endpoints import prompts
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.predictors.contract import Asked
from speciate.evaluation.predictors.table import hand_in
from speciate.evaluation.prices import usd_per_core_hour
from speciate.evaluation.task import EvaluationTask
from speciate.jobs.run import Run
from speciate.language.bases import ready
from speciate.modalities.messages import SYSTEM, Message, written
from speciate.tasks.predictor import load
from speciate.vocabulary import Family, Task, find_task
from speciate.workspace.workspace import Workspace

_TEACH = ("model", "endpoint", "ensemble")
_FAMILIES: tuple[Family, ...] = (
    "classification", "ordinal", "multi-label", "regression", "generation", "transcription",
)  # fmt: skip
"""Whose answers are one cell."""
_LABELLED: tuple[Family, ...] = ("classification", "ordinal", "multi-label")
_USUAL = "text-generation"
_OF_PROMPT = ("template", "system", "temperature", "max_tokens", "seed")


def plan(parameters: Any, manifest: Manifest, others: Others, workspace: Workspace) -> Outside | None:
    """None where the step names no model.

    Raises NOT_FOUND or INVALID for a model that cannot be asked this, REFUSED without consent, and what a key or a
    price that is missing raises.
    """
    if parameters.model is None:
        return None
    contestant = find(workspace, parameters.model, tuple(manifest.columns))
    task = _task(contestant, parameters, manifest)
    _check_inputs(contestant, manifest)
    labels = tuple(sorted(manifest.labels)) if task.family in _LABELLED and not manifest.numeric else ()
    prompt = _prompt(parameters.model_dump())
    examples = sum(manifest.splits.get(split, 0) for split in parameters.splits) or manifest.rows
    calls = getattr(parameters, "count", 1)
    asking = outlay.Asking(manifest, task.family, labels, prompt, examples, calls, 0)
    outside = outlay.check(workspace, asking, [contestant], parameters.budget_usd)
    for endpoint in outlay.of([contestant]):
        if not endpoint.is_local:  # rows that earlier steps take in are sent, too
            for other in others.values():
                consent.check(workspace.database, other.ref, endpoint.host)
    return Outside(
        names={"model": contestant.name},
        payload={
            "teacher": contestant.name,
            "contestant": contestant.model_dump(mode="json"),
            "task": task.name,
            "prompt": prompt.model_dump(mode="json"),
            "inputs": list(contestant.inputs),
            "labels": list(labels),
            "budget_usd": parameters.budget_usd,
            "allowances": outside.allowances,
            "private_hosts": list(workspace.settings.private_hosts),
            "usd_per_core_hour": usd_per_core_hour(workspace.settings),
        },
        secrets=outside.secrets,
        usd=outside.usd,
        spends=outside.spends(manifest.name, parameters.budget_usd),
        resolved={"model": contestant.name, "task": task.name, **outside.resolved},
    )


def answers(
    run: Run,
    outside: Mapping[str, Any],
    manifest: Manifest,
    examples: list[Example],
    tell: Callable[[int], None],
    repeats: int = 1,
) -> Answered:
    """Raises Stopped where the run was asked to stop, and SpeciateError where the teacher cannot be asked at all."""
    contestant = Contestant.model_validate(outside["contestant"])
    prompt = Prompt.model_validate(outside["prompt"])
    task = EvaluationTask(
        dataset=manifest,
        split=None,
        contestants=(contestant,),
        task=outside["task"],
        metrics=(),
        baseline=contestant.name,
        latency=False,
        prompt=prompt,
        repeats=repeats,
        budget_usd=outside["budget_usd"],
        allowances=outside["allowances"],
        private_hosts=tuple(outside["private_hosts"]),
        usd_per_core_hour=outside["usd_per_core_hour"],
    )
    how = f"{task.task}" + (f": {' '.join(prompt.template.split())[:200]}" if prompt.template else "")
    if not examples:
        return Answered(contestant.name, how, [[]] * repeats)
    notes: tuple[str, ...] = ()
    if contestant.source == "model":
        shown = worded(prompt, manifest, examples) if prompt.template or prompt.system else examples
        given = [_own(run, contestant, shown, tell, repeat) for repeat in range(repeats)]
    else:
        sheet = hand_in(Asked(run, task, contestant, examples, tuple(outside["labels"]), (), (), tell))
        given, notes = list(sheet.repeats), sheet.notes
    said = [[(each.output, each.error) for each in time] for time in given]
    return Answered(contestant.name, how, said, notes)


def _own(
    run: Run, contestant: Contestant, examples: list[Example], tell: Callable[[int], None], repeat: int
) -> list[Answer]:
    """Nothing is measured here."""
    folder = ready(Path(contestant.path or ""), run.folders.cache)
    return answer_all(run, contestant.identity, examples, load(folder, run.folders).predict, tell, repeat)


def worded(prompt: Prompt, manifest: Manifest, examples: list[Example]) -> list[Example]:
    """Each as the conversation that a model elsewhere would be sent; instructions only where the caller gives some."""
    form = prompts.form(prompt, "generation", manifest.modality, columns=manifest.inputs)
    found = []
    for example in examples:
        said = [
            Message(str(each["role"]), str(each["content"]))
            for each in prompts.request(form, example).messages
            if prompt.system is not None or each["role"] != SYSTEM
        ]
        found.append(example._replace(media=written(said)))
    return found


def _task(contestant: Contestant, parameters: Any, manifest: Manifest) -> Task:
    if contestant.source not in _TEACH:
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name!r} is no model that can be asked here.",
            "Name a registered model, ensemble:A+B, or api:PROVIDER/MODEL.",
        )
    asked = getattr(parameters, "task", None)
    if contestant.task and asked and asked != contestant.task:
        raise SpeciateError(
            Code.INVALID, f"{contestant.name} is made for {contestant.task!r}, not for {asked!r}.", "Leave task out."
        )
    task = find_task(contestant.task or asked or _USUAL)
    if getattr(parameters, "rewrites", False) and task.family != "generation":
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name} answers {task.name!r}: it does not write texts anew.",
            "Name a model that writes, such as api:PROVIDER/MODEL.",
        )
    if getattr(parameters, "rationale", False) and task.family != "generation":
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name} answers {task.name!r}, and says nothing of how it comes to that.",
            "Leave rationale out, or name a model that writes, such as api:PROVIDER/MODEL, and no task.",
        )
    if task.family not in _FAMILIES:
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name} gives answers of the kind {task.name!r}, which do not stand in one cell.",
            "Name a model whose answers are labels, numbers or texts.",
        )
    if contestant.source == "model" and task.family != "generation" and getattr(parameters, "template", None):
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name} answers {task.name!r} as it was trained: a template has no meaning for it.",
            "Leave template out.",
        )
    serves = contestant.source == "model"
    if serves and not task.suits(manifest.modality):
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name} is made for {task.name!r}, and {manifest.ref} holds {manifest.modality}.",
            f"Name a model that reads {manifest.modality}.",
        )
    if task.family in _LABELLED and not serves and not manifest.labels:
        raise SpeciateError(
            Code.INVALID,
            f"{task.name!r} needs labels to choose from, and {manifest.ref} has none.",
            "Leave task out and ask with a template, or bring labels.",
        )
    return task


def _check_inputs(contestant: Contestant, manifest: Manifest) -> None:
    lacking = [name for name in contestant.inputs if name not in (*manifest.columns, *manifest.inputs)]
    if lacking:
        raise SpeciateError(
            Code.INVALID,
            f"{contestant.name} reads the column {lacking[0]!r}, which {manifest.ref} lacks.",
            f"Name a model that reads {', '.join(manifest.inputs) or 'files'}.",
        )


def _prompt(parameters: Mapping[str, Any]) -> Prompt:
    known = {name: parameters[name] for name in _OF_PROMPT if name in parameters}
    if parameters.get("rationale"):
        known["template"] = rationale.template(known.get("template"))
        known["system"] = rationale.SYSTEM if known.get("system") is None else known["system"]
    return Prompt.model_validate(known)
