"""1 where the result in an answer is the target, else 0."""

from __future__ import annotations

from collections.abc import Sequence

from speciate.training.language.rewards.finding import normalised, result
from speciate.training.language.rewards.reward import Asked, Value
from speciate.training.language.rewards.specs import ExactReward


class ExactMarker:
    def __init__(self, spec: ExactReward) -> None:
        self._spec = spec

    def mark(self, asked: Sequence[Asked]) -> list[Value]:
        return [self._value(each) for each in asked]

    def close(self) -> None: ...

    def _value(self, asked: Asked) -> float | None:
        if asked.truth is None:
            return None
        found = result(asked.answer, self._spec.where, self._spec.marker)
        if found is None:
            return 0.0
        if not self._spec.normalise:
            return float(found == asked.truth.strip())
        return float(normalised(found) == normalised(asked.truth))
