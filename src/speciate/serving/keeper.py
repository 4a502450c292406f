"""Keeps the slots of a workspace, in the daemon: starts those that are wanted, adopts those that live, tells each what
to serve, and makes events of what they say.

Nothing is remembered that is not in the slots' folders or the catalog, so the next daemon goes on where one died.
A slot is judged by its claim alone: held, it lives; free, it is started again, at once and then ever less often.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.environment import clean_environment
from speciate.errors import SpeciateError
from speciate.faults import fault
from speciate.jobs.pool import Pool
from speciate.production import aliases
from speciate.production.aliases import Alias
from speciate.serving import targets
from speciate.serving.baking import Baker
from speciate.serving.folder import Entry, SlotFolder, Target, Wanted, all_slots, slot_folder
from speciate.workspace.database import Event, Transaction
from speciate.workspace.workspace import Workspace

_LOOK_SECONDS = 0.5
_FIRST_GAP, _LONGEST_GAP = 0.5, 30.0
"""Seconds between two starts of a slot that does not stay alive."""
_STEADY_SECONDS = 30.0
"""After so long alive a slot's death is its first again."""
_MOVES = {"alias.moved", "canary.set", "canary.ended"}
_HEARD = "SELECT 1 FROM events WHERE subject = ? AND data ->> 'entry' = ? LIMIT 1"
_ANSWERED = """
SELECT 1 FROM events WHERE subject = ? AND type = 'production.answered' AND data ->> 'model' = ? LIMIT 1
"""
_log = logging.getLogger(__name__)

Serving = Mapping[tuple[str, str], Alias]
"""Of `aliases.serving`."""


class _Start(NamedTuple):
    process: subprocess.Popen[bytes]
    at: float


class _Watched:
    """What the keeper knows of one slot in this daemon's life; all of it may be forgotten."""

    def __init__(self) -> None:
        self.start: _Start | None = None
        self.gap = 0.0
        self.alive = False
        self.told: tuple[object, ...] | None = None
        self.problem: str | None = None


