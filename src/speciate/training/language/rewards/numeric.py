"""1 where the number in an answer is the target's, else 0."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from speciate.training.language.rewards.finding import result
from speciate.training.language.rewards.reward import Asked, Missed, Value
from speciate.training.language.rewards.specs import NumericReward

_NUMBER = re.compile(
    r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.?\d*|\.\d+)"
    r"(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?\s*%?"
)
"""As people write them: 1,200.5, -3/4, 12 %, 1e-3."""
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
        if said is None:
            return 0.0
        room = max(self._spec.tolerance, self._spec.relative * abs(truth))
        return float(abs(said - truth) <= room)


def last_number(text: str) -> float | None:
    """The last number in a text; None where there is none that is finite."""
    found = [each for each in _NUMBER.findall(text) if any(map(str.isdecimal, each))]
    return _read(found[-1]) if found else None


def _read(text: str) -> float | None:
    plain = text.replace(",", "").replace("\u2212", "-").replace(" ", "")
    if len(plain) > _LONGEST:
        return None
    share = plain.endswith("%")
    above, _, below = plain.rstrip("%").partition("/")
    try:
        value = float(above) / (float(below) if below else 1.0) / (100 if share else 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) else None
