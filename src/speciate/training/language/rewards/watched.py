"""A kind of reward as a run asks it: failures are counted, and a reward that says nothing any more stops the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.evaluation import own_code
from speciate.modalities.messages import Message
from speciate.training.language.rewards.reward import Asked, Failures, Marker, Missed, Value

_MOST_IN_A_ROW = 2
"""So many calls may bring nothing but failures; one may be chance, such as a machine that was busy."""
_SHOWN = 300


class WatchedReward:
    def __init__(self, name: str, marker: Marker) -> None:
        self.name, self.failures = name, Failures()
        self._marker, self._in_a_row = marker, 0

    def score(
        self, questions: Sequence[Sequence[Message]], answers: Sequence[str], truths: Sequence[str | None],
        columns: Sequence[Mapping[str, Any]],
    ) -> list[float | None]:  # fmt: skip
        asked = [Asked(*each) for each in zip(questions, answers, truths, columns, strict=True)]
        values = [_finite(each) for each in self._marker.mark(asked)]
        assert len(values) == len(asked), "a kind of reward that counts wrong"
        self.failures.note(values)
        self._stop_where_useless(values)
        return [None if isinstance(each, Missed) else each for each in values]

    def close(self) -> None:
        self._marker.close()

    def _stop_where_useless(self, values: Sequence[Value]) -> None:
        missed = [each for each in values if isinstance(each, Missed)]
        if not missed or len(missed) < sum(each is not None for each in values):
            self._in_a_row = 0 if any(isinstance(each, float) for each in values) else self._in_a_row
            return
        self._in_a_row += 1
        if self._in_a_row >= _MOST_IN_A_ROW:
            raise SpeciateError(
                Code.INVALID,
                f"The reward {self.name!r} says nothing of any answer, {self._in_a_row} calls in a row: "
                + told(missed, len(values)),
                advice(missed),
            )


def told(missed: Sequence[Missed], asked: int) -> str:
    """What went wrong with so many answers of a call. `given_up` only follows from another one, so it comes last."""
    first = _first(missed)
    counted = Counter(each.failure for each in missed)
    said = f"{first.failure}: {first.detail[:_SHOWN]}, for {counted[first.failure]} of {asked} answers"
    others = [f"{failure} for {count}" for failure, count in counted.items() if failure != first.failure]
    return "; ".join([said, *others]) + "."


def advice(missed: Sequence[Missed]) -> str:
    """The next call, and before it what may mend the reward."""
    first = _first(missed)
    again = "Mend it, or leave it out of hyperparameters={'rewards': [...]}, then call train_model again."
    if first.failure == "too_slow":
        return f"Make it faster, or give it more time by a larger 'seconds' in its entry of 'rewards'. {again}"
    if first.failure == "raised" and (why := own_code.cage_hint(first.detail)):
        return f"{why} {again}"
    return again


def _first(missed: Sequence[Missed]) -> Missed:
    return next((each for each in missed if each.failure != "given_up"), missed[-1])


def _finite(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return Missed("nan", f"it returned {value}")
    return value
