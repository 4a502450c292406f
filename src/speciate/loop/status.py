"""The state of a workspace: use cases with their clocks, deployment metrics, pending approvals, disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate import use_cases
from speciate.datasets import consent
from speciate.evaluation.decisions import told_by_its_search
from speciate.governance import approvals, authorization
from speciate.governance.approvals import Approval
from speciate.jobs.recovery import jobs_paused_as_copied
from speciate.lineage import model_report
from speciate.loop import ledger, notifications
from speciate.loop.deployment_periods import DeploymentMetrics
from speciate.loop.ledger import History
from speciate.loop.monitor import not_promised
from speciate.loop.time_to_model import TimeToModel
from speciate.loop.watch import rows as watch_rows
from speciate.loop.watch.label_counts import LabelReader
from speciate.loop.watch.rows import Standing
from speciate.privacy import gc
from speciate.promotion import aliases
from speciate.promotion.aliases import Alias
from speciate.promotion.bake import (
    AutomaticRollback,
    BakeHistory,
    BakeState,
    automatic_rollback,
    bake_histories,
    bake_state,
)
from speciate.use_cases import UseCase
from speciate.workspace import catalog_identity
from speciate.workspace.database import Database
from speciate.workspace.disk_space import DiskSpace
from speciate.workspace.workspace import Workspace

_UNFINISHED_JOBS = """
SELECT use_case, id, state = 'paused' FROM jobs
WHERE use_case IS NOT NULL AND state IN ('waiting', 'queued', 'starting', 'running', 'paused') AND parent IS NULL
ORDER BY created
"""
_NEWEST_EVALUATION = """
SELECT use_case, evaluation, list(candidate) FROM decisions GROUP BY use_case, evaluation
QUALIFY row_number() OVER (PARTITION BY use_case ORDER BY max(created) DESC, evaluation) = 1
"""


class Step(NamedTuple):
    """A call worth making next."""

    tool: str
    arguments: Mapping[str, Any]


class Canary(NamedTuple):
    model: str
    percent: float
    bake: BakeState


class WatchStatus(NamedTuple):
    state: str
    because: str
    since: float
    labels_waiting: int
    """Answers that its episode asked people about, and nobody labelled yet."""
    not_promised: str | None = None
    """What its alarms do not promise, and what mends that."""


class UseCaseStatus(NamedTuple):
    name: str
    version: int
    task: str
    production: str | None
    bake: BakeState | None
    """Bake of the version in production."""
    canary: Canary | None
    taken_back: AutomaticRollback | None
    """Rollback by the bake, where nothing moved since."""
    previous: str | None
    time_to_model: TimeToModel
    running_jobs: list[str]
    """Ids of running jobs, without the children of composites."""
    paused_jobs: list[str]
    waiting_for_person: list[str]
    """Ids of approvals."""
    next_steps: list[Step]
    watch: WatchStatus | None = None


class Disk(NamedTuple):
    """Bytes of the filesystem that holds the workspace, and of the catalog in it."""

    total: int
    free: int
    catalog: int
    floor: int
    """Free bytes below which runs stop and wait."""
    quota: int | None
    used: int | None
    """Bytes used by the workspace; None where there is no quota."""
    low: bool


class Jobs(NamedTuple):
    """Unfinished jobs of a use case, oldest first."""

    running: list[str]
    paused: list[str]


class _CatalogState(NamedTuple):
    """What the catalog says of all use cases that are asked for, each table read once."""

    definitions: Mapping[str, UseCase]
    aliases: Mapping[str, Mapping[str, Alias]]
    trails: Mapping[str, BakeHistory]
    judged: Mapping[str, tuple[str, Sequence[str]]]
    """Use case -> the newest evaluation that decided, and its candidates."""
    jobs: Mapping[str, Jobs]
    pending: Sequence[Approval]
    history: History
    watches: Mapping[str, WatchStatus]

    def alias(self, use_case: str, name: str) -> Alias | None:
        return self.aliases.get(use_case, {}).get(name)


class Status(NamedTuple):
    use_cases: list[UseCaseStatus]
    deliveries: DeploymentMetrics
    disk: Disk
    alerts: list[str]


def status(workspace: Workspace, use_case: str | None = None, *, sees_settings: bool = True) -> Status:
    """Status of all use cases, or of one. `sees_settings`: else no alert names a folder or host of settings.toml.

    Raises NOT_FOUND for a use case that is not there.
    """
    database, now = workspace.database, workspace.clock.now()
    known, room = _read(workspace, use_case, now), workspace.room.look()
    found = [_use_case_status(database, known, name, now, low=room.low) for name in known.definitions]
    return Status(
        found,
        ledger.deployment_metrics_of(known.history, now),
        _disk(workspace, room),
        [
            *alerts(room),
            *_catalog_alerts(workspace),
            *_broken_bakes(found),
            *_questions_of_the_workspace(known.pending),
            *model_report.provider_alerts(database),
            *notifications.alerts(workspace),
            *_idle_places(workspace),
            *_undecided(workspace, sees_settings),
        ],
    )


def _idle_places(workspace: Workspace) -> list[str]:
    """Places whose `kinds` send them nothing, for want of a person's consent."""
    allowed = {each.host for each in consent.list_consents(workspace.database)}
    return [
        f"No dataset may go to {name}, so what its `kinds` name runs here. A person decides, on a terminal: "
        f"speciate allow DATASET --host {name}"
        for name, place in workspace.settings.executors.items()
        if place.kinds and place.host not in allowed
    ]


