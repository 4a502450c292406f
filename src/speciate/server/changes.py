"""What changed, by the part of a page that shows it: counters of what was committed, and times of a run's files.

Nothing is read while nothing changes, and a run of any length costs the same.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence

from speciate.errors import SpeciateError
from speciate.server.tool_api import App
from speciate.workspace.database import Event

_FILES = ("progress", "log", "metrics.jsonl")


class Changes:
    """Counts what was committed, by the part that shows it."""

    def __init__(self, app: App) -> None:
        self._app, self._lock = app, threading.Lock()
        self._counts: Counter[str] = Counter()
        app.workspace.database.listen(self._heard)

    def _heard(self, events: Sequence[Event]) -> None:
        with self._lock:
            self._counts.update(part for event in events for part in parts_of(event))

    def stamps(self, job: str | None) -> dict[str, object]:
        """Part -> what is another once the part changed. `job`: that run's files, too, as the part `run`."""
        with self._lock:
            stamps: dict[str, object] = dict(self._counts)
        if job:
            stamps["run"] = stamps.get(f"job:{job}"), self._files(job)
        return stamps

    def _files(self, job: str) -> tuple[int, ...]:
        """Times of change of what a run writes while it runs, and its children's."""
        try:
            found = self._app.engine.get(job)
            folders = [self._app.engine.folder(each).path for each in (found, *self._app.engine.children(job))]
        except SpeciateError:
            return ()
        stamps = list[int]()
        for folder in folders:
            for name in _FILES:
                try:
                    stamps.append(os.stat(folder / name).st_mtime_ns)
                except OSError:
                    continue
        return tuple(stamps)


def parts_of(event: Event) -> list[str]:
    """The parts of pages that show what an event tells of."""
    noun, colon, _ = event.subject.partition(":")
    if not colon:
        return ["runs", f"job:{event.subject}"]
    if noun == "approval" or event.type.startswith("approval."):
        return ["approvals", "status", "runs"]
    return ["status"]
