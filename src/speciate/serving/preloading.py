"""Load models before anybody asks them: production models, and new models with a base model that may be promoted.

Loading takes seconds, and where there is no zygote with torch to fork from, its import takes more. So a model is loaded
by a question of its own, in a thread, with more time than an answer has. A call in the meantime waits
for that load, instead of starting another one or being ended in the middle. If a process of the pool is replaced, the
next question loads its models again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from speciate.errors import Code, SpeciateError
from speciate.jobs.executors import LocalExecutor
from speciate.jobs.pool import Pool
from speciate.models import registry
from speciate.models.model_card import ModelCard, needs_whole_transformers
from speciate.models.registry import ModelVersion
from speciate.serving.deployment_folder import is_deployed
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

LOAD = "speciate.serving.predict_worker:load"
_PATIENCE_SECONDS = 300.0
"""Most seconds for loading, on a busy machine; a cold start takes 5 to 20 s."""
_MOST = 4
"""Models in production that are loaded ahead: as many as a process keeps."""
_SERVING = "SELECT use_case, model FROM aliases WHERE alias = 'production' ORDER BY changed DESC LIMIT ?"
_SUBJECT = "use_case:"
_WITHOUT_TORCH = {"classical", "packaged", "served"}
"""Methods."""
_PLAIN = {"tabular", "mesh", "point-cloud", "nifti"}
"""Modalities whose networks are torch's alone."""
_log = logging.getLogger(__name__)


def family(card: ModelCard) -> str:
    """Family of the process that answers with this model, as of `Pool.ask`."""
    if card.base_model is None and card.method in _WITHOUT_TORCH:
        return "classical"
    if needs_whole_transformers(card.base_model, card.modality, card.task, card.method):
        return "published"
    return "torch" if card.modality in _PLAIN and (card.base_model or "").startswith("new:") else "transformers"


class ModelPreloader:
    """The models that a pool has loaded or is loading, by folder."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._begun: dict[Path, _Load] = {}
        self._turn = threading.Lock()
        """One model at a time: two would import the same libraries at once, in two processes."""

    def begin(self, version: ModelVersion) -> _Load:
        """Load it in a thread, unless that was begun before. Returns at once."""
        with self._lock:
            load = self._begun.get(version.path)
            if load is None or load.failed:
                load = self._begun[version.path] = _Load(self._pool, version, self._turn)
                load.start()
            return load

    def begin_again(self, version: ModelVersion) -> _Load:
        """The process that had loaded it is gone. A load in progress continues."""
        with self._lock:
            load = self._begun.get(version.path)
            if load is not None and not load.is_alive():
                del self._begun[version.path]
        return self.begin(version)

    def wait(self, version: ModelVersion, seconds: float, again: str = "the call") -> None:
        """Waits until it is loaded. Raises UNAVAILABLE after so many seconds, while loading continues; else what
        loading raised. `again`: the call to repeat."""
        load = self.begin(version)
        load.join(seconds)
        if load.is_alive():
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"{version.ref} is still being loaded, after {seconds:.3g} s: the machine is busy.",
                f"Loading goes on, for {_PATIENCE_SECONDS:.0f} s at most: repeat {again} in a moment.",
            )
        if load.error is not None:
            raise load.error


class _Load(threading.Thread):
    def __init__(self, pool: Pool, version: ModelVersion, turn: threading.Lock) -> None:
        super().__init__(name=f"load {version.path.parent.name}", daemon=True)
        self._pool, self._version, self._turn = pool, version, turn
        self.error: SpeciateError | None = None

    def run(self) -> None:
        try:
            with self._turn:
                asked, family_ = {"model": str(self._version.path)}, family(self._version.card)
                self._pool.ask(LOAD, asked, _PATIENCE_SECONDS, family=family_)
        except SpeciateError as error:
            self.error = error

    @property
    def failed(self) -> bool:
        return self.error is not None


_of_pool: WeakKeyDictionary[Pool, ModelPreloader] = WeakKeyDictionary()


def preloader_of(pool: Pool) -> ModelPreloader:
    return _of_pool.setdefault(pool, ModelPreloader(pool))


def served_nowhere_else(use_case: str) -> bool:
    """No use case is served by another process."""
    return False


def begin_imports(workspace: Workspace, executor: LocalExecutor) -> None:
    """Have the imports made that models in production need, while a daemon makes its own. Returns at once."""
    if not workspace.settings.fork_sandboxes:
        return
    try:
        for use_case, model in workspace.database.read(_SERVING, [_MOST]):
            if not is_deployed(workspace.folders, use_case):
                version = registry.resolve(workspace.database, workspace.folders, model)
                executor.prepare_answers(family(version.card))
    except Exception as error:  # noqa: BLE001 - ahead of any question: whoever asks gets the same error
        _log.info("no imports were begun: %s", error)


def keep_loaded(workspace: Workspace, pool: Pool, elsewhere: Callable[[str], bool] = served_nowhere_else) -> None:
    """Load what serves now, and from here on each model that comes to serve, or is trained for a use case from a base
    model: by the time that it is judged and promoted it can answer. What serves a use case that another process serves
    (`elsewhere`) is not loaded here, too. Returns at once."""

    def heard(events: Sequence[Event]) -> None:
        moved = [event for event in events if event.type == "alias.moved"]
        serving = [str(event.data["after"]) for event in moved if not elsewhere(event.subject.removeprefix(_SUBJECT))]
        made = [str(event.data["model"]) for event in events if event.type == "model.created"]
        if serving or made:
            _ahead(workspace, pool, serving, made)

    workspace.database.listen(heard)
    rows = workspace.database.read(_SERVING, [_MOST])
    if serving := [model for use_case, model in rows if not elsewhere(use_case)]:
        _ahead(workspace, pool, serving, ())


def _ahead(*given: Any) -> None:
    threading.Thread(target=load_ahead, args=given, name="load ahead", daemon=True).start()


def load_ahead(workspace: Workspace, pool: Pool, serving: Sequence[str], made: Sequence[str]) -> None:
    """The models that serve; of those that were made, the ones with a base model that are meant for a use case."""
    for model in (*serving, *made):
        try:
            version = registry.resolve(workspace.database, workspace.folders, model)
            if model in made and (version.card.use_case is None or version.card.base_model is None):
                continue
            load = preloader_of(pool).begin(version)
            load.join()
            if load.error is not None:
                raise load.error
        except Exception as error:  # noqa: BLE001 - ahead of any question: whoever asks gets the same error
            _log.info("%s was not loaded ahead: %s", model, error)
