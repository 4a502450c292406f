"""1 where the number in an answer is the target's, else 0."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from speciate.training.language.rewards.finding import result
from speciate.training.language.rewards.reward import Asked, Missed, Value
from speciate.training.language.rewards.specs import NumericReward

_NUMBER = re.compile(
    r"(?:(?<![\w%.)])[-+\u2212])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.?\d*|\.\d+)"
    r"(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?\s*%?"
)
"""As people write them: 1,200.5, -3/4, 12 %, 1e-3. What stands between two numbers (10-20, 2024-05-06) is no sign."""
_LONGEST = 400
"""Digits of a number that is looked at."""


class NumericMarker:
    def __init__(self, spec: NumericReward) -> None:
        self._spec = spec

    def mark(self, asked: Sequence[Asked]) -> list[Value]:
        return [self._value(each) for each in asked]

    def close(self) -> None: ...

    def _value(self, asked: Asked) -> Value:
        if asked.truth is None:
            return None
        truth = last_number(asked.truth)
        if truth is None:
            return Missed("not_a_number", f"the target has no number: {asked.truth:.60}")
        found = result(asked.answer, self._spec.where, self._spec.marker)
        said = None if found is None else last_number(found)
        return 0.0 if said is None else float(self._same(said, truth))

    def _same(self, said: Number, truth: Number) -> bool:
        """`12 %` is 0.12, and what is meant by 12 where percent are asked for; but 1 % is not 100 %."""
        if said.percent == truth.percent:
            return self._near(said.value, truth.value)
        parts = said.value / (100 if said.percent else 1), truth.value / (100 if truth.percent else 1)
        return self._near(said.value, truth.value) or self._near(*parts)

    def _near(self, said: float, truth: float) -> bool:
        return abs(said - truth) <= max(self._spec.tolerance, self._spec.relative * abs(truth))


class Number(NamedTuple):
    value: float
    """As it is written: of 12 % it is 12."""
    percent: bool


def last_number(text: str) -> Number | None:
    """The last number in a text; None where there is none that is finite."""
    found = [each for each in _NUMBER.findall(text) if any(map(str.isdecimal, each))]
    return _read(found[-1]) if found else None


def _read(text: str) -> Number | None:
    plain = text.replace(",", "").replace("\u2212", "-").replace(" ", "")
    if len(plain) > _LONGEST:
        return None
    above, _, below = plain.rstrip("%").partition("/")
    try:
        value = float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return Number(value, plain.endswith("%")) if math.isfinite(value) else None
