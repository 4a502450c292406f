"""What a kind of job declares, and the table of all kinds.

`Kind[Spec, Payload, Outcome]`: `plan` in the daemon makes the payload from the spec (checks everything, downloads
nothing, imports nothing heavy); `run` in a worker process reads it with `run.read_payload` (the heavy part; it never
opens the catalog); `collect` in the daemon makes the outcome, which `commit` registers. A composite has `next` instead
of a run, an inline kind one short `act`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic

from pydantic import BaseModel, ConfigDict, Field, SkipValidation
from typing_extensions import TypeVar

from speciate.errors import Call, SpeciateError, unknown
from speciate.jobs.allowances import Spend
from speciate.jobs.egress import Departure, departures_to_place
from speciate.jobs.folder import RunFolder, RunResult
from speciate.jobs.job import Job, JobError, JobResult, Limits, Resources, StoredSpec
from speciate.secrets import SecretRequest
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

Spec = TypeVar("Spec", bound=BaseModel, default=Any)
Payload = TypeVar("Payload", default=Any)
"""A pydantic model, or plain JSON."""
Outcome = TypeVar("Outcome", default=Any)

StoredPayload = dict[str, Any]
"""A payload as its plan's row and spec.json have it: JSON that `run.read_payload` validates."""

KINDS = {
    "ingest": "speciate.datasets.ingest.ingest:KIND",
    "curate": "speciate.datasets.curate:KIND",
    "embed": "speciate.datasets.similarity.embed:KIND",
    "export": "speciate.datasets.exports.export:KIND",
    "export_model": "speciate.exports.export_model:KIND",
    "convert": "speciate.exports.convert:KIND",
    "fetch": "speciate.models.fetch:KIND",
    "refresh": "speciate.models.search.refresh:KIND",
    "train": "speciate.training.train:KIND",
    "measure": "speciate.training.planning.training_plan:KIND",
    "shortlist": "speciate.training.planning.shortlist:KIND",
    "merge": "speciate.training.merging.merge_models:KIND",
    "evaluate": "speciate.evaluation.evaluate:KIND",
    "screen": "speciate.evaluation.screening:KIND",
    "race": "speciate.evaluation.race:KIND",
    "predict": "speciate.serving.batch_predict:KIND",
    "fingerprint": "speciate.evaluation.endpoints.endpoint_fingerprint:KIND",
    "monitor": "speciate.loop.monitor:KIND",
    "specialize": "speciate.training.specialize:KIND",
    "promote": "speciate.promotion.promote:KIND",
    "label": "speciate.datasets.label:KIND",
    "tag": "speciate.datasets.tags:KIND",
    "forget": "speciate.privacy.purge:KIND",
    "erase": "speciate.privacy.erase:KIND",
    "gc": "speciate.privacy.gc:KIND",
    "mine": "speciate.loop.watch.mine:KIND",
    "teach": "speciate.loop.watch.teach:KIND",
    "shadow": "speciate.loop.watch.shadow:KIND",
    "relearn": "speciate.loop.watch.relearn:KIND",
}
"""Kind -> where it is declared. Loaded at first use; rooms above jobs/ are named by string only."""


def rounded(value: float | None) -> float | None:
    """An estimate to three digits; more than a hundred, in whole numbers. It is no more exact than that."""
    if value is None:
        return None
    return float(round(value)) if 100 <= abs(value) < 1e15 else float(f"{value:.3g}")


