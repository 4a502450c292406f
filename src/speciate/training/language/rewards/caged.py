"""Rewards whose work is done in a cage: a batch of answers a call, of one process that is kept over the run.

A batch that takes too long or ends its process says nothing of its answers, so each of them is asked about again,
alone: one bad answer costs only itself. Once several processes were lost in one call, the rest of it is not tried.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

from speciate.evaluation.caged_lines import CagedLines
from speciate.evaluation.own_code import KeptCage, Lost
from speciate.training.language.rewards.reward import Asked, Missed, RewardFailure, Value

_MOST_LOST = 3
"""Processes of one call, beside that of the whole batch; what is left of it is then not tried."""
_SHOWN = 300


class CagedBatches:
    """`ask` as a question for answers; `one`: how many seconds an answer may take when it is asked about alone."""

    def __init__(
        self, load: Callable[[], CagedLines], ask: Callable[[Sequence[Asked]], dict[str, Any]], seconds: float,
        one: float | None = None,
    ) -> None:  # fmt: skip
        self._kept, self._ask = KeptCage(load, "answers"), ask
        self._seconds, self._one = seconds, seconds if one is None else one

    def mark(self, asked: Sequence[Asked]) -> list[Value]:
        if not asked:
            return []
        said = self._kept.ask(self._ask(asked), self._seconds, sys.maxsize)
        if not isinstance(said, Lost):
            return checked(said, len(asked))
        if len(asked) == 1:
            return [self._missed(said, self._seconds)]
        return self._one_by_one(asked)

    def close(self) -> None:
        self._kept.end()

    def _one_by_one(self, asked: Sequence[Asked]) -> list[Value]:
        most, found = self._kept.lost + _MOST_LOST, list[Value]()
        for each in asked:
            said = self._kept.ask(self._ask([each]), self._one, most)
            found += [self._missed(said, self._one)] if isinstance(said, Lost) else checked(said, 1)
        return found

    def _missed(self, lost: Lost, seconds: float) -> Missed:
        """In the words of whoever wrote the reward: `seconds` is what can be raised."""
        if lost.why == "too_slow" and seconds == self._seconds:
            return Missed(lost.why, f"it took longer than its 'seconds', {seconds:g}")
        return Missed(lost.why, lost.detail)


def checked(said: Any, count: int) -> list[Value]:
    """What a process said of so many answers, which may be anything, as values."""
    if not isinstance(said, dict) or "error" in said:
        return [Missed("raised", str(said["error"] if isinstance(said, dict) else said)[:_SHOWN])] * count
    values = said.get("value")
    if count == 1 and not isinstance(values, list):
        values = [values]
    if not isinstance(values, list):
        return [Missed("not_a_number", f"{values!r:.60} in place of a list of {count} values")] * count
    if len(values) != count:
        return [Missed("wrong_number", f"{len(values)} values of {count} answers")] * count
    return [_checked(each) for each in values]


def _checked(value: Any) -> Value:
    if value is None:
        return None
    if isinstance(value, dict) and value.get("failure") in get_args(RewardFailure):  # of a kind of our own
        return Missed(value["failure"], str(value.get("detail"))[:_SHOWN])
    if not isinstance(value, int | float):
        return Missed("not_a_number", f"{value!r:.60}")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return Missed("not_a_number", "a number with hundreds of digits")
    return float(value) if math.isfinite(value) else Missed("nan", f"it returned {value}")
