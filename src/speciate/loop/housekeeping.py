"""Collects garbage by itself: daily, when nothing runs; sooner on a disk that is nearly full; never where settings say.
Ends what is over: approvals, consents, processes that nobody asks any more.

privacy/gc.py and privacy/deletion.py decide what may go; this only says when. The first time in a workspace (also
one that was rebuilt, or is a copy) nothing goes: what would go is said, and it goes from the next day on.
"""

from __future__ import annotations

import logging
import threading

from speciate.datasets import consent
from speciate.governance import approvals
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.privacy import deletion, gc
from speciate.workspace.workspace import Workspace

_HOUR = 3600.0
_DAY = 24 * _HOUR
_LOOK_SECONDS = 60.0
_HOURS_WHEN_LOW = 1.0
_PATIENCE = 7
"""Times the usual pause after which it is done beside what runs."""
_LAST = "SELECT max(coalesce(ended, created)), bool_or(ended IS NULL) FROM jobs WHERE kind = 'gc'"
_FIRST = "SELECT min(stamp) FROM events"
_BUSY = "SELECT 1 FROM jobs WHERE state IN ('queued', 'starting', 'running') AND executor = 'local' LIMIT 1"
_log = logging.getLogger(__name__)


def due(since_last: float, hours: float, *, busy: bool, low: bool) -> bool:
    """Whether it is time, so many seconds after the last time."""
    if hours == 0:
        return False
    pause = min(hours, _HOURS_WHEN_LOW) if low else hours * (_PATIENCE if busy else 1)
    return since_last >= pause * _HOUR


class Housekeeper:
    """`start` it once; `look` is one pass, for tests."""

    def __init__(self, workspace: Workspace, engine: Engine, pool: Pool | None = None) -> None:
        self._workspace, self._engine, self._pool = workspace, engine, pool
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def look(self) -> str | None:
        """One pass; the job that it began, if any."""
        workspace, settings = self._workspace, self._workspace.settings.retention
        database = workspace.database
        last, unfinished = database.read(_LAST)[0]
        since = last if last is not None else database.read(_FIRST)[0][0]
        if unfinished or since is None:
            return None
        busy, report = bool(database.read(_BUSY)), gc.announced(database)
        if report and since <= report.at and workspace.elapsed.least(report.at) < _DAY:
            return None  # a person has a day to look at what would go
        passed, low = workspace.elapsed.most(since), workspace.room.look().low
        if not due(passed, settings.gc_hours, busy=busy and report is not None, low=low):
            return None
        if report is None:
            self._report()
            return None
        dropped = database.transact(lambda tx: deletion.delete_surplus(tx, settings.keep_versions))
        if dropped:
            _log.info("deleted, for more than %s newer versions are there: %s", settings.keep_versions, dropped)
        return self._engine.submit("gc", {}, key=f"housekeeping/{since}").id

    def _report(self) -> None:
        found = deletion.survey_with_surplus(self._workspace)
        gc.announce(self._workspace, found)
        _log.info("nothing was deleted yet; from tomorrow on housekeeping would delete %s", found.document())

    def end_what_is_over(self) -> None:
        """Mark approvals and consents that are past their time, and end idle processes."""
        approvals.expire(self._workspace)
        consent.end_those_over(self._workspace.database, self._workspace.elapsed.most)
        if self._pool is not None:
            self._pool.end_idle()

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self.end_what_is_over()
                self.look()
            except Exception:  # noqa: BLE001 - a full disk, say: the next pass may succeed
                _log.exception("housekeeping failed")
