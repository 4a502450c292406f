"""Jobs recovered from their run folders after the catalog was lost, and jobs paused in a copied workspace.

`spec.json` holds the job's row as it was when the run was launched. The job is put back in that state, and the
reconciler continues as if nothing had happened: a run that still lives is adopted, one that ended is committed (its
outputs are registered again; versions are counted in the order in which jobs were created), one that was lost is tried
again, one that was being stopped is paused. So is one that was paused or cancelled between two attempts: `mark_stopped`
leaves a file for that in the folder of its newest attempt.

Jobs that were queued in a workspace are that workspace's to run. If a copy of it is opened, they are paused there; a
person resumes all of them with `speciate resume`, or one with `control_job(action='resume')`.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from speciate.errors import SpeciateError
from speciate.jobs import rows
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import LIVE, Job, State
from speciate.jobs.transitions import COPIED_REASON, ActionRequested, WorkspaceCopied, decide
from speciate.workspace import catalog_identity
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

_STOPPED_REASON = "paused, because it was stopped before the catalog was lost, and by whom is not known any more"


class RecoveryReport(NamedTuple):
    jobs: tuple[str, ...]
    lost: tuple[str, ...]
    """What could not be restored, a sentence each."""


def recover_jobs(workspace: Workspace) -> RecoveryReport:
    """Insert or renew every job whose newest run folder knows more than the catalog does."""
    newest, lost = _newest_runs(workspace.folders.runs)

    def put_back(tx: Transaction) -> RecoveryReport:
        known = rows.by_id(tx, list(newest))
        found = {name: job for name, job in newest.items() if name not in known or known[name].attempt < job.attempt}
        for name in newest.keys() & known.keys() - found.keys():  # paused or cancelled since the backup was made
            old, run = known[name], RunFolder(workspace.folders.runs / known[name].run_id)
            if old.state in {State.QUEUED, *LIVE} and run.stop_asked():
                after = decide(old, ActionRequested("pause"), tx.now)
                if after is not old:
                    found[name] = after.model_copy(update={"reason": _STOPPED_REASON})
        orphans = _without_parent(tx, found)
        found |= {name: found[name].model_copy(update={"parent": None, "step": None}) for name in orphans}
        if new := [job for name, job in found.items() if name not in known]:
            rows.insert(tx, new)
        if renewed := [job for name, job in found.items() if name in known]:
            rows.update(tx, renewed)
        for name, job in found.items():
            tx.event(name, f"job.{job.state}", {"kind": job.kind, "attempt": job.attempt, "recovered": True})
        parents = sorted({str(newest[name].parent) for name in orphans})
        return RecoveryReport(
            tuple(found), tuple(f"composite job {parent}: its steps stand alone" for parent in parents)
        )

    recovered = workspace.database.transact(put_back)
    return RecoveryReport(recovered.jobs, (*lost, *recovered.lost))


def mark_stopped(workspace: Workspace, job: str, attempt: int) -> None:
    """A job that was paused or cancelled while none of its runs lived: its newest run folder says so, too, or it would
    start again should the catalog be lost."""
    folder = workspace.folders.runs / f"{job}.{attempt}"
    if folder.is_dir():
        with contextlib.suppress(OSError):  # a full disk, say: the catalog knows
            (folder / "cancel").touch()


def _newest_runs(runs: Path) -> tuple[dict[str, Job], list[str]]:
    """The job of each newest readable attempt, oldest job first."""
    newest: dict[str, Job] = {}
    lost: list[str] = []
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        try:
            job = Job.model_validate(RunFolder(folder).spec()["row"])
        except (OSError, ValueError, KeyError, ValidationError, SpeciateError) as error:
            lost.append(f"run {folder.name}: its spec.json cannot be read ({type(error).__name__})")
            continue
        if RunFolder(folder).stop_asked():  # by whom is lost with the catalog: it waits for somebody who knows
            job = job.model_copy(update={"request": "pause", "request_at": job.changed, "reason": _STOPPED_REASON})
        if job.id not in newest or newest[job.id].attempt < job.attempt:
            newest[job.id] = job
    return dict(sorted(newest.items(), key=lambda item: (item[1].created, item[0]))), lost


def _without_parent(tx: Transaction, found: dict[str, Job]) -> list[str]:
    parents = rows.by_id(tx, sorted({job.parent for job in found.values() if job.parent}))
    return [name for name, job in found.items() if job.parent and job.parent not in parents]


_UNFINISHED = "SELECT id FROM jobs WHERE state IN ('waiting', 'queued', 'starting', 'running')"
_PAUSED = "SELECT id FROM jobs WHERE state = 'paused' AND reason = ? ORDER BY parent IS NOT NULL, created, id"
_log = logging.getLogger(__name__)


def pause_copied(workspace: Workspace) -> int:
    """Where the workspace is a copy that was not opened before: pause all that has not ended, once; how many."""
    original, root = workspace.copied_from, workspace.folders.root
    if original is None:
        return 0

    def pause(tx: Transaction) -> int:
        jobs = rows.by_id(tx, [name for (name,) in tx.execute(_UNFINISHED)])
        settled = [decide(job, WorkspaceCopied(), tx.now) for job in jobs.values()]
        if settled:
            rows.update(tx, settled)
        for job in settled:
            tx.event(job.id, f"job.{job.state}", {"attempt": job.attempt, "reason": job.reason})
        catalog_identity.settle_place(tx, root, original)
        paused = sum(job.reason == COPIED_REASON for job in settled)
        tx.event(catalog_identity.SUBJECT, catalog_identity.COPIED, {"paused": paused})
        return paused

    count = workspace.database.transact(pause)
    workspace.copied_from = None
    _log.warning(
        "this workspace is a copy of %s: %d jobs are paused (`speciate resume`), and every deployment is off",
        original,
        count,
    )
    return count


def jobs_paused_as_copied(database: Database) -> list[str]:
    """Ids of jobs that still wait for a person because of it; parents first."""
    return [str(name) for (name,) in database.read(_PAUSED, [COPIED_REASON])]
