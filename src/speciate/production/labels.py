"""What to label next of a use case's answers, and what the labels so far say: read from its log."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from speciate import usecases
from speciate.predictions import feedback as said
from speciate.predictions import reading
from speciate.predictions.agreement import Agreement, agreement
from speciate.predictions.feedback import BySource, Drawn, Source
from speciate.predictions.folder import log_folder
from speciate.predictions.queue import Candidate, Strategy, queue
from speciate.predictions.reading import Answered, Given, Held
from speciate.production.feedback import Quality, Said, qualities
from speciate.workspace.workspace import Workspace


class Item(NamedTuple):
    prediction: str
    drawn: Drawn
    """To be given back with the label."""
    model: str
    confidence: float | None
    at: float
    input: Any
    output: Any
    files: tuple[str, ...]
    """Of the input, where they lie in the workspace."""
    said: dict[str, Any]
    """Source -> the label or score that it gave."""


class Labels(NamedTuple):
    use_case: str
    waiting: int
    """Answers that this source has not judged yet."""
    items: tuple[Item, ...]
    agreement: Agreement


class Logged(NamedTuple):
    use_case: str
    held: Held
    sample: float
    feedback: dict[str, int]
    """Source -> how many of the answers it judged."""
    quality: tuple[Quality, ...]
    agreement: Agreement


class _Read(NamedTuple):
    rows: list[dict[str, Any]]
    given: list[Given]
    latest: dict[str, dict[str, Given]]


def next_labels(
    workspace: Workspace, use_case: str, *, strategy: Strategy = "mixed", source: Source = "human", count: int = 20
) -> Labels:
    """Raises NOT_FOUND for the use case."""
    found = _read(workspace, use_case, ["id", "confidence", "output", "error"])
    candidates = [
        Candidate(row["id"], row["confidence"], _value(row["output"])) for row in found.rows if not row["error"]
    ]
    drawn = queue(candidates, found.latest, strategy=strategy, source=source, count=count)
    waiting = sum(source not in found.latest.get(each.id, {}) for each in candidates)
    answers = reading.several(log_folder(workspace.folders, use_case), [each.id for each in drawn])
    items = [
        _item(workspace, use_case, answers[each.id], each.drawn, found.latest.get(each.id, {}))
        for each in drawn
        if each.id in answers
    ]
    return Labels(use_case, waiting, tuple(items), agreement(found.given))


def logged(workspace: Workspace, use_case: str) -> Logged:
    """What the log holds, and how good each version is by its feedback. Raises NOT_FOUND for the use case."""
    found = _read(workspace, use_case, ["id", "model", "output"])
    log = log_folder(workspace.folders, use_case)
    settings = workspace.settings.log.of(use_case)
    held = reading.held(log, since=reading.since_of(workspace.clock.now(), settings.retention_days))
    answers = [Said(row["id"], row["model"], _value(row["output"])) for row in found.rows if row["id"] in found.latest]
    counts: dict[str, int] = {source: sum(source in each for each in found.latest.values()) for source in said.SOURCES}
    quality = tuple(qualities(answers, found.latest))
    return Logged(use_case, held, settings.sample, counts, quality, agreement(found.given))


def _read(workspace: Workspace, use_case: str, columns: list[str]) -> _Read:
    log = log_folder(workspace.folders, use_case)
    if not log.path.exists():
        usecases.get(workspace.database, use_case)
        return _Read([], [], {})
    days = workspace.settings.log.of(use_case).retention_days
    since = reading.since_of(workspace.clock.now(), days)
    given = reading.feedback(log, since=since)
    return _Read(reading.answers(log, since=since, columns=columns).to_pylist(), given, said.latest(given))


def _item(workspace: Workspace, use_case: str, answer: Answered, drawn: Drawn, given: BySource) -> Item:
    log = log_folder(workspace.folders, use_case)
    files = [log.medium(each).relative_to(workspace.folders.root).as_posix() for each in reading.media(answer.input)]
    told = {source: each.score if each.label is None else each.label for source, each in given.items()}
    return Item(answer.id, drawn, answer.model, answer.confidence, answer.at, answer.input, answer.output,
                tuple(files), told)  # fmt: skip


def _value(cell: str | None) -> Any:
    return None if cell is None else json.loads(cell)
