"""Feedback over HTTP or by a tool: parsed, its label checked against the model's classes, then added to the log.

A mistyped class would count as a wrong answer of the model and become a class of the next dataset. Whoever means a
class that the model does not know yet says so (`new_class`). The classes are known of models that were trained here and
answer classes or numbers; for all other models every label is accepted.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from pydantic import ValidationError
from typing_extensions import TypeIs

from speciate.datasets.columns import class_name
from speciate.errors import Code, SpeciateError, closest
from speciate.models.registry import version_folder
from speciate.models.sealed import CARD
from speciate.predictions.answer_lookup import logs_of
from speciate.predictions.feedback import (
    Feedback,
    RecordedFeedback,
    make_feedback,
    store_feedback,
)
from speciate.predictions.reading import LoggedAnswer
from speciate.vocabulary import task_named
from speciate.workspace.workspace import Folders, Workspace

MOST = 256
FORM = '{"prediction": "pred-...", "label": "..." or "score": 0 to 1, "source": "human", "agent" or "system"}'
_ONE, _SEVERAL, _NUMBER = ("classification", "ordinal"), "multi-label", "regression"
_VERSION = re.compile(r"(?P<name>[\w.-]+)@v(?P<version>\d+)")
_SEPARATOR = re.compile(r"[|;]")


class InvalidFeedback(Exception):
    """The body is no feedback; the text says why."""


class FeedbackRequest(NamedTuple):
    feedback: list[Feedback]
    several: bool
    """Whether the answer is to be a list."""


def parse_feedback(body: Any) -> FeedbackRequest:
    """Raises InvalidFeedback."""
    if not isinstance(body, dict):
        raise InvalidFeedback(f'The body must be an object like {FORM}, or {{"feedback": [...]}} with several.')
    several = "feedback" in body
    listed = body["feedback"] if several else [body]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST or (several and len(body) > 1):
        raise InvalidFeedback(f'"feedback" stands alone and holds 1 to {MOST} objects like {FORM}.')
    return FeedbackRequest(
        [_parse_one(each, f"feedback[{place}]" if several else "") for place, each in enumerate(listed)], several
    )


def _parse_one(given: Any, where: str) -> Feedback:
    try:
        return Feedback.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([where, *map(str, first["loc"][:1])]).strip(".")
        told = str(first["msg"]).removeprefix("Value error, ")
        raise InvalidFeedback(f"{at + ': ' if at else ''}{told}. Write {FORM}.") from None


class StandingFeedback(TypedDict):
    label: Any
    score: float | None
    at: float


class FeedbackResponse(TypedDict):
    prediction: str
    model: str
    standing: Mapping[str, StandingFeedback]
    """Source -> the newest that it gave."""


class FeedbackRefusal(TypedDict):
    """A feedback that was not stored, one of several."""

    prediction: str
    status: int
    """Status as of HTTP."""
    error: str


def is_refused(answer: FeedbackResponse | FeedbackRefusal) -> TypeIs[FeedbackRefusal]:
    return "error" in answer


def feedback_response(recorded: RecordedFeedback) -> FeedbackResponse:
    """The feedback as a client sees it."""
    standing: dict[str, StandingFeedback] = {
        source: {"label": given.label, "score": given.score, "at": given.at}
        for source, given in recorded.standing.items()
    }
    return {"prediction": recorded.answer.id, "model": recorded.answer.model, "standing": standing}


class UnknownClass(SpeciateError):
    """The label is none of the model's classes, and was not said to be new."""


class KnownAnswers(NamedTuple):
    """The answers that a version can give."""

    family: str | None
    classes: tuple[str, ...]


def label_check(folders: Folders) -> Callable[[LoggedAnswer, Feedback], None]:
    """The `check` of `store_feedback`. It needs no catalog: a deployment runs without one."""
    return lambda answer, feedback: check_label(answer.model, feedback, known_answers(folders, answer.model))


def known_answers(folders: Folders, model: str) -> KnownAnswers:
    """The answers that the card beside the version's weights knows; empty if the version is gone or was not made
    here."""
    named = _VERSION.fullmatch(model)
    if named is None:
        return KnownAnswers(None, ())
    try:
        card = json.loads((version_folder(folders, named["name"], int(named["version"])) / CARD).read_bytes())
        task = task_named(str(card["task"]))
        return KnownAnswers(task.family if task else None, tuple(map(str, card["labels"])))
    except (OSError, ValueError, LookupError, TypeError):
        return KnownAnswers(None, ())


def check_label(model: str, feedback: Feedback, known: KnownAnswers) -> None:
    """Raises UnknownClass with similar classes and how to add a new one, INVALID if a number is needed."""
    label = feedback.label
    if label is None:
        return
    if known.family == _NUMBER:
        _check_number(model, label)
        return
    if known.family not in (*_ONE, _SEVERAL) or not known.classes:
        return
    given = _split_labels(label) if known.family == _SEVERAL else [class_name(label)]
    if (odd := next((name for name in given if name not in known.classes), None)) is None or feedback.new_class:
        return
    raise UnknownClass(
        Code.INVALID,
        f"{odd!r} is none of the {len(known.classes)} classes of {model}; {closest(odd, known.classes)}",
        "Send the feedback again with one of its classes as label; or, for a class that the model does not know yet, "
        "with new_class=true.",
    )


def _split_labels(label: Any) -> list[str]:
    """Labels of a cell as tasks of many labels read it."""
    if isinstance(label, str):
        label = _parse_list(label) if label.lstrip().startswith("[") else _SEPARATOR.split(label)
    listed = label if isinstance(label, list) else [label]
    return [name for each in listed if (name := class_name(each))]


def _parse_list(label: str) -> Any:
    try:
        return json.loads(label)
    except ValueError:
        return [label]


def _check_number(model: str, label: Any) -> None:
    try:
        number = math.nan if isinstance(label, bool | list | dict) else float(label)
    except (ValueError, OverflowError):  # an integer may have any number of digits
        number = math.nan
    if not math.isfinite(number):
        raise SpeciateError(
            Code.INVALID,
            f"{model} answers numbers, and {class_name(label)!r} is none.",
            "Send the feedback again with a number as label, or with score=0 to 1.",
        )


def add_feedback(workspace: Workspace, given: Feedback) -> RecordedFeedback:
    """Raises what `store_feedback` and `check_label` raise."""
    log, check = logs_of(workspace).naming(given.prediction), label_check(workspace.folders)
    return store_feedback(log, given, workspace.clock.now(), check)


class RecordedMany(NamedTuple):
    """What became of several feedbacks."""

    models: Counter[str]
    """Count of answers, by version."""
    refused: list[tuple[str, SpeciateError]]
    """Predictions, and why nothing was recorded of them."""


def add_each(
    workspace: Workspace, given: Sequence[Mapping[str, Any]], completed: Callable[[Feedback], Feedback]
) -> RecordedMany:
    """Add each by itself, so that an unknown class costs no other. `given`: fields of Feedback. Raises the first
    refusal if all are refused."""
    found = RecordedMany(Counter(), [])
    for fields in given:
        try:
            found.models[add_feedback(workspace, completed(make_feedback(**fields))).answer.model] += 1
        except SpeciateError as error:
            found.refused.append((str(fields["prediction"]), error))
    if found.refused and not found.models:
        raise found.refused[0][1]
    return found