class Keeper:
    """`start` it once; `look` is one pass, for tests."""

    def __init__(self, workspace: Workspace, pool: Pool) -> None:
        self._workspace, self._pool = workspace, pool
        self._watched: dict[str, _Watched] = {}
        self._baker = Baker(workspace)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        workspace.database.listen(self._heard)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="slots", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the keeper; the slots serve on."""
        self._stopping = True
        self._wake.set()
        if self._thread:
            self._thread.join()
        for watched in self._watched.values():
            if watched.start:  # it outlives us on purpose; Popen would warn
                watched.start.process.returncode = watched.start.process.poll() or 0

    def poke(self) -> None:
        """Look now."""
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether no slot is wanted."""
        return all(folder.stopped for folder in all_slots(self._workspace.folders))

    def keeps(self, use_case: str) -> bool:
        """Whether a slot of this use case is wanted."""
        folder = slot_folder(self._workspace.folders, use_case)
        return folder.path.exists() and not folder.stopped

    def look(self) -> None:
        """One pass over all slots."""
        with self._lock:
            if self._workspace.settings.serving.start == "after_promotion":
                self._make_those_that_serve()
            folders = all_slots(self._workspace.folders)
            serving = aliases.serving(self._workspace.database) if folders else {}
            for folder in folders:
                try:
                    self._tend(folder, serving)
                except (SpeciateError, OSError):
                    _log.exception("the slot of %s could not be tended", folder.use_case)
            self._baker.look()

    def _keep(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a full disk, say: the next pass may succeed
                _log.exception("looking after the slots failed")
            self._wake.wait(_LOOK_SECONDS)

    def _heard(self, events: Sequence[Event]) -> None:
        if any(event.type in _MOVES for event in events):
            self._wake.set()
        if any(event.type == "data.forgotten" for event in events):
            for folder in all_slots(self._workspace.folders):
                folder.empty_log()

    def _make_those_that_serve(self) -> None:
        for alias in aliases.everywhere(self._workspace.database):
            folder = slot_folder(self._workspace.folders, alias.use_case)
            if not folder.path.exists():
                folder.create()
                folder.want(Wanted(use_case=folder.use_case, options=self._workspace.settings.serving))

    # One slot

    def _tend(self, folder: SlotFolder, serving: Serving) -> None:
        watched = self._watched.setdefault(folder.use_case, _Watched())
        folder.trim_log()
        self._listen(folder)  # first: what it said before it died comes before its death
        if not folder.stopped:
            self._keep_alive(folder, watched)
            self._want(folder, watched, serving)
        elif watched.start and watched.start.process.poll() is not None:
            watched.start = None

    def _want(self, folder: SlotFolder, watched: _Watched, serving: Serving) -> None:
        """Tell it what the aliases name now."""
        alias = serving.get((folder.use_case, "production"))
        if alias is None:
            return
        canary = serving.get((folder.use_case, aliases.CANARY))
        if watched.told == (key := (alias, canary)):
            return
        wanted = folder.wanted()
        if wanted is None:
            return
        watched.told = key  # also where that fails: it would fail again
        changed = wanted.model_copy(
            update={
                "target": self._target(folder, alias, wanted.target),
                "canary": self._canary(folder, canary, wanted.canary),
                "percent": (canary.percent or 0.0) if canary else 0.0,
            }
        )
        if changed != wanted:
            fault("promotion_before_want")
            folder.want(changed)
            fault("promotion_wanted")

    def _target(self, folder: SlotFolder, alias: Alias, before: Target | None) -> Target:
        if before and before.key == (alias.generation, alias.model):
            return before
        return targets.target_of(self._workspace, self._pool, folder, alias)

    def _canary(self, folder: SlotFolder, alias: Alias | None, before: Target | None) -> Target | None:
        """None also where it is gone: production must not wait for it."""
        try:
            return self._target(folder, alias, before) if alias else None
        except SpeciateError:
            _log.exception("the canary of %s cannot be served", folder.use_case)
            return None

    def _keep_alive(self, folder: SlotFolder, watched: _Watched) -> None:
        now = self._workspace.clock.monotonic()
        if folder.alive():
            watched.alive = True
            if watched.start and now - watched.start.at > _STEADY_SECONDS:
                watched.gap = 0.0
            return
        if watched.start and watched.start.process.poll() is None:
            return  # it has not got as far as its claim, or is about to end
        self._tell_of_death(folder, watched)
        if watched.start and now - watched.start.at < watched.gap:
            return
        watched.start = _Start(_spawn(folder.path, self._workspace), now)
        watched.gap = min(max(2 * watched.gap, _FIRST_GAP), _LONGEST_GAP)

    def _tell_of_death(self, folder: SlotFolder, watched: _Watched) -> None:
        """Once for each process that is gone without having said goodbye, and for each reason not to begin."""
        state, lived, watched.alive = folder.state(), watched.alive, False
        if state.problem and state.problem != watched.problem:
            self._say(folder, "slot.failed", problem=state.problem)
        elif lived or state.pid:
            self._say(folder, "slot.died", pid=state.pid, serving=state.serving)
            folder.tell(state.model_copy(update={"pid": 0, "serving": None, "since": None, "loading": None}))
        watched.problem = state.problem

    def _say(self, folder: SlotFolder, type: str, **data: object) -> None:  # noqa: A002 - the column
        self._workspace.database.transact(lambda tx: tx.event(f"use_case:{folder.use_case}", type, dict(data)))

    def _listen(self, folder: SlotFolder) -> None:
        """Make events of what the slot noted, each once, also where a daemon died in between."""
        entries, end = folder.unheard()
        if not entries:
            return
        subject = f"use_case:{folder.use_case}"

        def record(tx: Transaction) -> None:
            for entry in entries:
                if not _known(tx, subject, entry):
                    tx.event(subject, entry.type, {**entry.data, "at": entry.at, "entry": entry.id})

        self._workspace.database.transact(record)
        folder.heard(end)


def _known(tx: Transaction, subject: str, entry: Entry) -> bool:
    if entry.type == "production.answered" and tx.execute(_ANSWERED, [subject, entry.data["model"]]):
        return True  # once for each version, whoever answered first
    return bool(tx.execute(_HEARD, [subject, entry.id]))


def _spawn(folder: Path, workspace: Workspace) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-P", "-m", "speciate.serving.process", str(folder), workspace.settings.cage]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=clean_environment(),
            cwd=workspace.folders.root, start_new_session=True,
        )  # fmt: skip
