"""How many calls may be in flight at once: as many as the endpoint bears, found out by asking.

Additive increase, multiplicative decrease with slow start (Chiu & Jain 1989; Jacobson 1988), as pure functions from
pace to pace. Only a rate limit makes it smaller: a server's own faults say nothing about how much it would bear, so
they only keep it from growing. As in TCP (NewReno, RFC 6582) one overload shrinks it once: a call that was sent before
the last decrease and is refused after it brings no news.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Bounds(NamedTuple):
    """`most` calls at once; the rest is for those who know their endpoint."""

    least: int = 1
    start: int = 4
    most: int = 32
    decrease: float = 0.7
    increase: float = 0.05
    """Share of the limit that is added after a round without a rate limit, at least one call."""
    saturation: float = 0.8
    """A limit that is not used to this share is not known to be borne: it does not grow."""
    pause_s: float = 5.0
    """Seconds without growth after a server's fault."""
    hold_s: float = 1.0
    """How long nothing is sent after a rate limit without Retry-After."""
    longest_hold_s: float = 60.0
    """What is honoured of a Retry-After."""


class Pace(NamedTuple):
    """Times are of one monotonic clock, in seconds."""

    limit: int
    slow_start: bool = True
    """No rate limit was met yet: the limit doubles after each round."""
    round: int = 0
    """Answers under saturation since the limit last changed."""
    shrunk_at: float = -math.inf
    grows_from: float = -math.inf
    held_until: float = -math.inf
    """Time before which nothing is sent."""


def first_pace(bounds: Bounds) -> Pace:
    return Pace(min(max(bounds.start, bounds.least, 1), bounds.most))


def after_answer(pace: Pace, bounds: Bounds, *, in_flight: int, now: float) -> Pace:
    """The pace after a call that succeeded; `in_flight` counts it."""
    if now < pace.grows_from or in_flight < bounds.saturation * pace.limit:
        return pace
    if pace.round + 1 < pace.limit:
        return pace._replace(round=pace.round + 1)
    step = pace.limit if pace.slow_start else max(1, round(pace.limit * bounds.increase))
    return pace._replace(limit=min(pace.limit + step, bounds.most), round=0)


def after_rate_limit(pace: Pace, bounds: Bounds, *, sent: float, now: float, retry_after_s: float | None) -> Pace:
    """The pace after a call that was refused for the rate; `sent`: when it was sent."""
    hold = min(bounds.hold_s if retry_after_s is None else max(0.0, retry_after_s), bounds.longest_hold_s)
    pace = pace._replace(round=0, slow_start=False, held_until=max(pace.held_until, now + hold))
    if sent < pace.shrunk_at:
        return pace
    return pace._replace(limit=max(bounds.least, 1, math.floor(pace.limit * bounds.decrease)), shrunk_at=now)


def after_failure(pace: Pace, bounds: Bounds, *, now: float) -> Pace:
    """The pace after a call that failed by the server's or the network's fault."""
    return pace._replace(round=0, grows_from=max(pace.grows_from, now + bounds.pause_s))
