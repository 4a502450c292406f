"""What a reward is: answers in, numbers out; and what it could not say, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from speciate.modalities.messages import Message

RewardFailure = Literal["raised", "not_a_number", "nan", "wrong_number", "too_slow", "ended", "given_up", "no_column"]
"""Why there is no value: it raised; said what is no number, or NaN, or another number of values than answers; took too
long; its process ended; was not tried any more; the example lacks what it reads."""


class Missed(NamedTuple):
    """No value of an answer, and why. `detail` may quote foreign text."""

    failure: RewardFailure
    detail: str


class Asked(NamedTuple):
    """One answer to be rewarded."""

    question: Sequence[Message]
    answer: str
    truth: str | None
    columns: Mapping[str, Any]
    """The user's columns of the example."""


Value = float | None | Missed
"""None: the reward does not apply to this answer. Never NaN."""


class Failures:
    """What a reward could not say, over a run."""

    def __init__(self) -> None:
        self.asked = 0
        self.counted: Counter[RewardFailure] = Counter()
        self.examples: dict[RewardFailure, str] = {}
        """The first of each kind: foreign text."""

    def note(self, values: Sequence[Value]) -> None:
        self.asked += len(values)
        for value in values:
            if isinstance(value, Missed):
                self.counted[value.failure] += 1
                self.examples.setdefault(value.failure, value.detail)

    def told(self) -> dict[str, Any]:
        """For a report: answers that were asked about, and of those without a value how many by the reason."""
        return {"asked": self.asked, "failures": dict(self.counted), "untrusted": {"first": dict(self.examples)}}


class Reward(Protocol):
    """Opened for one run and asked many times. Not from two threads at once."""

    name: str
    """Of its own among the rewards of a run."""
    failures: Failures

    def score(
        self,
        questions: Sequence[Sequence[Message]],
        answers: Sequence[str],
        truths: Sequence[str | None],
        columns: Sequence[Mapping[str, Any]],
    ) -> list[float | None]:
        """A value of each answer, never NaN. None: it does not apply, or could not be had (`failures`).

        Raises INVALID where nothing but failures come.
        """
        ...  # fmt: skip

    def close(self) -> None:
        """End what it keeps running. Idempotent."""
        ...


class Marker(Protocol):
    """What tells the values: a kind of reward. `table.py` makes a Reward of it."""

    def mark(self, asked: Sequence[Asked]) -> list[Value]: ...

    def close(self) -> None: ...
