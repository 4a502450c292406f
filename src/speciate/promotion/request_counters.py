"""What the requests of one version came to, as its deployment counts them and the bake judges them.

Beside each total stands the worst minute: a judgement must hold without it, so that one stall of the machine, in which
many requests fail together, is no reason to take a version back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_WINDOW_SECONDS = 60.0


class BadCount(NamedTuple):
    """`bad` of `n`."""

    n: int
    bad: int

    @property
    def rate(self) -> float:
        return self.bad / self.n if self.n else 0.0


@dataclass
class BadShare:
    """How many of some requests were bad, in all, in the worst minute that is over, and in the one that runs."""

    n: int = 0
    bad: int = 0
    worst_n: int = 0
    worst_bad: int = 0
    window: int = 0
    window_n: int = 0
    window_bad: int = 0

    def add(self, at: float, bad: bool) -> None:
        if (window := int(at // _WINDOW_SECONDS)) != self.window:
            worst = self._worst()
            self.worst_n, self.worst_bad = worst
            self.window, self.window_n, self.window_bad = window, 0, 0
        self.n, self.bad = self.n + 1, self.bad + bad
        self.window_n, self.window_bad = self.window_n + 1, self.window_bad + bad

    def __add__(self, other: BadShare) -> BadShare:
        """What two processes counted: the worst minute is the worse of theirs."""
        worst = max(self._worst(), other._worst(), key=_badness)
        return BadShare(self.n + other.n, self.bad + other.bad, *worst)

    @property
    def total(self) -> BadCount:
        return BadCount(self.n, self.bad)

    @property
    def without_worst(self) -> BadCount:
        worst = self._worst()
        return BadCount(self.n - worst.n, self.bad - worst.bad)

    def _worst(self) -> BadCount:
        """The worse of the worst window and this one: it has more bad ones or, of two with as many, fewer good ones."""
        before, now = BadCount(self.worst_n, self.worst_bad), BadCount(self.window_n, self.window_bad)
        return max(before, now, key=_badness)


def _badness(count: BadCount) -> tuple[int, int]:
    return count.bad, -count.n


@dataclass
class RequestCounters:
    """Counters of one version's requests under one alias since one move of it. Every share is of requests, not of their
    inputs, which share a fate."""

    alias: str
    generation: int
    model: str
    first: float | None = None
    """When the first request was answered."""
    last: float | None = None
    seconds: float = 0.0
    """Seconds that all requests took together."""
    failed: BadShare = field(default_factory=BadShare)
    """No answer came, for the model's own sake: it was too late, or its process ended."""
    not_finite: BadShare = field(default_factory=BadShare)
    """An answer was no finite number."""
    unusable: BadShare = field(default_factory=BadShare)
    """An input could not be used."""
    slow: BadShare = field(default_factory=BadShare)
    """Inputs that took longer than the use case's limit, counting only what the version computed for them alone.
    Waiting for others, which a busy deployment does, is no fault of the version."""
    overloaded: int = 0
    """Requests, beside those above, for which the queue had no room or whose turn came too late: the load's doing, and
    no word about the version."""

    @property
    def requests(self) -> int:
        return self.failed.n

    @property
    def key(self) -> tuple[str, int, str]:
        return self.alias, self.generation, self.model

    def add(
        self, at: float, *, seconds: float, failed: bool, not_finite: bool, unusable: bool, overloaded: bool = False
    ) -> None:
        if overloaded:
            self.overloaded += 1
            return
        if not failed and self.first is None:
            self.first = at
        self.last = at
        self.seconds += seconds
        self.failed.add(at, failed)
        self.not_finite.add(at, not_finite)
        self.unusable.add(at, unusable)

    def __add__(self, other: RequestCounters) -> RequestCounters:
        """The sum of what two processes counted that served one version for one move."""
        return RequestCounters(
            *self.key,
            first=min((each for each in (self.first, other.first) if each is not None), default=None),
            last=max((each for each in (self.last, other.last) if each is not None), default=None),
            seconds=self.seconds + other.seconds,
            failed=self.failed + other.failed,
            not_finite=self.not_finite + other.not_finite,
            unusable=self.unusable + other.unusable,
            slow=self.slow + other.slow,
            overloaded=self.overloaded + other.overloaded,
        )

    def document(self) -> Mapping[str, object]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> RequestCounters:
        """Raises TypeError for what another version of this package wrote."""
        shares = {name: BadShare(**document[name]) for name in ("failed", "not_finite", "unusable", "slow")}
        return cls(**{**document, **shares})
