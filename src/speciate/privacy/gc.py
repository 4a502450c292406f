"""Kind `gc`: deletes what nothing refers to, and, as the last step of a purge or a deletion, what those left behind.

It takes nothing that anybody could still reach, so no person is asked. Files younger than a day stay, and whatever
was written since the oldest job began that may yet continue: a run seals files long before a version names them. What
jobs left that ended long ago goes as settings.toml says (`retention`): run folders, checkpoints, exports. Of the rest
`garbage` decides by how well the catalog knows its folders (`read_custody`). In a workspace where nobody was told yet
what would go, only files that a person asked to delete or purge go.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import duckdb
from pydantic import BaseModel, ConfigDict

from speciate import features
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import measure_capacity
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Resources, StoredSpec
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.privacy import garbage, references
from speciate.privacy.garbage import Custody, Garbage, Live, Spared, joined, lacking
from speciate.workspace import catalog_identity, compaction, repair
from speciate.workspace.backup import keep_backups, made_at, save_catalog
from speciate.workspace.catalog_identity import SavedBackup
from speciate.workspace.clock import least_age
from speciate.workspace.database import Database, Transaction
from speciate.workspace.packs import index_path
from speciate.workspace.repair import GRACE_SECONDS
from speciate.workspace.tombstones import buried_versions
from speciate.workspace.workspace import Folders, Workspace

_DAY = 24 * 3600.0
_MANIFESTS = "SELECT manifest FROM dataset_versions"
_EVALUATIONS = "SELECT id FROM evaluations"
_ENDED = ("succeeded", "failed", "cancelled", "dead")
_JOBS = f"""
SELECT jobs.id, state IN {_ENDED}, state, executor, attempt, created, ended, spec, plan
FROM jobs LEFT JOIN job_plans ON job_plans.job = jobs.id
"""
_SAME_TARGET = "SELECT id FROM jobs WHERE kind = 'forget' AND spec ->> 'sha256' = ?"
_REDACT_JOBS = "UPDATE jobs SET spec = ? WHERE id = ? OR parent = ?"
_REDACT_APPROVALS = "UPDATE approvals SET arguments = ? WHERE arguments ->> 'sha256' = ?"
_STEPS = "SELECT id, result FROM jobs WHERE parent = ? AND result IS NOT NULL"
_SET_RESULT = "UPDATE jobs SET result = ? WHERE id = ?"
_FORGET_PLANS = "DELETE FROM job_plans WHERE job IN (SELECT id FROM jobs WHERE parent = ?)"
REPORTED, SUBJECT = "garbage.reported", "workspace:garbage"
_LAST_REPORT = "SELECT seq, stamp, data FROM events WHERE type = ? ORDER BY seq DESC LIMIT 1"
_LAST_SWEEP = """
SELECT ended, result FROM jobs WHERE kind = 'gc' AND state = 'succeeded' AND spec = '{}' ORDER BY ended DESC LIMIT 1
"""
_LAST_BEGINNING = f"""
SELECT coalesce(max(seq), 0) FROM events WHERE type IN ('{catalog_identity.REBUILT}', '{catalog_identity.COPIED}')
"""
_NEWEST_EVENT = "SELECT coalesce(max(seq), 0) FROM events"
_LISTED = 50
_log = logging.getLogger(__name__)


class GcSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    purge: bool = False
    """Whether this is the last step of a purge, which is the job's parent."""
    since: float = 0.0
    """When the purge began to erase: blobs from before that nothing needs may quote what was purged, so they go."""
    doomed: tuple[str, ...] = ()
    """Files and folders below the workspace's root that hold what was purged or deleted: they go whatever their age,
    unless a version that came later has the same file."""
    surplus: bool = False
    """Whether the settings and no person let `doomed` go (`deletion.delete_surplus`): then nothing is to be purged."""


class GcPayload(BaseModel):
    """Payloads that older releases stored lack what has a default; then less goes."""

    model_config = ConfigDict(frozen=True)
    live: Live
    custody: Custody = Custody()
    identity: str | None = None
    """Identity of the catalog that it was planned for."""
    sweeps: bool = False
    """Whether more goes than `doomed`: a person was told what would."""
    lacking: tuple[str, ...] = ()
    known_to: tuple[str, ...] = ()
    purge: bool = False
    since: float = 0.0
    surplus: bool = False
    doomed: dict[str, float]
    """Path below the root -> when it was last written."""