class Plan(BaseModel, Generic[Payload]):
    """What the run needs, and what it will cost."""

    model_config = ConfigDict(frozen=True)
    payload: Annotated[Payload, SkipValidation] = Field(default_factory=dict)  # type: ignore[assignment]  # the default
    """Resolved refs, files with absolute paths, parameters. JSON in a plan that was stored."""
    resources: Resources = Resources()
    seconds: float | None = None
    """Estimated run time; None where nothing is known yet."""
    bytes: int | None = None
    usd: float | None = None
    peak_memory_mb: int | None = None
    """Expected; `resources` is what is kept free for it."""
    p95_latency_ms: float | None = None
    """95th percentile of the milliseconds for one answer of the model that the run makes."""
    known_from: tuple[str, ...] = ()
    """Jobs that the estimates come from."""
    use_case: str | None = None
    preload: str | None = None
    """For this very run, where it is not the kind's; of a composite, the most that its children need."""
    preload_next: tuple[str, ...] = ()
    """Imports of runs that are likely to follow this one. They are made while it works, by another process than its
    own imports: only where there is a core for it."""
    secrets: tuple[SecretRequest, ...] = ()
    """Keys that the run needs, each `(name, host)`: it gets them through a pipe, as `run.secret(name)`."""
    spends: tuple[Spend, ...] = ()
    """Money that the run may spend of what a person allowed; it gets its share as `run.allowances`."""
    departures: tuple[Departure, ...] = ()
    """Every dataset of which rows go to a host, also those that they came from: `datasets.consent.departures`."""
    inputs: tuple[str, ...] = ()
    """Where the run goes to a place (`resources.place`): every file and folder that it reads, relative to the
    workspace's root, or absolute outside of it."""
    sources: tuple[str, ...] = ()
    """Files and folders of the caller, absolute, that such a run reads as well. No key and nothing beyond them is
    moved, wherever a link leads; the depot keeps nothing of them once the run has ended."""
    unchecked: tuple[str, ...] = ()
    """What only the run can tell and might fail for, a sentence each, shown by `dry_run`. All else was checked."""
    resolved: Mapping[str, Any] = Field(default_factory=dict)
    """The versions and values that the caller's words stand for (`{"dataset": "digits@v1"}`), shown by `dry_run`."""

    def leaving(self, settings: Settings) -> tuple[Departure, ...]:
        """All that leaves this machine. Raises REFUSED where the plan does not say whose rows it sends."""
        paid = (Departure(dataset=each.dataset, host=each.host) for each in self.spends)
        found = dict.fromkeys((*self.departures, *paid))
        place = settings.executors.get(self.resources.place or "")
        if place is None or self.resources.place is None:
            return tuple(found)
        return departures_to_place(found, self.inputs, self.sources, self.resources.place, place.host)

    def payload_json(self) -> StoredPayload:
        """The payload as the run's spec.json holds it, under its stored names."""
        found: Any = self.payload
        return found.model_dump(mode="json", by_alias=True) if isinstance(found, BaseModel) else dict(found)


class NotGranted(SpeciateError):
    """A plan that is whole but for what a person must grant first: keys, consents. `plan` has its estimate, which needs
    neither: a dry run shows it."""

    def __init__(self, missing: Sequence[SpeciateError], plan: Plan[Any]) -> None:
        first, *_ = missing
        super().__init__(
            first.code,
            " ".join(each.message for each in missing),
            " ".join(filter(None, dict.fromkeys(each.advice for each in missing))),
            next=tuple(dict.fromkeys(call for each in missing for call in each.next)),
        )
        self.plan = plan


def granted(plan: Plan[Payload], missing: Sequence[SpeciateError]) -> Plan[Payload]:
    """The plan. Raises NotGranted where something is missing."""
    if missing:
        raise NotGranted(missing, plan)
    return plan


class ChildRequest(BaseModel):
    """A child that a composite wants. Its key is `PARENT/step`, so a repeated request makes no second one."""

    model_config = ConfigDict(frozen=True)
    step: str
    kind: str
    spec: StoredSpec
    after: tuple[str, ...] = ()
    """Steps of the same parent that must succeed first."""
    priority: int = 0
    run_seconds: float | None = None
    """A run that takes longer is asked to checkpoint and stop, and fails as `timed_out`."""


class Finished(BaseModel):
    """The end of a composite: its result, or the error that ends it."""

    model_config = ConfigDict(frozen=True)
    result: Mapping[str, Any] = Field(default_factory=dict)
    error: str | None = None
    recovery: str = ""


