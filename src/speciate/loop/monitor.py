"""The job kind `monitor`: what production was asked and answered in one window, against what it was before.

The reference is a random sample of what production was asked since the model was promoted, never the training set,
which mining biases on purpose. It grows with every window and begins anew with each promotion (`generation`), and after
an alarm at its onset, so that one change alarms once. Detectors and their bounds: drift/evidence.py; the run:
monitor_run.py. A result holds ids and numbers, and no text of others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.datasets.similarity import extractors
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, JobResult, Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.modalities import find
from speciate.models import registry
from speciate.predictions import reading
from speciate.promotion import aliases
from speciate.refs import check_name
from speciate.sandbox import SandboxPolicy
from speciate.sandbox import check as check_sandbox
from speciate.serving.deployment_folder import deployment_folder
from speciate.use_cases import UseCase
from speciate.vocabulary import counts_right
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

_EARLIER = """
SELECT result FROM jobs WHERE kind = 'monitor' AND use_case = ? AND state = 'succeeded' AND result IS NOT NULL
ORDER BY created DESC LIMIT 1000
"""
_NOT_PROMISED = """
SELECT use_case, arg_max(coalesce(result ->> 'not_promised', ''), created) FROM jobs
WHERE kind = 'monitor' AND state = 'succeeded' AND result IS NOT NULL AND use_case IS NOT NULL GROUP BY use_case
"""
_EVALUATION = """
SELECT id, report FROM evaluations WHERE use_case = ? AND contains(',' || models || ',', ',' || ? || ',')
ORDER BY created DESC LIMIT 1
"""
_OF_CELLS = {"text", "tabular", "protein"}
"""Modalities whose inputs lie in cells, so that a model may embed them outside the sandbox."""

Use = Literal["reference", "tested", "waits", "nothing"]
"""What a window became: the beginning of the reference; tested, then part of it; kept for the next window, as there
were too few answers; or nothing, as there were none."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MonitorSpec(BaseModel):
    """Window number `number` of the version with this `generation` of the alias: [begin, end), seconds since the
    epoch. Windows follow each other; one that is asked for again gives the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    generation: int = Field(ge=0)
    number: int = Field(ge=0)
    begin: float
    end: float
    extractor: str | None = None
    """None: that of the windows before; for the first the modality's own descriptor, of texts an installed model."""


class Signal(_Frozen):
    """What one detector found. `log_evidence` is the logarithm of its e-detector, `threshold` what that must reach;
    both None for what is shown and never decides, and where nothing could be looked at."""

    name: str
    statistic: float | None = None
    p: float | None = None
    e_value: float | None = None
    log_evidence: float | None = None
    threshold: float | None = None
    alarm: bool = False
    onset: float | None = None
    because: str
    bad: float | None = None
    n: int | None = None
    allowed: float | None = None
    """For signals that count: `bad` of `n` were bad, and the share `allowed` may be."""
    interval: tuple[float, float] | None = None


class MonitorOutcome(_Frozen):
    use_case: str
    generation: int
    number: int
    window: tuple[float, float]
    n: int
    """Answers in the log."""
    sampled: int = 0
    """Different inputs among them that were compared, of this window and those that waited."""
    reference: int = 0
    """Different inputs before, of which at most 600 are drawn for each comparison."""
    use: Use
    model: str | None = None
    extractor: str
    measures: tuple[str, ...] = ()
    """Names of the modality's measures that are followed."""
    promised: bool | None = None
    """Whether the bound on false alarms of inputs, confidence, answers and measures holds for what was compared. None:
    nothing was."""
    dependence: str = ""
    """Why, in a sentence."""
    signals: tuple[Signal, ...] = ()
    novel: tuple[str, ...] = ()
    """Answers whose inputs are least like those before, most of all first."""
    plot: str | None = None
    sheet: str | None = None
    """Path of the contact sheet, below the workspace."""
    notes: tuple[str, ...] = ()
    not_promised: str | None = None
    """What its alarms do not promise, and what mends that; None where they promise all that docs/drift.md says."""


class MonitorPayload(_Frozen):
    spec: MonitorSpec
    model: str | None
    modality: str | None
    extractor: str
    since: float
    """Answers before are not shown any more."""
    allowed_wrong: float | None
    """Share of wrong answers that the use case's target allows; None: by what its evaluation found."""
    evaluation: str | None
    """Newest evaluation of the model."""
    p95_ms: float | None
    error_rate: float
    hours: Path
    cage: SandboxPolicy
    earlier: tuple[MonitorOutcome, ...]
    """Windows of this generation before this one, oldest first."""


