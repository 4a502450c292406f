"""The logs of a workspace: where each lies, any answer by its id, and the logs that this process writes itself."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.predictions import prediction_ids, reading
from speciate.predictions.feedback import (
    find_logged_answer,
    missing_answer_error,
)
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import DroppedAnswers, all_logs, log_folder
from speciate.predictions.reading import LoggedAnswer, StoredFeedback
from speciate.refs import check_name
from speciate.workspace.workspace import Workspace


class Logs:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._lock = workspace, threading.Lock()
        self._open: dict[str, AnswerLog] = {}

    def of(self, use_case: str) -> AnswerLog:
        with self._lock:
            if use_case not in self._open:
                folder, settings = log_folder(self._workspace.folders, use_case), self._workspace.settings.log
                self._open[use_case] = AnswerLog(folder, settings.of(use_case), self._workspace.clock)
            return self._open[use_case]

    def naming(self, prediction: str) -> AnswerLog:
        """The log of the use case that an id names. Raises INVALID or NOT_FOUND."""
        parsed = prediction_ids.parse(prediction)
        known = use_cases.names(self._workspace.database)
        logged = [folder.use_case for folder in all_logs(self._workspace.folders)]
        for name in dict.fromkeys([*known, *logged]):
            if parsed is not None and prediction_ids.tag(name) == parsed.tag:
                return self.of(name)
        if parsed is None:
            raise missing_answer_error(
                prediction, self._workspace.settings.log, DroppedAnswers(), self._workspace.clock.now()
            )
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{prediction} is an answer of no use case of this workspace.",
            "Send the feedback to the workspace that gave the answer.",
        )

    def close(self) -> None:
        """Close all logs; the next use opens them again."""
        with self._lock:
            for log in self._open.values():
                log.close()
            self._open.clear()


class AnswerDescription(NamedTuple):
    use_case: str
    answer: LoggedAnswer
    feedback: list[StoredFeedback]


_of_workspace: WeakKeyDictionary[Workspace, Logs] = WeakKeyDictionary()


def logs_of(workspace: Workspace) -> Logs:
    return _of_workspace.setdefault(workspace, Logs(workspace))


def log_location(workspace: Workspace, use_case: str) -> tuple[Path, float]:
    """The folder of a use case's log, and since when its answers are shown. Raises NOT_FOUND for the use case."""
    folder = log_folder(workspace.folders, check_name("use case", use_case))
    if not folder.path.exists():
        use_cases.get(workspace.database, use_case)
        folder.create()
    days = workspace.settings.log.of(use_case).retention_days
    return folder.path, reading.retention_start(workspace.clock.now(), days)


def find_answer(workspace: Workspace, prediction: str) -> tuple[str, LoggedAnswer]:
    """The use case of an answer, and the answer. Raises INVALID or NOT_FOUND with the reason."""
    log = logs_of(workspace).naming(prediction)
    return log.use_case, find_logged_answer(log, prediction, workspace.clock.now())


def describe_answer(workspace: Workspace, prediction: str) -> AnswerDescription:
    """An answer with all feedback on it. Raises INVALID or NOT_FOUND."""
    use_case, answer = find_answer(workspace, prediction)
    _, since = log_location(workspace, use_case)
    said = reading.feedback(log_folder(workspace.folders, use_case), since=since, of=answer.id)
    return AnswerDescription(use_case, answer, said)
