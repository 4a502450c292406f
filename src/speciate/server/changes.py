"""What changed, by the part of a page that shows it: counters of what was committed, and times of files that grow.

Nothing is read while nothing changes, and a run of any length costs the same.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from speciate.errors import SpeciateError
from speciate.jobs.folder import is_growing
from speciate.predictions.log_files import all_logs
from speciate.server.tool_api import App
from speciate.serving.deployment_folder import all_deployments
from speciate.workspace.database import Event


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
        return stamps | self._production()

    def _files(self, job: str) -> tuple[int, ...]:
        """Times of change of what a run writes while it runs, and its children's."""
        try:
            found = self._app.engine.get(job)
            folders = [self._app.engine.folder(each).path for each in (found, *self._app.engine.children(job))]
        except SpeciateError:
            return ()
        return tuple(stamp for folder in folders for stamp in _times_in(folder, is_growing))

    def _production(self) -> dict[str, object]:
        """`answers:NAME` of each use case: times of its log and its deployment, which the catalog does not have."""
        folders = self._app.workspace.folders
        logs = {log.use_case: (*_times_in(log.segments), *_times((log.parts,))) for log in all_logs(folders)}
        served = {each.use_case: _times((each.hours, each.path / "state.json")) for each in all_deployments(folders)}
        return {f"answers:{name}": (logs.get(name), served.get(name)) for name in logs.keys() | served.keys()}


def _times_in(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> tuple[int, ...]:
    try:
        return _times(folder / name for name in sorted(os.listdir(folder)) if wanted(name))
    except OSError:
        return ()


def _times(paths: Iterable[Path]) -> tuple[int, ...]:
    """Times of change of what is there."""
    stamps = list[int]()
    for path in paths:
        try:
            stamps.append(os.stat(path).st_mtime_ns)
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
    return ["status", noun]
