"""The places of a workspace: an executor and a thread for each, and what each has room for."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from speciate.jobs import egress
from speciate.jobs.egress import Permit
from speciate.jobs.executors import Abandoned, Executor, Observation, RunSpec, Unreachable
from speciate.jobs.folder import RunDocument, RunFolder
from speciate.jobs.job import Job, RunHandle
from speciate.jobs.kinds import Kinds
from speciate.jobs.places.clusters import open_cluster
from speciate.jobs.places.executor import ABANDONED, LOOK_SECONDS, PlaceExecutor
from speciate.settings import Capacity
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

FORGOTTEN = "data.forgotten"
"""The event after which files of the workspace are gone."""
_LIVE = "SELECT id, attempt FROM jobs WHERE state IN ('starting', 'running') AND executor = 'local'"
_STOP_SECONDS = 2.0
_log = logging.getLogger(__name__)


class Places:
    """The places of settings.toml. Without any, nothing is made and no thread begins."""

    def __init__(self, workspace: Workspace, kinds: Kinds | None = None) -> None:
        self._workspace, self._kinds = workspace, kinds or Kinds()
        owner = owner_of(workspace)
        self._executors: Mapping[str, PlaceExecutor] = {
            name: PlaceExecutor(
                name,
                place,
                open_cluster(place),
                workspace.folders.root,
                owner,
                self._live,
                adopt=self._adopt,
                permit=partial(self._permit, name, place.host),
            )
            for name, place in workspace.settings.executors.items()
        }
        self.capacities: Mapping[str, Capacity] = {
            name: place.room() for name, place in workspace.settings.executors.items()
        }
        self.runs: Mapping[str, int] = {name: place.runs for name, place in workspace.settings.executors.items()}
        self._unnamed: dict[str, _Unnamed] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def executor(self, name: str) -> Executor:
        """Executor of a place. If the settings no longer name the place, nothing is known of it."""
        found = self._executors.get(name)
        return found or self._unnamed.setdefault(name, _Unnamed(name, self._workspace.folders.runs))

    def start(self) -> None:
        for name, executor in self._executors.items():
            thread = threading.Thread(target=self._watch, args=(executor,), name=f"place {name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Runs live on. A thread that waits for a cluster is left behind."""
        self._stopping.set()
        for executor in self._executors.values():
            executor.wake.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def look(self) -> None:
        """One look at each place in the caller's thread: for tests, and engines that were not started."""
        for executor in self._executors.values():
            executor.look()

    def _watch(self, executor: PlaceExecutor) -> None:
        while not self._stopping.is_set():
            executor.wake.clear()
            try:
                executor.look()
            except Exception:  # noqa: BLE001 - logged; the next look may succeed, and runs are judged by it alone
                _log.exception("%s could not be looked at", executor.name)
            executor.wake.wait(LOOK_SECONDS)

    def heard(self, events: Collection[Event]) -> None:
        if self._executors and any(event.type == FORGOTTEN for event in events):
            for executor in self._executors.values():
                executor.sweep()

    def forget(self, job: Job) -> None:
        if job.handle is not None and (found := self._executors.get(job.handle.get("place", ""))):
            found.forget(job.handle)

    def trouble(self, job: Job) -> str | None:
        place = job.resources.place
        found = self._executors.get(place) if place else None
        return found.trouble(job.run_id) if found else None

    def _adopt(self, folder: RunFolder) -> None:
        self._kinds[folder.spec()["kind"]].adopt(folder)

    def _permit(self, place: str, host: str, spec: RunDocument) -> Permit:
        return egress.permit_to_move(self._workspace.database, spec, place, host)

    def _live(self) -> set[str]:
        return {f"{name}.{attempt}" for name, attempt in self._workspace.database.read(_LIVE)}


def owner_of(workspace: Workspace) -> str:
    """The name of its folder in a depot: a copy of the workspace has another one."""
    whole = f"{workspace.identity} {os.path.realpath(workspace.folders.root)}"
    return f"speciate-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


class _Unnamed:
    """A place that settings.toml named when its run began."""

    def __init__(self, name: str, runs: Path) -> None:
        self._why, self._runs = f"settings.toml names no place {name!r} any more", runs
        self._forced: set[str] = set()

    def handle(self, run_id: str) -> RunHandle:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        """Nowhere."""

    def prepare(self, preload: str) -> None:
        """There is nothing to prepare."""

    def poll(self, handle: RunHandle) -> Observation:
        if handle["run"] not in self._forced:
            return Unreachable(self._why)
        return Abandoned(f"{self._why}, so its run could not be told to end, and whether it ended is not known")

    def cancel(self, handle: RunHandle, force: bool) -> None:
        """Nobody can be told. Should the place be named again, no later attempt begins while this one may live."""
        if force:
            (self._runs / handle["run"]).mkdir(parents=True, exist_ok=True)
            (self._runs / handle["run"] / ABANDONED).touch()
            self._forced.add(handle["run"])

    def logs(self, handle: RunHandle, offset: int) -> bytes:
        return b""