class GcResult(TypedDict, total=False):
    freed: dict[str, int]
    """Kind -> bytes."""
    bytes: int
    kept: dict[str, dict[str, int]]
    """Why -> `{files, bytes}` of what nothing names and stays all the same."""
    lacking: Sequence[str]
    known_to: Sequence[str]


class Total(BaseModel):
    model_config = ConfigDict(frozen=True)
    files: int
    bytes: int


class SurplusVersions(BaseModel):
    """Model versions that go as `retention.keep_versions` says."""

    model_config = ConfigDict(frozen=True)
    refs: list[str]
    bytes: int


class GarbageSurvey(BaseModel):
    """What a run would delete now."""

    model_config = ConfigDict(frozen=True)
    kinds: dict[str, Total]
    bytes: int
    first: list[str]
    """Paths below the root."""
    kept: dict[str, Total]
    """Why -> files that nothing names and that stay all the same."""
    lacking: list[str]
    """Rows that a backup has and the catalog has lost."""
    known_to: list[str]
    """Names of the backups that have them."""
    versions: SurplusVersions | None = None

    def document(self) -> Mapping[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


class GarbageReport(NamedTuple):
    """What was announced, or what a run deleted."""

    at: float
    bytes: int
    lacking: list[str]
    """Rows that a backup has and the catalog has lost."""
    known_to: list[str]
    """Names of the backups that have them."""
    implausible: bool
    """Whether the catalog names almost nothing of what lies there."""


class _MarkResult(NamedTuple):
    live: Live
    """What must stay."""
    custody: Custody
    lacking: list[str]
    """Rows that backups have and the catalog has lost."""
    known_to: list[str]
    """Names of the backups that have them."""


def plan(spec: GcSpec, workspace: Workspace) -> Plan[GcPayload]:
    """A purge's last step has the machine to itself: then whatever looks like a leftover is one."""
    capacity = measure_capacity(workspace.settings.capacity)
    sweeps = announced(workspace.database) is not None
    if sweeps and not spec.purge:
        _ensure_backup(workspace)
    marked = _mark(workspace)
    needed = needed_files(_manifests(workspace))
    doomed = {name: garbage.written(workspace.folders.root / name) for name in spec.doomed if name not in needed}
    payload = GcPayload(
        live=marked.live, custody=marked.custody, identity=workspace.identity, sweeps=sweeps,
        lacking=tuple(marked.lacking[:_LISTED]), known_to=tuple(marked.known_to), purge=spec.purge, since=spec.since,
        surplus=spec.surplus, doomed=doomed,
    )  # fmt: skip
    return Plan(payload=payload, resources=Resources(cpu=capacity.cpu if spec.purge else 1.0))


def survey(workspace: Workspace) -> GarbageSurvey:
    """What a run would delete now."""
    marked = _mark(workspace)
    found, kept = garbage.survey(workspace.folders, marked.live, marked.custody)
    files, sizes = Counter(each.kind for each in found), Counter[str]()
    for each in found:
        sizes[each.kind] += each.bytes
    return GarbageSurvey(
        kinds={kind: Total(files=files[kind], bytes=sizes[kind]) for kind in sorted(files)},
        bytes=sum(sizes.values()),
        first=[each.path.relative_to(workspace.folders.root).as_posix() for each in found[:_LISTED]],
        kept={why: Total(**total) for why, total in kept.items()},
        lacking=marked.lacking[:_LISTED],
        known_to=marked.known_to,
    )


def announced(database: Database) -> GarbageReport | None:
    """The newest announcement since the workspace, or its catalog, began; None if there is none."""
    row = database.read_one(_LAST_REPORT, [REPORTED])
    if row is None or row[0] < database.read(_LAST_BEGINNING)[0][0]:
        return None
    return _parse_report(row[1], json.loads(row[2]))


def last_sweep(database: Database) -> GarbageReport | None:
    """Report of the newest run since the workspace, or its catalog, began; not of one that only ended a deletion or a
    purge."""
    row = database.read_one(_LAST_SWEEP)
    since = announced(database)
    if row is None or since is None or row[0] < since.at:
        return None
    return _parse_report(row[0], json.loads(row[1]))


def _parse_report(at: float, data: Mapping[str, Any]) -> GarbageReport:
    lacking, known_to = data.get("lacking", []), data.get("known_to", [])
    return GarbageReport(at, data.get("bytes", 0), lacking, known_to, Spared.IMPLAUSIBLE in data.get("kept", {}))


def announce(workspace: Workspace, found: GarbageSurvey) -> None:
    """Say what would go (`deletion.survey_with_surplus`), before anything goes here for the first time."""
    data = found.model_dump(mode="json", include={"kinds", "bytes", "kept", "lacking", "known_to"})
    data["bytes"] += found.versions.bytes if found.versions else 0

    def say(tx: Transaction) -> None:
        keep_backups(tx, found.known_to)
        tx.event(SUBJECT, REPORTED, data)

    workspace.database.transact(say)


def run(run: Run) -> GcResult:
    """Writes the list of files before it deletes them: `outputs/garbage.txt`."""
    folders, payload = run.folders, run.read_payload(GcPayload)
    if payload.identity is not None and not is_folder_of_catalog(folders.root, payload.identity):
        raise SpeciateError(
            Code.REFUSED,
            f"{folders.root} is not the folder of the catalog that this was planned for ({catalog_identity.ANCHOR}); "
            "nothing went.",
            "Stop the daemon (`speciate stop`) and call again: it says what is wrong.",
        )
    found, kept = garbage.survey(folders, payload.live, payload.custody)
    if not payload.sweeps:  # also where an older release planned it
        found, kept = [], {}
    found += _garbage_to_purge(folders, payload.doomed)
    if payload.purge:
        found += [*garbage.leftovers(folders), *garbage.caches(folders)]
        found += garbage.orphans(folders, payload.live, payload.since)
        _empty_logs(folders)
    found = [each for each in dict.fromkeys(found) if each.path != run.folder.path]
    if not payload.purge:  # names may be what is to be forgotten
        listed = (f"{each.kind}\t{each.bytes}\t{each.path.relative_to(folders.root).as_posix()}\n" for each in found)
        (run.outputs / "garbage.txt").write_text("".join(listed))
    run.progress(0, len(found), "files")
    freed = garbage.delete(found)
    for extractor in sorted(path.name for path in folders.features.glob("*") if path.is_dir()):
        features.merge(folders, extractor)
    run.progress(len(found), len(found), "files")
    result: GcResult = {"freed": dict(sorted(freed.items())), "bytes": sum(freed.values())}
    if kept:
        result["kept"] = kept
    if payload.lacking:
        result["lacking"] = payload.lacking
    if payload.known_to:
        result["known_to"] = payload.known_to
    return result


def collect(folder: RunFolder) -> GcResult:
    return cast(GcResult, folder.result() or {})


def commit(tx: Transaction, job: Job, collected: GcResult) -> GcResult:
    """Where a person had something deleted or forgotten, the catalog's file is rewritten when it is next let go, and
    the backups from before are replaced by one from now (workspace/backup.py); those that alone know rows that the
    catalog lost go only with a purge. What a purge was about stands nowhere any more."""
    spec = GcSpec.model_validate(job.spec)
    keep_backups(tx, collected.get("known_to", ()))
    if spec.purge and job.parent:
        _redact_request(tx, job.parent)
    asked = spec.doomed and not spec.surplus
    if spec.purge or (asked and not collected.get("lacking")):
        tx.execute("INSERT OR REPLACE INTO meta VALUES ('forgotten', ?)", [str(tx.execute(_NEWEST_EVENT)[0][0])])
    if spec.purge or asked:
        compaction.request_compaction(tx, job.run_id)
        tx.event(job.parent or job.id, "data.forgotten")
    return collected


def _ensure_backup(workspace: Workspace) -> None:
    """A backup that is no older than what may go at most. Without one (a full disk), what nothing names stays."""
    if read_custody(workspace, 0.0).witnessed < workspace.elapsed.cutoff(GRACE_SECONDS):
        try:
            save_catalog(workspace.database, workspace.folders.backups, workspace.clock.now())
        except (duckdb.Error, OSError):
            _log.exception("no backup could be made before garbage is collected")


def _mark(workspace: Workspace) -> _MarkResult:
    """Files that must stay, and since when every file must."""
    database, elapsed = workspace.database, workspace.elapsed
    retention = workspace.settings.retention
    timeline = elapsed.look()
    gone = lost_rows(workspace)
    files, begun = needed_files([*_manifests(workspace), *gone.manifests]), [elapsed.cutoff(GRACE_SECONDS)]
    blobs = {text for spec in gone.specs for text in references.string_values(spec)}
    runs, checkpoints = set[str](), set[str]()
    for id, over, state, executor, attempts, created, ended, spec, plan_text in database.read(_JOBS):  # noqa: A001
        attempted = {f"{id}.{attempt}" for attempt in range(1, attempts + 1)}
        age = least_age(timeline, ended or created) if over else 0.0
        if age > retention.checkpoints_days * _DAY:
            checkpoints |= attempted
        if age > retention.runs_days * _DAY:
            runs |= attempted
            continue
        texts = {
            *references.string_values(json.loads(spec)),
            *references.string_values(json.loads(plan_text or "null")),
        }
        blobs |= texts  # those of them that are the name of a blob
        if state != "succeeded" and executor != "inline":  # it continues, or may be resumed
            begun.append(min(created, elapsed.cutoff(elapsed.most(created))))
            files |= texts  # those of them that are the name of a sealed file or a pack
    live = Live(
        files=frozenset(files),
        blobs=frozenset(text for text in blobs if len(text) == 64),
        runs=frozenset(runs),
        checkpoints=frozenset(checkpoints - runs),
        exports_before=0.0 if retention.exports_days is None else elapsed.cutoff(retention.exports_days * _DAY),
        models=frozenset(f"{name}/v{number}" for name, number in buried_versions(database, "model")),
        evaluations=frozenset([*(id for (id,) in database.read(_EVALUATIONS)), *gone.evaluations]),  # noqa: A001
    )
    return _MarkResult(live, read_custody(workspace, min(begun)), gone.refs, gone.backups)


def _manifests(workspace: Workspace) -> list[Manifest]:
    return [Manifest.model_validate_json(text) for (text,) in workspace.database.read(_MANIFESTS)]


def needed_files(manifests: Iterable[Manifest]) -> set[str]:
    """Every file that the versions need, relative to the root."""
    files = set[str]()
    for manifest in manifests:
        files |= {name for part in manifest.parts for name in (part.file, part.removed) if name}
        files |= {name for pack in manifest.packs for name in (pack, index_path(Path(pack)).as_posix())}
    return files


def _garbage_to_purge(folders: Folders, names: dict[str, float]) -> list[Garbage]:
    """`names`: with when each was last written. Raises ValueError for one outside the workspace: a defect of ours."""
    found = []
    for name, written in names.items():
        path = folders.root / name
        if ".." in path.parts or not path.is_relative_to(folders.root) or path == folders.root:
            raise ValueError(f"{name!r} lies outside the workspace")
        found.append(Garbage("forgotten", path, garbage.size(path), inf if path.is_dir() else written))
    return found


def _empty_logs(folders: Folders) -> None:
    """The daemon's log may quote anything. It continues writing to the same file, now an empty one."""
    for path in folders.root.glob("daemon.log.*"):
        path.unlink(missing_ok=True)
    log = folders.root / "daemon.log"
    if log.exists():
        with log.open("r+b") as file:
            file.truncate(0)


def _redact_request(tx: Transaction, forget: str) -> None:
    """The request itself must not keep the data: only the sha256 of its target stays, here and in earlier tries."""
    spec = json.loads(tx.execute("SELECT spec FROM jobs WHERE id = ?", [forget])[0][0])
    kept = json.dumps({"dataset": spec["dataset"], "sha256": spec["sha256"]})
    for (same,) in tx.execute(_SAME_TARGET, [spec["sha256"]]):
        tx.execute(_REDACT_JOBS, [kept, same, same])
        tx.execute(_FORGET_PLANS, [same])
        for step, text in tx.execute(_STEPS, [same]):
            result = {key: value for key, value in json.loads(text).items() if key != "doomed"}
            tx.execute(_SET_RESULT, [json.dumps(result), step])
    tx.execute(_REDACT_APPROVALS, [kept, spec["sha256"]])


KIND = Kind(
    name="gc", spec=GcSpec, plan=plan, run="speciate.privacy.gc:run", collect=collect, commit=commit, gives_room=True
)


_FIRST = "SELECT min(stamp) FROM events"
_FORGOTTEN = "SELECT value FROM meta WHERE key = 'forgotten'"
_WORKED = """
SELECT created, CASE WHEN state IN ('succeeded', 'failed', 'cancelled', 'dead') THEN coalesce(ended, changed)
    ELSE 9e15 END
FROM jobs WHERE executor = 'local'
"""
_VERSIONS = {noun: f"SELECT name || '@v' || version FROM {noun}_versions" for noun in ("dataset", "model")}
_JOB_IDS = "SELECT id FROM jobs"
_SAVED = {
    "dataset": "SELECT name || '@v' || version FROM read_parquet(?)",
    "model": "SELECT name || '@v' || version FROM read_parquet(?)",
    "evaluation": "SELECT id FROM read_parquet(?)",
    "job": "SELECT id FROM read_parquet(?)",
}
_FILES = {
    "dataset": "dataset_versions.parquet", "model": "model_versions.parquet", "evaluation": "evaluations.parquet",
    "job": "jobs.parquet",
}  # fmt: skip
_SAVED_MANIFESTS = """
SELECT manifest FROM read_parquet(?) WHERE name || '@v' || version IN (SELECT unnest(?::VARCHAR[]))
"""
_SPECS = "SELECT spec FROM read_parquet(?) WHERE id IN (SELECT unnest(?::VARCHAR[]))"


class LostRows(NamedTuple):
    """Rows that a kept backup of this very catalog has and the catalog has not, although nobody deleted them.

    The files that they name count as needed, the backup is kept, and `get_status` says so. Backups from before a purge
    are not read.
    """

    refs: list[str]
    """`name@v3` of datasets and models, ids of evaluations and jobs."""
    manifests: list[Manifest]
    models: list[str]
    evaluations: list[str]
    specs: list[StoredSpec]
    """Specs of the jobs among `refs`."""
    backups: list[str]
    """Names of the backups that have them; they are kept (workspace/backup.py)."""


def read_custody(workspace: Workspace, cutoff: float) -> Custody:
    """How well the catalog knows its folders now: its backups, its gaps, and when jobs were at work. Untrusted where
    `identity.json` is not of this catalog."""
    database = workspace.database
    first, saved = database.read(_FIRST)[0][0], backups(workspace)
    return Custody(
        trusted=is_folder_of_catalog(workspace.folders.root, workspace.identity),
        cutoff=cutoff,
        witnessed=max((made_at(each.path) for each in saved), default=0.0),
        since=9e15 if first is None else float(first),
        gaps=tuple(repair.read_gaps(database.read)),
        worked=joined((float(since), float(until)) for since, until in database.read(_WORKED)),
    )


def is_folder_of_catalog(root: Path, identity: str) -> bool:
    anchor = catalog_identity.read_anchor(root)
    return anchor is not None and anchor.identity == identity


def backups(workspace: Workspace) -> list[SavedBackup]:
    """Automatic backups of this catalog, fullest first, without those from before a purge."""
    database = workspace.database
    forgotten = database.read_one(_FORGOTTEN)
    found = catalog_identity.trusted_backups(database.read, workspace.folders.root, workspace.identity)
    return [saved for saved in found if forgotten is None or saved.events > int(forgotten[0])]


def lost_rows(workspace: Workspace) -> LostRows:
    """Rows that kept backups have and the catalog lost, from all kept backups."""
    database, saved_before = workspace.database, backups(workspace)  # first: whatever they have was committed by then
    known: dict[str, set[str]] = {noun: {ref for (ref,) in database.read(sql)} for noun, sql in _VERSIONS.items()}
    known["evaluation"] = {ref for (ref,) in database.read(_EVALUATIONS)}
    known["job"] = {ref for (ref,) in database.read(_JOB_IDS)}
    deleted = {
        noun: {f"{name}@v{number}" for name, number in buried_versions(database, noun)} for noun in ("dataset", "model")
    }
    found = LostRows([], [], [], [], [], [])
    for saved in saved_before:
        try:
            _add_lost(database, saved.path, known, deleted, found)
        except (duckdb.Error, ValueError):
            _log.exception("the backup %s cannot be compared with the catalog", saved.path.name)
    return found


def _add_lost(
    database: Database, backup: Path, known: dict[str, set[str]], deleted: dict[str, set[str]], found: LostRows
) -> None:
    """What this backup adds to what the fuller ones showed; `known` grows by it."""
    missing: dict[str, list[str]] = {}
    for noun, sql in _SAVED.items():
        saved = [ref for (ref,) in database.read(sql, [str(backup / _FILES[noun])])]
        missing[noun] = lacking(saved, known[noun], deleted.get(noun, set()))
        known[noun].update(missing[noun])
        found.refs.extend(missing[noun])
    found.manifests.extend(_saved_manifests(database, backup, missing["dataset"]))
    found.models.extend(missing["model"])
    found.evaluations.extend(missing["evaluation"])
    if any(missing.values()):
        found.backups.append(backup.name)
    if missing["job"]:
        rows = database.read(_SPECS, [str(backup / _FILES["job"]), missing["job"]])
        found.specs.extend(json.loads(spec) for (spec,) in rows)


def _saved_manifests(database: Database, backup: Path, refs: Sequence[str]) -> list[Manifest]:
    if not refs:
        return []
    rows = database.read(_SAVED_MANIFESTS, [str(backup / _FILES["dataset"]), list(refs)])
    return [Manifest.model_validate_json(text) for (text,) in rows]
