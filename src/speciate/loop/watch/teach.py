"""The job kind `teach`: a teacher labels answers that people were not asked about, or did not answer.

A person consents by naming it in `[watch.teachers]` of settings.toml: no tool can. It is a version of this workspace,
so that nothing leaves the machine, or an endpoint (`teach_endpoint`). Each time it first answers what people labelled;
where it agrees with them on fewer than 80 of 100, or fewer than 30 of these labels are there, none of its labels is
used. So a teacher that begins to answer nonsense stops teaching with the next batch, and an endpoint within this one.
Its labels are kept beside the log, with who gave them; `log:...&taught=JOB` takes them into the split train alone,
never where something is judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, RootModel

from speciate.datasets.sources.answer_log import taught_file
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, JobResult, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.loop.watch import teach_endpoint
from speciate.loop.watch.facts import Taught
from speciate.loop.watch.shadow import AskedPayload, ask_all, item_of
from speciate.loop.watch.teach_endpoint import AGREEMENT, LEAST, EndpointPayload
from speciate.models import registry
from speciate.predictions import reading
from speciate.predictions.feedback import latest_by_source, matches_label, prevailing_label
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.predictions.prediction_ids import hash_to_unit
from speciate.predictions.quality import wilson_interval
from speciate.predictions.reading import LoggedAnswer
from speciate.sandbox import check as check_sandbox
from speciate.serving.items import ItemPrediction
from speciate.settings import Settings
from speciate.use_cases import get as use_case_of
from speciate.workspace import integrity
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_MOST_CHECKED = 200


class TeachSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    teacher: str
    n: int = Field(200, gt=0, le=10_000)
    since: float
    """Answers from then on."""
    until: float
    """Labels that came until then, and answers before."""
    dataset: str | None = None
    """To which its labels are added: whose consent an endpoint needs, and whose classes it may name."""
    budget_usd: float | None = Field(None, ge=0)


class TeachPayload(AskedPayload):
    teacher: str
    until: float


class AnyPayload(RootModel[EndpointPayload | TeachPayload]):
    """Payload of a teacher: of an endpoint, or of a model version."""


def plan(spec: TeachSpec, workspace: Workspace) -> Plan[TeachPayload | EndpointPayload]:
    """Raises REFUSED where no person named this teacher or allowed its host, NOT_FOUND for a version that is not there,
    INVALID for one of another task, or an endpoint that cannot label this."""
    if workspace.settings.watch.teachers.get(spec.use_case) != spec.teacher:
        raise SpeciateError(
            Code.REFUSED,
            f"Nobody consented to {spec.teacher!r} as a teacher of {spec.use_case!r}.",
            "A person writes it into [watch.teachers] of settings.toml.",
            next=[Call("get_status", {"use_case": spec.use_case})],
        )
    version = registry.resolve(workspace.database, workspace.folders, spec.teacher)
    card, use_case = version.card, use_case_of(workspace.database, spec.use_case)
    if card.task not in (None, use_case.task):
        raise SpeciateError(
            Code.INVALID, f"{card.ref} does {card.task}, and {spec.use_case!r} is {use_case.task}: it cannot teach it.",
            "A person names another one in [watch.teachers] of settings.toml.",
        )  # fmt: skip
    days = workspace.settings.log.of(spec.use_case).retention_days
    since = max(spec.since, reading.retention_start(workspace.clock.now(), days))
    log = log_folder(workspace.folders, spec.use_case).path
    if card.endpoint is not None:
        planned = teach_endpoint.plan(
            workspace, card.endpoint, card.ref, use_case, log, spec.dataset, spec.n, since, spec.until, spec.budget_usd
        )
        return Plan(
            payload=planned.payload, use_case=spec.use_case, secrets=planned.secrets, spends=planned.spends,
            departures=planned.departures,
            usd=planned.payload.budget_usd, resolved={"teacher": card.ref, "host": card.endpoint.host},
        )  # fmt: skip
    check_sandbox(workspace.settings.cage)
    payload = TeachPayload(
        log=log, teacher=card.ref, model_folder=version.path,
        modality=card.modality, inputs=card.inputs, parts=card.parts, ignored_parts=card.ignored_parts, n=spec.n,
        since=since, until=spec.until, cage=workspace.settings.cage,
    )  # fmt: skip
    return Plan(
        payload=payload, use_case=spec.use_case,
        resources=Resources(cpu=1, memory_mb=1024 + 2 * ((card.bytes or 0) >> 20)), resolved={"teacher": card.ref},
    )  # fmt: skip


def run(run: Run) -> dict[str, object]:
    payload = run.read_payload(AnyPayload).root
    log = LogFolder(payload.log)
    labels = _labels(log, payload.since, payload.until)
    known = _some(log, list(labels), _MOST_CHECKED)
    open_ = _some(log, _unlabelled(log, payload.since, payload.until, labels), payload.n)
    if isinstance(payload, EndpointPayload):
        found, taught = teach_endpoint.run(run, payload, known, open_, labels)
    else:
        found, taught = _by_version(run, payload, log, known, open_, labels)
    if not found.trusted:
        return found.model_dump(mode="json")
    _write(taught_file(log, run.folder.run_id.partition(".")[0]), taught, payload.teacher)
    return found.model_copy(update={"labels": len(taught)}).model_dump(mode="json")


def _by_version(
    run: Run, payload: TeachPayload, log: LogFolder, known: Sequence[LoggedAnswer], open_: Sequence[LoggedAnswer],
    labels: Mapping[str, object],
) -> tuple[Taught, dict[str, object]]:  # fmt: skip
    pool = Pool(run.folders, Settings(cage=payload.cage), size=1)
    try:
        found = judge(payload.teacher, known, _ask(pool, payload, log, known), labels)
        given = _ask(pool, payload, log, open_) if found.trusted else {}
    finally:
        pool.close()
    return found, {name: each["output"] for name, each in given.items() if each["error"] is None}


def judge(
    teacher: str, known: Sequence[LoggedAnswer], given: Mapping[str, ItemPrediction], labels: Mapping[str, object]
) -> Taught:  # fmt: skip
    """How often it gives people's labels, and whether that is enough. An answer that did not come is none. Pure."""
    asked = [each.id for each in known if each.id in given]
    right = sum(given[name]["error"] is None and matches_label(given[name]["output"], labels[name]) for name in asked)
    share = right / len(asked) if asked else None
    trusted = len(asked) >= LEAST and share is not None and share >= AGREEMENT
    if len(asked) < LEAST:
        why = f"{len(asked)} of its answers can be held to labels of people, and {LEAST} are needed"
    else:
        why = f"it gave the label of people on {right} of {len(asked)}, and {AGREEMENT:.0%} are needed"
    return Taught(
        teacher=teacher, checked=len(asked), agreement=share, trusted=trusted, because=why,
        interval=None if share is None else wilson_interval(share, len(asked), 0.95),
    )  # fmt: skip


