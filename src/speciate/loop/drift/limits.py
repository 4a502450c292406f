"""Limits of production that are watched for good, by what its requests came to: which broke, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from speciate.promotion.request_counters import BadCount
from speciate.serving.hourly_tallies import HourTally, without_worst

NOT_FINITE_RATE, SLOW_RATE = 0.001, 0.05
"""Shares of requests that may have no finite answer, or be slower than the p95 limit, as the bake has them."""
LEAST_REQUESTS = 30


class LimitCount(NamedTuple):
    """How many requests of one window broke one limit. `seen` leaves out the window's worst hour where there are
    several."""

    name: str
    what: str
    """`failed`, `were slower than the p95 limit`: behind "3 of 400 requests"."""
    seen: BadCount
    allowed: float


def of_hours(tallies: Sequence[HourTally], error_rate: float) -> list[LimitCount]:
    """What a deployment counted. Requests of one hour share a fate, and likelihood ratios take them for independent: so
    the worst hour is left out, and an outage of an hour is no broken limit."""
    hours = list(tallies)
    listed = [
        LimitCount("failed", "failed", without_worst(hours, "failed"), error_rate),
        LimitCount("failed_not_finite", "were answered with no finite number", without_worst(hours, "not_finite"),
                   NOT_FINITE_RATE),
        LimitCount("slow", "were slower than the p95 limit", without_worst(hours, "slow", "timed"), SLOW_RATE),
    ]  # fmt: skip
    return [each for each in listed if each.seen.n >= LEAST_REQUESTS]


def of_log(errors: Sequence[bool], ms: Sequence[float], p95_ms: float | None, error_rate: float) -> list[LimitCount]:
    """Where no deployment counts: of the answers in the log, in one order. Those that failed before an answer are not
    in a log."""
    if len(errors) < LEAST_REQUESTS:
        return []
    found = [LimitCount("failed", "could not be answered", BadCount(len(errors), sum(errors)), error_rate)]
    if p95_ms is not None:
        slow = sum(each > p95_ms for each in ms)
        found.append(LimitCount("slow", "were slower than the p95 limit", BadCount(len(ms), slow), SLOW_RATE))
    return found