def _undecided(workspace: Workspace, sees_settings: bool) -> list[str]:
    problems = authorization.authority_of(workspace).problems
    if problems and not sees_settings:
        return ["Settings or keys are not as a person decided them. Who may see settings sees which."]
    return [f"Not as a person decided it: {problem}" for problem in problems]


def _read(workspace: Workspace, use_case: str | None, now: float) -> _CatalogState:
    """However many use cases there are, this is a dozen queries: a query for each of them would scan all events each
    time, for they have no index."""
    database = workspace.database
    asked = {use_case: use_cases.get(database, use_case)} if use_case else use_cases.in_force(database)
    jobs: defaultdict[str, Jobs] = defaultdict(lambda: Jobs([], []))
    for owner, job, paused in database.read(_UNFINISHED_JOBS):
        (jobs[owner].paused if paused else jobs[owner].running).append(job)
    return _CatalogState(
        definitions=asked,
        aliases=aliases.by_use_case(database),
        trails=bake_histories(database, asked),
        judged={name: (evaluation, candidates) for name, evaluation, candidates in database.read(_NEWEST_EVALUATION)},
        jobs=jobs,
        pending=approvals.list_approvals(database, now, approvals.PENDING),
        history=ledger.history_of(workspace, now),
        watches=_watches(workspace),
    )


def _watches(workspace: Workspace) -> dict[str, WatchStatus]:
    standing = watch_rows.everyone(workspace.database)
    said = watch_rows.last_ticks(workspace.database) if standing else {}
    limits = not_promised(workspace.database) if standing else {}
    return {each.watch.use_case: _watch_status(workspace, each, said, limits) for each in standing}


def _watch_status(
    workspace: Workspace, standing: Standing, said: Mapping[str, str], limits: Mapping[str, str]
) -> WatchStatus:
    memory, name = standing.memory, standing.watch.use_case
    if not standing.enabled:
        return WatchStatus("paused", f"paused by {standing.by}", standing.changed, 0)
    waiting = 0
    if memory.state == "labelling":  # a log is read only where somebody waits for labels
        requests = {each.prediction: each for each in watch_rows.requests(workspace.database, name)}
        counts = LabelReader(workspace).counts(name, memory.learned_until, requests, memory.episode)
        waiting = max(0, memory.mined - counts.of_episode)
    return WatchStatus(
        memory.state, said.get(name, "it was not looked at yet"), memory.since, waiting, limits.get(name)
    )


def _questions_of_the_workspace(pending: Sequence[Approval]) -> list[str]:
    """Approvals that belong to no use case, such as of a purge: the others stand with theirs."""
    own = [f"{each.id} ({each.action})" for each in pending if not each.arguments.get("use_case")]
    return [f"A person is asked about {', '.join(own)}: list_approvals(state='pending')."] if own else []


def _broken_bakes(found: Sequence[UseCaseStatus]) -> list[str]:
    """Versions that the bake would have taken back, and a person is to."""
    return [
        f"{each.name}: {each.production} broke a limit of its bake and serves on: call rollback_model, or promote a "
        "better version."
        for each in found
        if each.bake == "broken"
    ]


def _catalog_alerts(workspace: Workspace) -> list[str]:
    """Whether it is a copy's whose jobs wait, what housekeeping would delete for the first time, what was lost."""
    database, found = workspace.database, list[str]()
    if waiting := jobs_paused_as_copied(database):
        original = catalog_identity.original_of(database) or "another workspace"
        found.append(
            f"This workspace is a copy of {original}: {len(waiting)} jobs are paused, such as {waiting[0]}, for the "
            "original may run them. `speciate resume` resumes all of them, control_job(action='resume') one."
        )
    report = gc.announced(database)
    swept = gc.last_sweep(database)
    if report and report.bytes and (swept is None or swept.at < report.at):
        found.append(
            f"{report.bytes / 1e6:.1f} MB are there that nothing needs. Housekeeping deletes them a day after it first "
            "found them: manage_data(action='gc', dry_run=true) lists them; `[retention] gc_hours = 0` keeps all."
        )
    newest = max((each for each in (report, swept) if each), key=lambda each: each.at, default=None)
    if newest and newest.lacking:
        found.append(
            f"The catalog lacks {len(newest.lacking)} rows that a backup has and nobody deleted, such as "
            f"{newest.lacking[0]!r}. Their files stay as long as {' and '.join(newest.known_to)} in backups/ does."
        )
    if newest and newest.implausible:
        found.append(
            "The catalog names almost nothing of what lies in the workspace, so garbage collection deletes none of it: "
            "`speciate stop`, then `speciate rebuild`; what is garbage indeed is deleted by hand."
        )
    return found


