"""Asking a model for its answers, chunk by chunk; what an earlier attempt recorded is not asked again.

An example that a model fails on is an answer with an error. Where a whole chunk fails, its examples are asked one by
one, so that one bad example costs only itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.evaluation.contestants import Contestant
from speciate.jobs.folder import write_whole
from speciate.jobs.run import Run, Stopped
from speciate.tasks.contract import Prediction, Terms
from speciate.tasks.labels import as_label
from speciate.tasks.table import READOUTS
from speciate.vocabulary import Family

CHUNK = 256
_LIKE_TRUTHS: tuple[Family, ...] = ("multi-label", "tokens", "transcription")
"""Families whose stored answers are written as truths are."""


class Answer(NamedTuple):
    """`output` as in Prediction; None with `error` where there is none."""

    output: Any
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None


Ask = Callable[[Sequence[Example]], Sequence[Prediction]]


def answer_all(
    run: Run, contestant: Contestant, dataset_id: str, examples: Sequence[Example], ask: Ask, done: int, total: int
) -> list[Answer]:
    """One answer per example. `dataset_id` and the contestant's identity are what recorded chunks are known by.

    Raises Stopped between chunks where the run was asked to stop.
    """
    answers: list[Answer] = []
    for start, chunk in _chunks(examples):
        if run.stopping:
            raise Stopped
        name = _record_name(contestant, dataset_id, start, chunk)
        recorded = _recorded(run, name, len(chunk))
        if recorded is None:
            recorded = _ask(ask, chunk)
            write_whole(run.checkpoints / name, json.dumps(recorded))
        answers += recorded
        run.progress(done + len(answers), total, "answers", contestant.name)
    return answers


def from_column(examples: Sequence[Example], column: str, family: Family, modality: str | None = None) -> list[Answer]:
    """The answers that the system in use gave, as they are stored; an empty cell is an error."""
    terms = Terms(modality=modality)
    return [_stored(example, example.columns.get(column), family, terms) for example in examples]


def _stored(example: Example, cell: Any, family: Family, terms: Terms) -> Answer:
    if cell is None or cell == "":
        return Answer(None, error="the column holds no answer")
    if family in _LIKE_TRUTHS:
        try:
            posed = READOUTS[family].pose(example, cell, terms)
        except (ValueError, TypeError) as error:
            return Answer(None, error=f"the column holds no answer: {error}"[:300])
        return Answer(posed.truth) if posed else Answer(None, error="the column holds no answer")
    if family in ("classification", "ordinal", "anomaly"):
        known = as_label(cell)
        return Answer(known) if known else Answer(None, error="the column holds no answer")
    try:
        return Answer(float(str(cell)) if family == "regression" else _told(cell))
    except ValueError:
        return Answer(None, error="the column holds no number" if family == "regression" else "no JSON")


def _told(cell: Any) -> Any:
    """What a stored answer says that is more than a label or a number: JSON as text, or what it is."""
    return json.loads(cell) if isinstance(cell, str) and cell[:1] in "[{" else cell


def _chunks(examples: Sequence[Example]) -> Iterator[tuple[int, Sequence[Example]]]:
    for start in range(0, len(examples), CHUNK):
        yield start, examples[start : start + CHUNK]


def _ask(ask: Ask, chunk: Sequence[Example]) -> list[Answer]:
    try:
        return [_answer(prediction) for prediction in ask(chunk)]
    except Exception:  # noqa: BLE001 - a model may fail in any way; which example it was shows one by one
        return [_ask_one(ask, example) for example in chunk]


def _ask_one(ask: Ask, example: Example) -> Answer:
    try:
        return _answer(ask([example])[0])
    except Exception as error:  # noqa: BLE001 - recorded beside the example, and counted
        return Answer(None, error=f"{type(error).__name__}: {error}"[:300])


def _answer(prediction: Prediction) -> Answer:
    return Answer(prediction.output, prediction.confidence, prediction.probabilities)


def _record_name(contestant: Contestant, dataset_id: str, start: int, chunk: Sequence[Example]) -> str:
    key = [contestant.name, contestant.identity, dataset_id, [example.id for example in chunk]]
    return f"answers-{start}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]}.json"


def _recorded(run: Run, name: str, count: int) -> list[Answer] | None:
    for folder in (run.folder, *run.resume_from):
        try:
            rows = json.loads((folder.checkpoints / name).read_text())
        except (FileNotFoundError, ValueError):
            continue
        if len(rows) == count:
            return [Answer(*row) for row in rows]
    return None
