"""Whether a label can be the right answer in an answer's place: it is held to what the model that answered can say.

A class that is mistyped would count as a wrong answer of the model, and become a class of the next dataset. Who means a
class that the model does not know yet says so (`new_class`). What a model can say is known of those that were trained
here and give classes or numbers; of all others every label is taken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from speciate.datasets.classes import class_name
from speciate.errors import Code, SpeciateError, closest
from speciate.models.registry import version_folder
from speciate.models.sealed import CARD
from speciate.predictions.feedback import Feedback
from speciate.predictions.reading import Answered
from speciate.vocabulary import task_named
from speciate.workspace.workspace import Folders

_ONE, _SEVERAL, _NUMBER = ("classification", "ordinal"), "multi-label", "regression"
_VERSION = re.compile(r"(?P<name>[\w.-]+)@v(?P<version>\d+)")
_DIVIDED = re.compile(r"[|;]")


class UnknownClass(SpeciateError):
    """The label is none of the model's classes, and was not said to be new."""


class Answers(NamedTuple):
    """What a version can say."""

    family: str | None
    classes: tuple[str, ...]


def checker(folders: Folders) -> Callable[[Answered, Feedback], None]:
    """For `recording.record`. It needs no catalog: a slot lives without one."""
    return lambda answer, feedback: check(answer.model, feedback, answers_of(folders, answer.model))


def answers_of(folders: Folders, model: str) -> Answers:
    """By the card beside the version's weights; nothing is known where it is gone, or was not made here."""
    named = _VERSION.fullmatch(model)
    if named is None:
        return Answers(None, ())
    try:
        card = json.loads((version_folder(folders, named["name"], int(named["version"])) / CARD).read_bytes())
        task = task_named(str(card["task"]))
        return Answers(task.family if task else None, tuple(map(str, card["labels"])))
    except (OSError, ValueError, LookupError, TypeError):
        return Answers(None, ())


def check(model: str, feedback: Feedback, known: Answers) -> None:
    """Raises UnknownClass with the classes that are near and how a new one is said to be new, INVALID for no number."""
    label = feedback.label
    if label is None:
        return
    if known.family == _NUMBER:
        _check_number(model, label)
        return
    if known.family not in (*_ONE, _SEVERAL) or not known.classes:
        return
    given = _several(label) if known.family == _SEVERAL else [class_name(label)]
    if (odd := next((name for name in given if name not in known.classes), None)) is None or feedback.new_class:
        return
    raise UnknownClass(
        Code.INVALID,
        f"{odd!r} is none of the {len(known.classes)} classes of {model}; {closest(odd, known.classes)}",
        "Send the feedback again with one of its classes as label; or, for a class that the model does not know yet, "
        "with new_class=true.",
    )


def _several(label: Any) -> list[str]:
    """As tasks of many labels read a cell."""
    if isinstance(label, str):
        label = _parsed(label) if label.lstrip().startswith("[") else _DIVIDED.split(label)
    listed = label if isinstance(label, list) else [label]
    return [name for each in listed if (name := class_name(each))]


def _parsed(label: str) -> Any:
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
