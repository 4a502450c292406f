"""Which answers to label next, and what the labels so far say.

Strategies: `random` follows the hash of the id, so it is a fair draw that every caller sees in the same order;
`uncertain` begins with the lowest confidence; `disagreement` with contradicted answers. `mixed`, the default, takes
turns between random and uncertain. Answers that the episode of a watch asked about (`label_requests`) come before all
of these, with how they were drawn. The uncertain half teaches most. Only the random half tells without bias how good
the model is; so each label is stored with how its answer was drawn (`quality` makes the estimate).
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from speciate import use_cases
from speciate.modalities.media_answers import is_stored_media
from speciate.predictions import reading
from speciate.predictions.feedback import (
    SOURCES,
    BySource,
    Selection,
    Source,
    has_disagreement,
    latest_by_source,
    prevailing_label,
)
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.predictions.quality import (
    Agreement,
    AnswerOutput,
    AskedAnswer,
    Preference,
    Quality,
    agreement,
    estimate_preferences,
    estimate_quality,
    random_place,
)
from speciate.predictions.reading import LogContents, LoggedAnswer, StoredFeedback
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

Strategy = Literal["mixed", "random", "uncertain", "disagreement"]


class UnlabelledAnswer(NamedTuple):
    id: str
    confidence: float | None
    output: Any


class QueuedAnswer(NamedTuple):
    id: str
    drawn: Selection


_REQUESTS = "SELECT prediction, drawn FROM label_requests WHERE use_case = ?"


def next_in_queue(
    candidates: Iterable[UnlabelledAnswer],
    given: Mapping[str, BySource],
    *,
    strategy: Strategy = "mixed",
    source: Source = "human",
    count: int = 20,
) -> list[QueuedAnswer]:
    """What `source` should label next, best first, without the answers that it labelled already. Pure.

    `candidates`: answers without an error. `given`: of `latest_by_source`.
    """
    left = [each for each in candidates if source not in given.get(each.id, {})]
    if strategy == "disagreement":
        contradicted = [each for each in left if each.id in given and has_disagreement(each.output, given[each.id])]
        return [
            QueuedAnswer(each.id, "disagreement") for each in heapq.nsmallest(count, contradicted, key=_random_order)
        ]
    by_chance, by_doubt = list[QueuedAnswer](), list[QueuedAnswer]()
    if strategy != "uncertain":
        by_chance = [QueuedAnswer(each.id, "random") for each in heapq.nsmallest(count, left, key=_random_order)]
    if strategy != "random":
        unsure = [each for each in left if each.confidence is not None]
        # twice as many: the random half may take the first of them
        by_doubt = [
            QueuedAnswer(each.id, "uncertain") for each in heapq.nsmallest(2 * count, unsure, key=uncertainty_order)
        ]
    return interleave(by_chance, by_doubt, count)


def _random_order(candidate: UnlabelledAnswer) -> float:
    return random_place(candidate.id)


def uncertainty_order(candidate: UnlabelledAnswer) -> tuple[float, str]:
    return candidate.confidence or 0.0, candidate.id[::-1]  # an id begins with the time and ends with chance


def interleave(first: Sequence[QueuedAnswer], second: Sequence[QueuedAnswer], count: int) -> list[QueuedAnswer]:
    """One of each, without what came already. An answer that both would draw counts as drawn by chance: the place in
    the random order is what makes the random half fair."""
    random_ids = {each.id for each in first[: (count + 1) // 2]}
    second = [each for each in second if each.id not in random_ids]
    taken: dict[str, QueuedAnswer] = {}
    for pair in itertools.zip_longest(first, second):
        for each in pair:
            if each is not None and len(taken) < count:
                taken.setdefault(each.id, each)
    return list(taken.values())


class LabelItem(NamedTuple):
    prediction: str
    drawn: Selection
    """To be given back with the label."""
    model: str
    confidence: float | None
    at: float
    input: Any
    output: Any
    files: tuple[str, ...]
    """Files of the input, and of an answer that is an image or audio, where they lie in the workspace."""
    said: Mapping[str, Any]
    """Source -> the label or score that it gave."""
    beside: tuple[str, ...] = ()
    """For an image or audio: answers of other versions to the same text. Scores of both say which one is preferred."""
    by_watch: bool = False
    """Whether an episode of the use case's watch asks about it."""


class LabelQueue(NamedTuple):
    use_case: str
    waiting: int
    """Answers that this source has not judged yet."""
    items: tuple[LabelItem, ...]
    agreement: Agreement
    asked: int = 0
    """Answers that its watch asks about and nobody labelled."""


class LogSummary(NamedTuple):
    use_case: str
    contents: LogContents
    sample: float
    feedback: dict[str, int]
    """Source -> how many of the answers it judged."""
    quality: tuple[Quality, ...]
    agreement: Agreement
    preferences: tuple[Preference, ...] = ()


class _FeedbackSoFar(NamedTuple):
    since: float
    """Time before which answers are not shown any more."""
    given: list[StoredFeedback]
    latest: dict[str, dict[str, StoredFeedback]]