class Child(BaseModel):
    """What a composite sees of a child."""

    model_config = ConfigDict(frozen=True)
    id: str
    step: str
    kind: str
    spec: StoredSpec
    state: str
    result: JobResult | None = None
    error: JobError | None = None
    reason: str | None = None
    """Why the engine gave it up: `timed_out`, `lost` ..."""
    run_seconds: float = 0.0


NextStep = Sequence[ChildRequest] | Finished


def _no_plan(spec: Any, workspace: Workspace) -> Plan:
    return Plan()


def _result_file(folder: RunFolder) -> RunResult:
    return folder.result() or {}


def _nothing_to_adopt(folder: RunFolder) -> None:
    pass


def _nothing_paid(folder: RunFolder) -> Mapping[tuple[str, str], float]:
    return {}


def _pass_on(tx: Transaction, job: Job, collected: Any) -> JobResult:
    return dict(collected)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[Spec, Payload, Outcome]):
    name: str
    spec: type[Spec]
    plan: Callable[[Spec, Workspace], Plan[Payload]] = _no_plan
    """Raises SpeciateError for all that can be checked. Called at the call, and again before a start that waited."""
    run: str = ""
    """`module:function` or `/path/file.py:function` of `run(Run) -> Mapping | None`; only the worker imports it."""
    collect: Callable[[RunFolder], Outcome] = _result_file  # type: ignore[assignment]  # the default's outcome is JSON
    """Reads and checks outputs outside the writer's transaction."""
    adopt: Callable[[RunFolder], None] = _nothing_to_adopt
    """Checks what a run at a place left, and takes files of it into the workspace. In the thread of the place, before
    `collect`; idempotent. Raises SpeciateError: INVALID ends the job, anything else is tried again."""
    commit: Callable[[Transaction, Job, Outcome], Mapping[str, object]] = _pass_on
    """Registers the outcome in the transaction that ends the job; returns the job's result. Idempotent."""
    paid: Callable[[RunFolder], Mapping[tuple[str, str], float]] = _nothing_paid
    """USD by dataset and host that the job paid until now in all its attempts, at most. Recorded however a run ends."""
    next: Callable[[Spec, Sequence[Child], float], NextStep] | None = None
    """Composites: (spec, children so far, now) -> the children that must exist now, or the end. Pure."""
    act: Callable[[Transaction, Spec, Job, Settings], Mapping[str, object]] | None = None
    """Inline kinds: (tx, spec, job, settings) -> result, done in the daemon, in the transaction that ends the job.

    Milliseconds, no I/O beside the catalog; every SpeciateError is raised before the first write."""
    preload: str = ""
    """What its worker has imported when it begins: '' (nothing of note), 'data' (numpy, pyarrow), 'classical' (also
    scikit-learn), 'torch' (also transformers) or 'language' (also trl): `zygote.PROCESSES`."""
    limits: Limits = field(default_factory=Limits)
    gives_room: bool = False
    """Whether its runs free more of the disk than they take: a full disk holds up all others."""

    @property
    def executor(self) -> str:
        return "composite" if self.next else "inline" if self.act else "local"


class Kinds:
    """Looks kinds up by name; `extra` are those that a test fixture or a plug-in brings."""

    def __init__(self, table: Mapping[str, str] = KINDS, extra: Sequence[Kind] = ()) -> None:
        self._table = dict(table)
        self._loaded = {kind.name: kind for kind in extra}

    def add(self, kind: Kind) -> None:
        self._loaded[kind.name] = kind

    def __getitem__(self, name: str) -> Kind:
        if name not in self._loaded:
            if name not in self._table:
                raise unknown(
                    "job kind",
                    name,
                    {*self._table, *self._loaded},
                    next=[Call("list_jobs", {}, "for the jobs there are")],
                )
            module, _, attribute = self._table[name].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def names(self) -> list[str]:
        return sorted({*self._table, *self._loaded})
