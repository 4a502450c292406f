"""The job kind `mine`: which logged answers people are asked about. Half are drawn at random, half are the least sure.

The random half alone says without bias how good a model is, and it teaches as well as anything: after a shift no
strategy beat it on digits of two sources. Novelty is not asked for: it picks oddities, and was the worst by far.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.predictions import reading
from speciate.predictions.feedback import latest_by_source, prevailing_label
from speciate.predictions.label_queue import QueuedAnswer, UnlabelledAnswer, next_in_queue
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_ASKED = "SELECT prediction FROM label_requests WHERE use_case = ?"
_INSERT = "INSERT INTO label_requests VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


class MineSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    episode: int
    n: int = Field(gt=0, le=10_000)
    since: float
    """Answers from then on: older ones tell nothing of what is new."""


class MinePayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    log: Path
    n: int
    since: float
    asked: tuple[str, ...]
    """Those that people were asked about before."""


class MineOutcome(BaseModel):
    model_config = ConfigDict(frozen=True)
    pool: int
    chosen: tuple[tuple[str, str], ...]
    """Prediction and how it was drawn."""


class Candidate(NamedTuple):
    id: str
    confidence: float | None
    input: str | None
    """JSON of what was asked."""


def plan(spec: MineSpec, workspace: Workspace) -> Plan[MinePayload]:
    days = workspace.settings.log.of(spec.use_case).retention_days
    since = max(spec.since, reading.retention_start(workspace.clock.now(), days))
    asked = tuple(row[0] for row in workspace.database.read(_ASKED, [spec.use_case]))
    payload = MinePayload(
        log=log_folder(workspace.folders, spec.use_case).path, n=spec.n, since=since, asked=asked
    )  # fmt: skip
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=300), use_case=spec.use_case)


def choose(candidates: Iterable[Candidate], n: int) -> list[QueuedAnswer]:
    """Equal inputs once, by their newest answer. Pure."""
    newest: dict[str, Candidate] = {}
    for each in candidates:
        newest[hashlib.sha256((each.input or each.id).encode()).hexdigest()] = each
    pool = [UnlabelledAnswer(each.id, each.confidence, None) for each in newest.values()]
    return next_in_queue(pool, {}, strategy="mixed", count=n)


def run(run: Run) -> Mapping[str, object]:
    payload = run.read_payload(MinePayload)
    log = LogFolder(payload.log)
    given = latest_by_source(reading.feedback(log, since=payload.since)) if log.path.exists() else {}
    done = {*payload.asked, *(name for name, said in given.items() if prevailing_label(said) is not None)}
    pool = [each for each in _candidates(log, payload.since) if each.id not in done]
    chosen = choose(pool, payload.n)
    return MineOutcome(pool=len(pool), chosen=tuple((each.id, each.drawn) for each in chosen)).model_dump(mode="json")


def _candidates(log: LogFolder, since: float) -> Iterable[Candidate]:
    """Answers without an error whose input was kept: of others nobody could say what is right."""
    if not log.path.exists():
        return
    rows = reading.answers(log, since=since, columns=["id", "confidence", "error", "input"])
    columns = (rows[name].to_pylist() for name in ("id", "confidence", "error", "input"))
    for name, confidence, error, kept in zip(*columns, strict=True):
        if not error and kept:
            yield Candidate(name, confidence, kept)


def collect(folder: RunFolder) -> MineOutcome:
    return MineOutcome.model_validate(folder.result() or {})


def commit(tx: Transaction, job: Job, found: MineOutcome) -> Mapping[str, object]:
    spec = MineSpec.model_validate(job.spec)
    for prediction, drawn in found.chosen:
        tx.execute(_INSERT, [spec.use_case, spec.episode, prediction, drawn, tx.now])
    return {"asked": len(found.chosen), "pool": found.pool}


KIND = Kind(
    name="mine", spec=MineSpec, plan=plan, run="speciate.loop.watch.mine:run", collect=collect, commit=commit
)  # fmt: skip
