"""From the text of a chat model to an answer, or to the reason why it is invalid. Nothing is guessed."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from speciate.evaluation.endpoints.prompts import KEYS, PromptForm
from speciate.tasks.task import Prediction

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
_PREFIX = re.compile(r"\A(?:the\s+)?(?:final\s+)?(?:answer|label|class|category)\s*(?:is\b|[:=])\s*", re.IGNORECASE)
_AROUND = " \t\r\n\"'`*_“”‘’«».,;:!?()[]{}<>"
_QUOTED = 60  # characters of an unreadable answer


class UnreadableAnswer(ValueError):
    """The answer does not have the requested form."""


def parse_answer(form: PromptForm, text: str) -> Prediction:
    """The answer in `text`. Raises UnreadableAnswer for an unknown label, several, none, or another format."""
    answer = _THOUGHT.sub("", text).strip()
    key = KEYS[form.family]
    if answer in form.labels and form.output != "json_schema":
        return Prediction(answer, None, None)
    if form.output == "json_schema" or (form.output == "labels" and answer.startswith(("{", "```"))):
        return _prediction(form, _value(answer, key))
    return _prediction(form, answer)


def parse_value(text: str, key: str) -> Any:
    """The value of `key` in the JSON object `text`. Raises UnreadableAnswer without it."""
    return _value(_THOUGHT.sub("", text).strip(), key)


def _prediction(form: PromptForm, value: Any) -> Prediction:
    match KEYS[form.family]:
        case "label":
            output: Any = _label(form.labels, value)
        case "labels":
            if not isinstance(value, list):
                raise UnreadableAnswer(f"{_quote(value)} is no list of labels")
            output = sorted({_label(form.labels, each) for each in value})
        case "number":
            output = _number(value)
        case _:
            output = _free(form, value)
    return Prediction(output, None, None)


def _value(answer: str, key: str) -> Any:
    """The value of `key` in a JSON object."""
    fenced = _FENCE.match(answer)
    try:
        message = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        raise UnreadableAnswer(f"{_quote(answer)} is not JSON") from None
    if not isinstance(message, dict) or key not in message:
        raise UnreadableAnswer(f"{_quote(answer)} is no JSON object with {key!r}")
    return message[key]


def _label(labels: tuple[str, ...], value: Any) -> str:
    """The label that is named: exactly, else ignoring case, spacing and surrounding punctuation."""
    answer = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if answer in labels:
        return answer
    for trim in (_fold, lambda text: _fold(_PREFIX.sub("", text.strip(_AROUND)).strip(_AROUND))):
        wanted = trim(answer)
        near = [label for label in labels if wanted and wanted in (_fold(label), trim(label))]
        if len(near) == 1:
            return near[0]
        if near:
            raise UnreadableAnswer(f"{_quote(value)} may be {' or '.join(map(repr, near[:3]))}")
    raise UnreadableAnswer(f"{_quote(value)} is not exactly one of the labels")


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


def _number(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(_PREFIX.sub("", value).strip(" \t\r\n\"'`*"))
        except ValueError:
            raise UnreadableAnswer(f"{_quote(value)} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableAnswer(f"{_quote(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UnreadableAnswer(f"{_quote(value)} is not a finite number")
    return number


def _free(form: PromptForm, value: Any) -> str:
    if not isinstance(value, str):
        raise UnreadableAnswer(f"{_quote(value)} is no text")
    return " ".join(value.split()) if form.family == "transcription" else value.strip()


def _quote(value: Any) -> str:
    return repr(value if len(str(value)) <= _QUOTED else str(value)[:_QUOTED] + "...")