def _labels(log: LogFolder, since: float, until: float) -> dict[str, object]:
    """Prediction -> the label of people or agents. What a system or a teacher said does not check a teacher."""
    if not log.path.exists():
        return {}
    given = [each for each in reading.feedback(log, since=since) if each.at <= until]
    found = {name: prevailing_label(said) for name, said in latest_by_source(given).items()}
    return {name: each.label for name, each in found.items() if each is not None and each.source != "system"}


def _unlabelled(log: LogFolder, since: float, until: float, labels: Mapping[str, object]) -> list[str]:
    if not log.path.exists():
        return []
    rows = reading.answers(log, since=since, columns=["id", "at", "error", "input"])
    columns = (rows[name].to_pylist() for name in ("id", "at", "error", "input"))
    return [
        name
        for name, at, error, kept in zip(*columns, strict=True)
        if name not in labels and at <= until and not error and kept
    ]


def _some(log: LogFolder, names: Sequence[str], most: int) -> list[LoggedAnswer]:
    """At most so many of the answers, in the order of the hash of their ids."""
    order = sorted(names, key=lambda name: hash_to_unit(name, "taught"))[:most]
    found = reading.find_many(log, order)
    return [found[name] for name in order if name in found]


def _ask(
    pool: Pool, payload: TeachPayload, log: LogFolder, answers: Sequence[LoggedAnswer]
) -> dict[str, ItemPrediction]:  # fmt: skip
    asked = [(each.id, item) for each in answers if (item := item_of(log, each)) is not None]
    found = ask_all(pool, payload.about(), [item for _, item in asked]).predictions
    return {name: each for (name, _), each in zip(asked, found, strict=True)}


def _write(path: Path, taught: Mapping[str, object], teacher: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    table = pa.table(
        {"prediction": pa.array(list(taught), pa.string()),
         "label": pa.array([json.dumps(value, ensure_ascii=False) for value in taught.values()], pa.string()),
         "by": pa.array([teacher] * len(taught), pa.string())}
    )  # fmt: skip
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w+b") as file:
        integrity.write_table(table, file, compression="zstd")
    temporary.replace(path)


def collect(folder: RunFolder) -> Taught:
    return Taught.model_validate(folder.result() or {})


def commit(tx: Transaction, job: Job, found: Taught) -> JobResult:
    return found.model_copy(update={"source": job.id if found.labels else None}).model_dump(mode="json")


KIND: Kind[TeachSpec, TeachPayload | EndpointPayload, Taught] = Kind(
    name="teach", spec=TeachSpec, plan=plan, run="speciate.loop.watch.teach:run", collect=collect, commit=commit,
    paid=teach_endpoint.paid,
)  # fmt: skip
