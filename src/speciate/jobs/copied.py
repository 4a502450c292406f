"""What was queued in a workspace is that workspace's to run: where a copy of it is opened, its jobs are paused.

A person resumes them: `speciate resume` all of them, or `control_job(action='resume')` one.
"""

from __future__ import annotations

import logging

from speciate.jobs import rows
from speciate.jobs.transitions import Copied, decide
from speciate.workspace import place
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

REASON = "paused, because this workspace is a copy of another one, which may run it itself"
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
        paused = [decide(job, Copied(REASON), tx.now) for job in jobs.values()]
        if paused:
            rows.update(tx, paused)
        for job in paused:
            tx.event(job.id, f"job.{job.state}", {"attempt": job.attempt, "reason": REASON})
        place.settle(tx, root, original)
        tx.event(place.SUBJECT, place.COPIED, {"paused": len(paused)})
        return len(paused)

    count = workspace.database.transact(pause)
    workspace.copied_from = None
    _log.warning(
        "this workspace is a copy of %s: %d jobs are paused (`speciate resume`), and every deployment is off",
        original,
        count,
    )
    return count


def paused_as_copied(database: Database) -> list[str]:
    """Ids of jobs that still wait for a person because of it; parents first."""
    return [str(name) for (name,) in database.read(_PAUSED, [REASON])]
