"""Models that are loaded before they are asked: those in production when the daemon starts, and others as they come.

Importing torch and transformers costs seconds in a cage, where a supervisor looks at every file that is opened. So a
model is loaded by a question of its own, in a thread, with more time than an answer has; who asks in the meantime waits
for that one, instead of beginning again beside it or being ended in the middle. Where nothing is in production nothing
is loaded. What a process of the pool forgets when it is replaced is loaded again by the next question, as ever.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.models import registry
from speciate.models.registry import ModelVersion
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

LOAD = "speciate.production.answer:load"
_PATIENCE_SECONDS = 300.0
"""Of a machine that is busy with other things; a cold start takes 5 to 20 s."""
_MOST = 4
"""Models in production that are loaded ahead: as many as a process keeps."""
_SERVING = "SELECT model FROM aliases WHERE alias = 'production' ORDER BY changed DESC LIMIT ?"
_log = logging.getLogger(__name__)


class Loading:
    """What a pool has loaded or is loading, by the model's folder."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._begun: dict[Path, _Load] = {}

    def begin(self, version: ModelVersion) -> _Load:
        """Load it in a thread, unless that was begun before. Returns at once."""
        with self._lock:
            load = self._begun.get(version.path)
            if load is None or load.failed:
                load = self._begun[version.path] = _Load(self._pool, version.path)
                load.start()
            return load

    def wait(self, version: ModelVersion, seconds: float) -> None:
        """Until it is loaded. UNAVAILABLE after so many seconds, while it goes on; what loading raised otherwise."""
        load = self.begin(version)
        load.join(seconds)
        if load.is_alive():
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"{version.ref} is still being loaded, after {seconds:g} s: the machine is busy.",
                "Repeat the call in a moment.",
            )
        if load.error is not None:
            raise load.error


class _Load(threading.Thread):
    def __init__(self, pool: Pool, path: Path) -> None:
        super().__init__(name=f"load {path.parent.name}", daemon=True)
        self._pool, self._path = pool, path
        self.error: SpeciateError | None = None

    def run(self) -> None:
        try:
            self._pool.ask(LOAD, {"model": str(self._path)}, _PATIENCE_SECONDS)
        except SpeciateError as error:
            self.error = error

    @property
    def failed(self) -> bool:
        return self.error is not None


_of_pool: WeakKeyDictionary[Pool, Loading] = WeakKeyDictionary()


def of(pool: Pool) -> Loading:
    return _of_pool.setdefault(pool, Loading(pool))


def keep_loaded(workspace: Workspace, pool: Pool) -> None:
    """Load what serves now, and from here on each model that comes to serve. Returns at once."""

    def heard(events: Sequence[Event]) -> None:
        moved = [str(event.data["after"]) for event in events if event.type == "alias.moved"]
        if moved:
            threading.Thread(target=_load, args=(workspace, pool, moved), daemon=True).start()

    workspace.database.listen(heard)
    if serving := [model for (model,) in workspace.database.read(_SERVING, [_MOST])]:
        threading.Thread(target=_load, args=(workspace, pool, serving), daemon=True).start()


def _load(workspace: Workspace, pool: Pool, models: Sequence[str]) -> None:
    """One after the other, in one process: together they would import the same libraries at once."""
    for model in models:
        try:
            load = of(pool).begin(registry.resolve(workspace.database, workspace.folders, model))
            load.join()
            if load.error is not None:
                raise load.error
        except Exception as error:  # noqa: BLE001 - ahead of any question: whoever asks gets the same error
            _log.info("%s was not loaded ahead: %s", model, error)
