"""The logs of answers as the daemon has them: it writes those that it gives itself, where no slot serves, and finds
any answer by its id.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from speciate import usecases
from speciate.errors import Code, SpeciateError
from speciate.ids import check_name
from speciate.predictions import identity, reading
from speciate.predictions.feedback import Feedback
from speciate.predictions.folder import Dropped, all_logs, log_folder
from speciate.predictions.log import About, Log
from speciate.predictions.reading import Answered, Given
from speciate.predictions.recording import Recorded, held, record
from speciate.predictions.unknown import why
from speciate.production import aliases, corrections
from speciate.workspace.workspace import Workspace


class Logs:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._lock = workspace, threading.Lock()
        self._open: dict[str, Log] = {}

    def of(self, use_case: str) -> Log:
        with self._lock:
            if use_case not in self._open:
                folder, settings = log_folder(self._workspace.folders, use_case), self._workspace.settings.log
                self._open[use_case] = Log(folder, settings.of(use_case), self._workspace.clock)
            return self._open[use_case]

    def naming(self, prediction: str) -> Log:
        """The log of the use case that an id names. Raises INVALID or NOT_FOUND."""
        parsed = identity.parse(prediction)
        known = usecases.names(self._workspace.database)
        logged = [folder.use_case for folder in all_logs(self._workspace.folders)]
        for name in dict.fromkeys([*known, *logged]):
            if parsed is not None and identity.tag(name) == parsed.tag:
                return self.of(name)
        if parsed is None:
            raise why(prediction, self._workspace.settings.log, Dropped(), self._workspace.clock.now())
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{prediction} is an answer of no use case of this workspace.",
            "Send the feedback to the workspace that gave the answer.",
        )

    def close(self) -> None:
        """Let go of all; what is asked next begins anew."""
        with self._lock:
            for log in self._open.values():
                log.close()
            self._open.clear()


class Described(NamedTuple):
    use_case: str
    answer: Answered
    feedback: list[Given]


_of_workspace: WeakKeyDictionary[Workspace, Logs] = WeakKeyDictionary()


def of(workspace: Workspace) -> Logs:
    return _of_workspace.setdefault(workspace, Logs(workspace))


def note(
    workspace: Workspace, use_case: str, model: str, modality: str,
    items: Sequence[Mapping[str, Any]], said: Sequence[Mapping[str, Any]], ms: float,
) -> list[str | None]:  # fmt: skip
    """Log answers that the daemon gave itself; their ids, None where they could not be written."""
    alias = aliases.read(workspace.database, use_case)
    log = of(workspace).of(use_case)
    ids = log.ids(len(items))
    about = About(model, alias.generation if alias else 0, modality)
    return list(ids) if log.note(ids, items, said, about, ms) else [None] * len(ids)


def place(workspace: Workspace, use_case: str) -> tuple[Path, float]:
    """Where the log of a use case lies, and since when its answers are shown. Raises NOT_FOUND for the use case."""
    folder = log_folder(workspace.folders, check_name("use case", use_case))
    if not folder.path.exists():
        usecases.get(workspace.database, use_case)
        folder.create()
    days = workspace.settings.log.of(use_case).retention_days
    return folder.path, reading.since_of(workspace.clock.now(), days)


def find(workspace: Workspace, prediction: str) -> tuple[str, Answered]:
    """The use case of an answer, and the answer. Raises INVALID or NOT_FOUND with what is known."""
    log = of(workspace).naming(prediction)
    return log.use_case, held(log, prediction, workspace.clock.now())


def described(workspace: Workspace, prediction: str) -> Described:
    """An answer with everything that was said of it. Raises INVALID or NOT_FOUND."""
    use_case, answer = find(workspace, prediction)
    _, since = place(workspace, use_case)
    said = reading.feedback(log_folder(workspace.folders, use_case), since=since, of=answer.id)
    return Described(use_case, answer, said)


def feedback(workspace: Workspace, given: Feedback) -> Recorded:
    """Raises what `recording.record` and `corrections.check` raise."""
    log, check = of(workspace).naming(given.prediction), corrections.checker(workspace.folders)
    return record(log, given, workspace.clock.now(), check)
