"""The job kind `shadow`: a candidate answers what production was asked already, before any client gets its answers.

Shown are how often it agrees with what was answered, on which answers it does not, which inputs it cannot answer, and
its time for each. None of it decides: a candidate that agrees with what serves is no better than that. It is what a
person looks at before a canary.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, JobResult, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool, PoolProcessEnded
from speciate.jobs.run import Run
from speciate.loop.watch.facts import ShadowReport
from speciate.models import registry
from speciate.predictions import reading
from speciate.predictions.feedback import matches_label
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.predictions.prediction_ids import hash_to_unit
from speciate.predictions.quality import wilson_interval
from speciate.predictions.reading import LoggedAnswer
from speciate.promotion import aliases
from speciate.sandbox import SandboxPolicy
from speciate.sandbox import check as check_sandbox
from speciate.serving.items import AnswerPayload, Item, ItemPrediction, ModelInputs
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

SAMPLE = 200
"""Logged inputs that the candidate is asked."""
_ANSWER = "speciate.serving.predict_worker:answer"
_CHUNK, _SECONDS, _SHOWN = 16, 600.0, 12
_NEWEST = 5_000
"""Answers of which the sample is drawn."""
_SAME = 1e-6
"""Relative difference up to which numbers agree."""


class ShadowSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    model: str
    n: int = Field(SAMPLE, gt=0, le=5_000)


class AskedPayload(BaseModel):
    """A model that is asked about logged inputs, and how it reads them."""

    model_config = ConfigDict(frozen=True)
    log: Path
    model_folder: Path
    modality: str | None
    inputs: tuple[str, ...]
    parts: tuple[str, ...]
    ignored_parts: tuple[str, ...]
    since: float
    n: int
    cage: SandboxPolicy

    def about(self) -> ModelInputs:
        return {
            "model": str(self.model_folder), "modality": self.modality, "inputs": list(self.inputs),
            "parts": list(self.parts), "ignored_parts": list(self.ignored_parts),
        }  # fmt: skip


class ShadowPayload(AskedPayload):
    model: str
    serving: str | None
    generation: int


def plan(spec: ShadowSpec, workspace: Workspace) -> Plan[ShadowPayload]:
    """Raises NOT_FOUND for the model, INVALID for one that others serve."""
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    card, alias = version.card, aliases.read(workspace.database, spec.use_case)
    days = workspace.settings.log.of(spec.use_case).retention_days
    check_sandbox(workspace.settings.cage)
    payload = ShadowPayload(
        log=log_folder(workspace.folders, spec.use_case).path, model=card.ref,
        model_folder=version.path, modality=card.modality, inputs=card.inputs, parts=card.parts,
        ignored_parts=card.ignored_parts,
        serving=alias.model if alias else None, generation=alias.generation if alias else 0,
        since=reading.retention_start(workspace.clock.now(), days), n=spec.n, cage=workspace.settings.cage,
    )  # fmt: skip
    return Plan(
        payload=payload, use_case=spec.use_case,
        resources=Resources(cpu=1, memory_mb=1024 + 2 * ((card.bytes or 0) >> 20)), resolved={"model": card.ref},
    )  # fmt: skip


def sample(log: LogFolder, payload: ShadowPayload) -> list[LoggedAnswer]:
    """By the hash of their ids, of the newest answers of what serves whose input was kept."""
    if not log.path.exists():
        return []
    rows = reading.answers(log, since=payload.since, columns=["id", "generation", "error", "input"])
    names = [
        name
        for name, generation, error, kept in zip(
            *(rows[each].to_pylist() for each in ("id", "generation", "error", "input")), strict=True
        )
        if generation == payload.generation and not error and kept
    ]
    order = sorted(names[-_NEWEST:], key=lambda name: hash_to_unit(name, "shadow"))[: payload.n]
    found = reading.find_many(log, order)
    return [found[name] for name in order if name in found]


def item_of(log: LogFolder, answer: LoggedAnswer) -> Item | None:
    """The logged input as it was asked; None for a mixed row, or where its file is gone."""
    kept = answer.input or {}
    if "text" in kept:
        return {"id": answer.id, "text": str(kept["text"])}
    if "row" in kept:
        return {"id": answer.id, "row": dict(kept["row"])}
    if "data" not in kept:
        return None
    try:
        data = log.medium(kept["data"]["sha256"]).read_bytes()
    except FileNotFoundError:
        return None
    return {"id": answer.id, "data": base64.b64encode(data).decode()}


class TimedAnswers(NamedTuple):
    predictions: list[ItemPrediction]
    ms: list[float]
    """Milliseconds for one input of each chunk but the first, which loads the model."""


def run(run: Run) -> dict[str, object]:
    payload = run.read_payload(ShadowPayload)
    log = LogFolder(payload.log)
    pool = Pool(run.folders, Settings(cage=payload.cage), size=1)
    try:
        asked = [(answer, item) for answer in sample(log, payload) if (item := item_of(log, answer)) is not None]
        timed = ask_all(pool, payload.about(), [item for _, item in asked])
    finally:
        pool.close()
    return compare(payload, [answer for answer, _ in asked], timed.predictions, timed.ms).model_dump(mode="json")


def compare(
    payload: ShadowPayload, logged: Sequence[LoggedAnswer], found: Sequence[ItemPrediction], ms: Sequence[float]
) -> ShadowReport:  # fmt: skip
    """Pure."""
    failed, agree = 0, 0
    differ: list[tuple[float, str]] = []
    for before, after in zip(logged, found, strict=True):
        if after["error"] is not None:
            failed += 1
        elif _agrees(before.output, after["output"]):
            agree += 1
        else:
            differ.append((-(after["confidence"] or 0.0), before.id))
    judged = agree + len(differ)
    share = agree / judged if judged else None
    return ShadowReport(
        model=payload.model, against=payload.serving, asked=len(logged), failed=failed, agree=agree, agreement=share,
        interval=None if share is None else wilson_interval(share, judged, 0.95),
        disagreements=tuple(name for _, name in sorted(differ)[:_SHOWN]), ms=_median(ms),
        logged_ms=_median([each.ms for each in logged]),
    )  # fmt: skip


def _agrees(before: object, after: object) -> bool:
    if isinstance(before, int | float) and isinstance(after, int | float):
        return math.isclose(before, after, rel_tol=_SAME, abs_tol=1e-9)
    return matches_label(before, after)


def ask_all(pool: Pool, about: ModelInputs, items: Sequence[Item]) -> TimedAnswers:
    found: list[ItemPrediction] = []
    times: list[float] = []
    for start in range(0, len(items), _CHUNK):
        chunk = list(items[start : start + _CHUNK])
        begun = time.monotonic()
        found += _ask(pool, about, chunk)
        if start:  # the first one loads the model
            times.append(1000 * (time.monotonic() - begun) / len(chunk))
    return TimedAnswers(found, times)


def _ask(pool: Pool, about: ModelInputs, items: list[Item]) -> list[ItemPrediction]:
    """An input on which the process ends costs itself alone."""
    payload: AnswerPayload = {**about, "items": items}  # type: ignore[typeddict-item]  # no `seconds`
    try:
        given: list[ItemPrediction] = pool.ask(_ANSWER, payload, _SECONDS)["predictions"]
    except PoolProcessEnded:
        if len(items) == 1:
            return [{"id": items[0]["id"], "output": None, "confidence": None, "error": "its process ended"}]
        half = len(items) // 2
        return [*_ask(pool, about, items[:half]), *_ask(pool, about, items[half:])]
    return given


def _median(values: Sequence[float]) -> float | None:
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    found = ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return round(found, 3)


def collect(folder: RunFolder) -> ShadowReport:
    return ShadowReport.model_validate(folder.result() or {})


def commit(tx: Transaction, job: Job, report: ShadowReport) -> JobResult:
    return report.model_dump(mode="json")


KIND: Kind[ShadowSpec, ShadowPayload, ShadowReport] = Kind(
    name="shadow", spec=ShadowSpec, plan=plan, run="speciate.loop.watch.shadow:run", collect=collect, commit=commit
)