def next_labels(
    workspace: Workspace, use_case: str, *, strategy: Strategy = "mixed", source: Source = "human", count: int = 20
) -> LabelQueue:
    """Raises NOT_FOUND for the use case."""
    found, log = _read_feedback(workspace, use_case), log_folder(workspace.folders, use_case)
    rows = reading.answers(log, since=found.since, columns=["id", "confidence", "error"])
    outputs = _outputs(log, found)
    columns = (rows[name].to_pylist() for name in rows.column_names)  # not by rows: there may be a million
    candidates = [
        UnlabelledAnswer(name, confidence, outputs.get(name))
        for name, confidence, error in zip(*columns, strict=True)
        if not error
    ]
    drawn = next_in_queue(candidates, found.latest, strategy=strategy, source=source, count=count)
    by_watch = requests(workspace.database, use_case)
    asked = _asked(by_watch, candidates, found.latest)
    if strategy == "mixed":
        drawn = _requested_first(by_watch, asked, drawn, count)
    waiting = sum(source not in found.latest.get(each.id, {}) for each in candidates)
    answers = reading.find_many(log, [each.id for each in drawn])
    made_media = any(is_stored_media(each.output) for each in answers.values())
    beside = _answers_beside(log, found.since, answers) if made_media else {}
    items = [
        _label_item(workspace, use_case, answers[each.id], each.drawn, found.latest.get(each.id, {}))
        for each in drawn
        if each.id in answers
    ]
    items = [
        each._replace(beside=beside.get(each.prediction, ()), by_watch=each.prediction in by_watch) for each in items
    ]
    return LabelQueue(use_case, waiting, tuple(items), agreement(found.given), len(asked))


_MOST_BESIDE = 4


def _answers_beside(log: LogFolder, since: float, drawn: Mapping[str, LoggedAnswer]) -> Mapping[str, tuple[str, ...]]:
    """Id of an image or audio -> the latest answers of other versions to the same text."""
    asked = reading.answers(log, since=since, columns=["id", "model", "input", "error"]).to_pylist()
    by_question: dict[str, list[tuple[str, str]]] = {}
    for row in reversed(asked):
        if row["input"] and not row["error"]:
            by_question.setdefault(row["input"], []).append((row["id"], row["model"]))
    own = {row["id"]: row["input"] for row in asked if row["id"] in drawn}
    return {
        name: tuple(other for other, model in by_question.get(own[name], ()) if model != each.model)[:_MOST_BESIDE]
        for name, each in drawn.items()
        if is_stored_media(each.output) and own.get(name)
    }


def requests(database: Database, use_case: str) -> dict[str, Selection]:
    """Answers that episodes of its watch asked people about -> how they were drawn."""
    return dict(database.read(_REQUESTS, [use_case]))


def _asked(
    by_watch: Mapping[str, Selection], candidates: Sequence[UnlabelledAnswer], given: Mapping[str, BySource]
) -> list[UnlabelledAnswer]:
    """What was asked about and has no label yet."""
    return [each for each in candidates if each.id in by_watch and prevailing_label(given.get(each.id, {})) is None]


def _requested_first(
    by_watch: Mapping[str, Selection], asked: Sequence[UnlabelledAnswer], drawn: Sequence[QueuedAnswer], count: int
) -> list[QueuedAnswer]:
    """`asked` in the random order, so that both halves come together; then `drawn`."""
    first = [QueuedAnswer(each.id, by_watch[each.id]) for each in heapq.nsmallest(count, asked, key=_random_order)]
    taken = {each.id for each in first}
    return [*first, *(each for each in drawn if each.id not in taken)][:count]


def summarize_log(workspace: Workspace, use_case: str) -> LogSummary:
    """What the log holds, and how good each version is by its feedback. Raises NOT_FOUND for the use case."""
    found, log = _read_feedback(workspace, use_case), log_folder(workspace.folders, use_case)
    answers = [
        AnswerOutput(row["id"], row["model"], _parse_cell(row["output"]))
        for row in reading.answers(
            log, since=found.since, columns=["id", "model", "output"], of=found.latest
        ).to_pylist()
    ]
    asked = [
        AskedAnswer(row["id"], row["model"], row["input"])
        for row in reading.answers(
            log, since=found.since, columns=["id", "model", "input"], of=found.latest
        ).to_pylist()
        if row["input"]
    ]
    counts: dict[str, int] = {source: sum(source in each for each in found.latest.values()) for source in SOURCES}
    quality = tuple(estimate_quality(answers, found.latest))
    sample = workspace.settings.log.of(use_case).sample
    return LogSummary(
        use_case, reading.contents(log, since=found.since), sample, counts, quality, agreement(found.given),
        tuple(estimate_preferences(asked, found.latest)),
    )  # fmt: skip


def _read_feedback(workspace: Workspace, use_case: str) -> _FeedbackSoFar:
    """Raises NOT_FOUND for the use case."""
    log = log_folder(workspace.folders, use_case)
    if not log.path.exists():
        use_cases.get(workspace.database, use_case)
    since = reading.retention_start(workspace.clock.now(), workspace.settings.log.of(use_case).retention_days)
    given = reading.feedback(log, since=since)
    return _FeedbackSoFar(since, given, latest_by_source(given))


def _outputs(log: LogFolder, found: _FeedbackSoFar) -> Mapping[str, Any]:
    """Id -> what was answered, where somebody said something of it."""
    rows = reading.answers(log, since=found.since, columns=["id", "output"], of=found.latest)
    return {row["id"]: _parse_cell(row["output"]) for row in rows.to_pylist()}


def _label_item(
    workspace: Workspace, use_case: str, answer: LoggedAnswer, drawn: Selection, given: BySource
) -> LabelItem:
    log = log_folder(workspace.folders, use_case)
    files = [
        log.medium(each).relative_to(workspace.folders.root).as_posix()
        for each in (*reading.input_files(answer.input), *reading.output_files(answer.output))
    ]
    told = {source: each.score if each.label is None else each.label for source, each in given.items()}
    return LabelItem(answer.id, drawn, answer.model, answer.confidence, answer.at, answer.input, answer.output,
                tuple(files), told)  # fmt: skip


def _parse_cell(cell: str | None) -> Any:
    return None if cell is None else json.loads(cell)
