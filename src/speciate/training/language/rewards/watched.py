"""A kind of reward as a run asks it: failures are counted, and a reward that says nothing any more stops the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.errors import Code, SpeciateError
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
                f"{missed[-1].failure}: {missed[-1].detail[:_SHOWN]}",
                "Mend it, or leave it out of hyperparameters={'rewards': [...]}, then call train_model again.",
            )


def _finite(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return Missed("nan", f"{value}")
    return value
