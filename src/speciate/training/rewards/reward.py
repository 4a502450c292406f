"""The contract of a reward: answers in, numbers out. Failures are counted; a reward that only fails ends the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Message
from speciate.sandbox import user_code

RewardFailure = Literal["raised", "not_a_number", "nan", "wrong_number", "too_slow", "ended", "given_up", "no_column"]
"""Why there is no value: it raised; said what is no number, or NaN, or another number of values than answers; took too
long; its process ended; was not tried any more; the example lacks what it reads."""


class MissingValue(NamedTuple):
    """No value of an answer, and why. `detail` may quote foreign text."""

    failure: RewardFailure
    detail: str


class RewardRequest(NamedTuple):
    """One answer to be rewarded."""

    question: Sequence[Message]
    answer: str
    reference: str | None
    columns: Mapping[str, Any]
    """The user's columns of the example."""


RewardValue = float | None | MissingValue
"""None: the reward does not apply to this answer. Never NaN."""


class FailureReport(TypedDict):
    asked: int
    failures: Mapping[RewardFailure, int]
    untrusted: Mapping[str, Mapping[RewardFailure, str]]
    """{first: reason -> what was said of the first}"""


class RewardFailures:
    """What a reward could not say, over a run."""

    def __init__(self) -> None:
        self.requests = 0
        self.counted: Counter[RewardFailure] = Counter()
        self.examples: dict[RewardFailure, str] = {}
        """The first of each kind: foreign text."""

    def note(self, values: Sequence[RewardValue]) -> None:
        self.requests += len(values)
        for value in values:
            if isinstance(value, MissingValue):
                self.counted[value.failure] += 1
                self.examples.setdefault(value.failure, value.detail)

    def report(self) -> FailureReport:
        """For a report: answers that were asked about, and of those without a value how many by the reason."""
        return {"asked": self.requests, "failures": dict(self.counted), "untrusted": {"first": dict(self.examples)}}


class Reward(Protocol):
    """Opened for one run and asked many times. Not from two threads at once."""

    name: str
    """Name that no other reward of the run has."""
    failures: RewardFailures

    def score(
        self,
        questions: Sequence[Sequence[Message]],
        answers: Sequence[str],
        references: Sequence[str | None],
        columns: Sequence[Mapping[str, Any]],
    ) -> list[float | None]:
        """A value of each answer, never NaN. None: it does not apply, or could not be had (`failures`).

        Raises INVALID where nothing but failures come.
        """
        ...  # fmt: skip

    def close(self) -> None:
        """End what it keeps running. Idempotent."""
        ...


class AnswerScorer(Protocol):
    """One kind of reward. `reward_table.py` makes a Reward of it."""

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardValue]: ...

    def close(self) -> None: ...


_MOST_IN_A_ROW = 2
"""So many calls may bring nothing but failures; one may be chance, such as a machine that was busy."""
_QUOTED_CHARACTERS = 300


class WatchedReward:
    """A kind of reward whose failures are counted. A reward that gives no values any more ends the run."""

    def __init__(self, name: str, scorer: AnswerScorer) -> None:
        self.name, self.failures = name, RewardFailures()
        self._scorer, self._in_a_row = scorer, 0

    def score(
        self, questions: Sequence[Sequence[Message]], answers: Sequence[str], references: Sequence[str | None],
        columns: Sequence[Mapping[str, Any]],
    ) -> list[float | None]:  # fmt: skip
        requests = [RewardRequest(*each) for each in zip(questions, answers, references, columns, strict=True)]
        values = [_finite(each) for each in self._scorer.score(requests)]
        assert len(values) == len(requests), "a kind of reward that counts wrong"
        self.failures.note(values)
        self._stop_where_useless(values)
        return [None if isinstance(each, MissingValue) else each for each in values]

    def close(self) -> None:
        self._scorer.close()

    def _stop_where_useless(self, values: Sequence[RewardValue]) -> None:
        missed = [each for each in values if isinstance(each, MissingValue)]
        if not missed or len(missed) < sum(each is not None for each in values):
            self._in_a_row = 0 if any(isinstance(each, float) for each in values) else self._in_a_row
            return
        self._in_a_row += 1
        if self._in_a_row >= _MOST_IN_A_ROW:
            raise SpeciateError(
                Code.INVALID,
                f"The reward {self.name!r} says nothing of any answer, {self._in_a_row} calls in a row: "
                + failure_counts(missed, len(values)),
                advice(missed),
            )


def failure_counts(missed: Sequence[MissingValue], asked: int) -> str:
    """What went wrong with so many answers of a call. `given_up` only follows from another one, so it comes last."""
    first = _first_failure(missed)
    counted = Counter(each.failure for each in missed)
    said = f"{first.failure}: {first.detail[:_QUOTED_CHARACTERS]}, for {counted[first.failure]} of {asked} answers"
    others = [f"{failure} for {count}" for failure, count in counted.items() if failure != first.failure]
    return "; ".join([said, *others]) + "."


def advice(missed: Sequence[MissingValue]) -> str:
    """The next call, and before it what may mend the reward."""
    first = _first_failure(missed)
    again = "Mend it, or leave it out of hyperparameters={'rewards': [...]}, then call train_model again."
    if first.failure == "too_slow":
        return f"Make it faster, or give it more time by a larger 'seconds' in its entry of 'rewards'. {again}"
    if first.failure == "raised" and (why := user_code.sandbox_hint(first.detail)):
        return f"{why} {again}"
    return again


def _first_failure(missed: Sequence[MissingValue]) -> MissingValue:
    return next((each for each in missed if each.failure != "given_up"), missed[-1])


def _finite(value: RewardValue) -> RewardValue:
    if isinstance(value, float) and not math.isfinite(value):
        return MissingValue("nan", f"it returned {value}")
    return value
