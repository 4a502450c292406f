"""What to label next of a use case's answers, and what the labels so far say: read from its log."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from speciate import usecases
from speciate.predictions import feedback as said
from speciate.predictions import reading
from speciate.predictions.agreement import Agreement, agreement
from speciate.predictions.feedback import BySource, Drawn, Source
from speciate.predictions.folder import LogFolder, log_folder
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


class _Heard(NamedTuple):
    since: float
    """Before that answers are not shown any more."""
    given: list[Given]
    latest: dict[str, dict[str, Given]]


def next_labels(
    workspace: Workspace, use_case: str, *, strategy: Strategy = "mixed", source: Source = "human", count: int = 20
) -> Labels:
    """Raises NOT_FOUND for the use case."""
    found, log = _heard(workspace, use_case), log_folder(workspace.folders, use_case)
    rows = reading.answers(log, since=found.since, columns=["id", "confidence", "error"])
    outputs = _outputs(log, found)
    columns = (rows[name].to_pylist() for name in rows.column_names)  # not by rows: there may be a million
    candidates = [
        Candidate(name, confidence, outputs.get(name))
        for name, confidence, error in zip(*columns, strict=True)
        if not error
    ]
    drawn = queue(candidates, found.latest, strategy=strategy, source=source, count=count)
    waiting = sum(source not in found.latest.get(each.id, {}) for each in candidates)
    answers = reading.several(log, [each.id for each in drawn])
    items = [
        _item(workspace, use_case, answers[each.id], each.drawn, found.latest.get(each.id, {}))
        for each in drawn
        if each.id in answers
    ]
    return Labels(use_case, waiting, tuple(items), agreement(found.given))


def logged(workspace: Workspace, use_case: str) -> Logged:
    """What the log holds, and how good each version is by its feedback. Raises NOT_FOUND for the use case."""
    found, log = _heard(workspace, use_case), log_folder(workspace.folders, use_case)
    answers = [
        Said(row["id"], row["model"], _value(row["output"]))
        for row in reading.answers(
            log, since=found.since, columns=["id", "model", "output"], of=found.latest
        ).to_pylist()
    ]
    counts: dict[str, int] = {source: sum(source in each for each in found.latest.values()) for source in said.SOURCES}
    quality = tuple(qualities(answers, found.latest))
    sample = workspace.settings.log.of(use_case).sample
    return Logged(use_case, reading.held(log, since=found.since), sample, counts, quality, agreement(found.given))


def _heard(workspace: Workspace, use_case: str) -> _Heard:
    """Raises NOT_FOUND for the use case."""
    log = log_folder(workspace.folders, use_case)
    if not log.path.exists():
        usecases.get(workspace.database, use_case)
    since = reading.since_of(workspace.clock.now(), workspace.settings.log.of(use_case).retention_days)
    given = reading.feedback(log, since=since)
    return _Heard(since, given, said.latest(given))


def _outputs(log: LogFolder, found: _Heard) -> dict[str, Any]:
    """What was answered, where somebody said something of it."""
    rows = reading.answers(log, since=found.since, columns=["id", "output"], of=found.latest)
    return {row["id"]: _value(row["output"]) for row in rows.to_pylist()}


def _item(workspace: Workspace, use_case: str, answer: Answered, drawn: Drawn, given: BySource) -> Item:
    log = log_folder(workspace.folders, use_case)
    files = [log.medium(each).relative_to(workspace.folders.root).as_posix() for each in reading.media(answer.input)]
    told = {source: each.score if each.label is None else each.label for source, each in given.items()}
    return Item(answer.id, drawn, answer.model, answer.confidence, answer.at, answer.input, answer.output,
                tuple(files), told)  # fmt: skip


def _value(cell: str | None) -> Any:
    return None if cell is None else json.loads(cell)