def alerts(room: DiskSpace) -> list[str]:
    """What a person must see to."""
    if room.low:
        return [
            f"Runs stop and wait, for {room.short()}: make room, and they go on by themselves. "
            "manage_data(action='gc', dry_run=true) shows what nothing needs."
        ]
    if room.spare < room.floor:
        return [f"There is little room: {room.short()}; with less, runs stop and wait."]
    return []


def _use_case_status(
    database: Database, known: _CatalogState, name: str, now: float, *, low: bool = False
) -> UseCaseStatus:
    definition, trail, jobs = known.definitions[name], known.trails[name], known.jobs.get(name, Jobs([], []))
    pointers = {alias: stands.model for alias, stands in known.aliases.get(name, {}).items()}
    production, canary = known.alias(name, "production"), _canary(known, name)
    clock = ledger.clock_of(known.history, name, now)
    waiting = [item.id for item in known.pending if item.arguments.get("use_case") == name]
    return UseCaseStatus(
        name=name,
        version=definition.version,
        task=definition.task,
        production=pointers.get("production"),
        bake=bake_state(trail, production) if production else None,
        canary=canary,
        taken_back=automatic_rollback(trail),
        previous=pointers.get("previous"),
        time_to_model=clock,
        running_jobs=jobs.running,
        paused_jobs=jobs.paused,
        waiting_for_person=waiting,
        next_steps=next_steps(
            name,
            pointers.get("production"),
            clock,
            jobs,
            waiting,
            _rejected(database, known, name, pointers),
            canary,
            low=low,
            broken=bool(production and "previous" in pointers and bake_state(trail, production) == "broken"),
        ),
        watch=known.watches.get(name),
    )


def _canary(known: _CatalogState, use_case: str) -> Canary | None:
    alias = known.alias(use_case, aliases.CANARY)
    return Canary(alias.model, alias.percent or 0.0, bake_state(known.trails[use_case], alias)) if alias else None


def _rejected(database: Database, known: _CatalogState, name: str, pointers: Mapping[str, str]) -> str | None:
    """The newest evaluation, where nothing that it judged serves or did: undecided, refused or denied. Of a search that
    looked twice the one whose verdict it told."""
    evaluation, candidates = known.judged.get(name, (None, ()))
    if evaluation is None or set(candidates) & set(pointers.values()):
        return None
    return told_by_its_search(database, evaluation) or evaluation


def next_steps(
    use_case: str,
    production: str | None,
    clock: TimeToModel,
    jobs: Jobs,
    waiting: Sequence[str],
    rejected: str | None,
    canary: Canary | None = None,
    *,
    low: bool = False,
    broken: bool = False,
) -> list[Step]:
    """What brings a use case nearer to its model: wait for what runs, then for people, then start something.

    `rejected` is the newest evaluation where it brought no model into production.
    `low`: whether runs wait for room on the disk. `broken`: whether what serves broke its bake, after another version.
    """
    if jobs.running and low:
        return [Step("manage_data", {"action": "gc"}), Step("wait_for_job", {"job": jobs.running[-1]})]
    if broken:
        reason = "it broke a limit of its bake"
        return [Step("rollback_model", {"use_case": use_case, "expected_current": production, "reason": reason})]
    if jobs.running:
        return [Step("wait_for_job", {"job": jobs.running[-1]})]
    if jobs.paused:
        return [Step("control_job", {"job": jobs.paused[-1], "action": "resume"})]
    if waiting:
        return [Step("list_approvals", {"state": approvals.PENDING})]
    if canary and canary.bake == "survived":
        return [Step("promote_model", {"use_case": use_case, "model": canary.model})]
    if rejected:
        return [Step("describe_evaluation", {"evaluation": rejected})]
    if production is None:
        return [Step("describe_dataset", {}), Step("list_options", {"kind": "method"})]
    if clock.state == "open":
        return [Step("predict", {"use_case": use_case})]
    return []


def _disk(workspace: Workspace, room: DiskSpace) -> Disk:
    catalog = workspace.folders.catalog
    size = catalog.stat().st_size if catalog.exists() else 0
    return Disk(room.total, room.free, size, room.floor, room.quota, room.used, room.low)