def plan(spec: MonitorSpec, workspace: Workspace) -> Plan[MonitorPayload]:
    """Raises NOT_FOUND for the use case, INVALID for a window that has no length or is not over yet, or an extractor
    that cannot be used."""
    use_case = use_cases.get(workspace.database, check_name("use case", spec.use_case))
    now = workspace.clock.now()
    if not spec.begin < spec.end <= now:
        raise SpeciateError(
            Code.INVALID, "A window begins before it ends, and is over before it is looked at.",
            "Start the job again with begin < end <= now.",
        )  # fmt: skip
    earlier = past_windows(workspace, spec)
    alias = aliases.read(workspace.database, spec.use_case)
    model = alias.model if alias and alias.generation == spec.generation else next((e.model for e in earlier), None)
    modality = _modality(workspace, model)
    extractor = _extractor(workspace, spec, modality, earlier)
    check_sandbox(workspace.settings.cage)
    evaluation = workspace.database.read_one(_EVALUATION, [spec.use_case, model]) if model else None
    heavy = extractor != extractors.DESCRIPTOR
    log = workspace.settings.log.of(spec.use_case)
    return Plan(
        payload=MonitorPayload(
            spec=spec, model=model, modality=modality, extractor=extractor,
            since=reading.retention_start(now, log.retention_days), allowed_wrong=_allowed(use_case),
            evaluation=evaluation[0] if evaluation else None, p95_ms=use_case.limits.p95_latency_ms,
            error_rate=workspace.settings.bake_of(spec.use_case).error_rate,
            hours=deployment_folder(workspace.folders, spec.use_case).hours, cage=workspace.settings.cage,
            earlier=earlier,
        ),
        resources=Resources(cpu=1, memory_mb=2048 if heavy else 768),
        preload="torch" if heavy else "data",
        use_case=spec.use_case,
        resolved={"model": model, "extractor": extractor, "windows_before": len(earlier)},
    )  # fmt: skip


def past_windows(workspace: Workspace, spec: MonitorSpec) -> tuple[MonitorOutcome, ...]:
    """Windows of the same generation before this one, oldest first, each number once."""
    return tuple(each for each in outcomes(workspace, spec.use_case, spec.generation) if each.number < spec.number)


def outcomes(workspace: Workspace, use_case: str, generation: int) -> tuple[MonitorOutcome, ...]:
    """All windows of a generation that were looked at, oldest first."""
    found = [json.loads(text) for (text,) in workspace.database.read(_EARLIER, [use_case])]
    listed = [MonitorOutcome.model_validate(each) for each in reversed(found) if each.get("generation") == generation]
    by_number = {each.number: each for each in listed}
    return tuple(by_number[number] for number in sorted(by_number))


def not_promised(database: Database) -> dict[str, str]:
    """Use case -> what the alarms of its newest window do not promise; without those that promise all."""
    return {use_case: said for use_case, said in database.read(_NOT_PROMISED) if said}


def _modality(workspace: Workspace, model: str | None) -> str | None:
    if model is None:
        return None
    try:
        return registry.resolve(workspace.database, workspace.folders, model).card.modality
    except SpeciateError:  # deleted since
        return None


def _extractor(workspace: Workspace, spec: MonitorSpec, modality: str | None, earlier: Sequence[MonitorOutcome]) -> str:
    """Pinned by the first window: vectors of two extractors have no distance."""
    if earlier:
        return earlier[0].extractor
    if modality is None or (spec.extractor is None and not _is_text(modality)):
        return extractors.DESCRIPTOR
    found = extractors.resolve(spec.extractor, modality, workspace)
    if found != extractors.DESCRIPTOR and modality not in _OF_CELLS:
        raise SpeciateError(
            Code.INVALID,
            f"Files of {modality} are compared by what the modality itself computes of them, and not by {found!r}.",
            f"Leave extractor out, or name {extractors.DESCRIPTOR!r}.",
        )
    return found


def _is_text(modality: str) -> bool:
    return modality == "text" and find(modality).analyzer is not None


def _allowed(use_case: UseCase) -> float | None:
    target = use_case.objective.target
    if target is None or not counts_right(use_case.objective.metric) or not 0 < target < 1:
        return None
    return 1 - target


def collect(folder: RunFolder) -> MonitorOutcome:
    found = folder.result()
    if found is None:
        raise SpeciateError(Code.INTERNAL, f"{folder.run_id} left no result.", "Retry the job.")
    return MonitorOutcome.model_validate(found)


def commit(tx: Transaction, job: Job, outcome: MonitorOutcome) -> JobResult:
    """What the watch reads. An alarm is an event, too: numbers and ids alone."""
    if alarms := [each for each in outcome.signals if each.alarm]:
        tx.event(
            f"use_case:{outcome.use_case}", "monitor.alarm",
            {"job": job.id, "generation": outcome.generation, "window": outcome.number, "model": outcome.model,
             "signals": [each.name for each in alarms], "onset": max((e.onset or 0.0) for e in alarms) or None},
        )  # fmt: skip
    return outcome.model_dump(mode="json")


KIND = Kind(
    name="monitor",
    spec=MonitorSpec,
    plan=plan,
    run="speciate.loop.monitor_run:run",
    collect=collect,
    commit=commit,
    limits=Limits(silence_seconds=900),
)
