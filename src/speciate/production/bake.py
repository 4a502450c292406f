"""Whether a version that came into production holds there, by its first requests. Pure.

It is watched until both some hours and some requests have passed (settings, `bake`), and may be looked at as often as
one likes: each limit on a share of requests is tested by an e-process. For a limit p and an alternative q > p, the
likelihood ratio (q/p)^bad ((1-q)/(1-p))^(n-bad) is a supermartingale where the true share is at most p, and so is its
mean over alternatives; by Ville's inequality it ever reaches 1/a with probability at most a (Robbins 1970; Howard et
al. 2021). The alternatives have 1.5 to 1,000 times the odds of p. A limit counts as broken where this holds for all
requests, and again without the worst minute.

A limit is never stricter than half again what the version before had, nor than what it may have had by the few requests
that are known of it: going back to it would mend nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from speciate.production.feedback import wilson
from speciate.production.tally import Counted, Share, Tally
from speciate.settings import Bake

ACTOR = "bake"
ALPHA = 0.001
"""How likely a limit that is kept is ever found broken, over the whole bake."""
_ODDS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
_NOT_FINITE_RATE = 0.001
_SLOW_RATE = 0.05
"""A p95 is kept where at most so many requests are slower."""
_ENOUGH = 100
"""Requests before latency is judged (the first ones warm a version up), and of a version that is compared with."""
_HALF_AGAIN = 1.5
_LEVEL = 0.98
"""Of the interval (Wilson) whose upper end the version before may have had: above it is one time in a hundred."""


class Quality(NamedTuple):
    """What people or later labels said of answers: how many were wrong."""

    judged: Counted
    before: Counted | None
    """Of the version before."""
    allowed: float | None
    """Share that may be wrong by the use case's target, for metrics that are such a share."""


class Watched(NamedTuple):
    """All that is known of a version that bakes."""

    since: float
    """When the alias moved."""
    tally: Tally | None
    """None where no slot counted a request of it."""
    before: Tally | None
    """Of the version that it replaced or, for a canary, stands beside."""
    answered: bool
    """Whether it ever answered, also where no slot counts."""
    refused: str | None = None
    """Why its slot did not let it serve."""
    quality: Quality | None = None


class Judgement(NamedTuple):
    state: Literal["baking", "survived", "broken"]
    reasons: tuple[str, ...]
    """Of what is broken."""
    evidence: dict[str, Any]


class _Limit(NamedTuple):
    what: str
    total: Counted
    without_worst: Counted
    most: float


def judge(watched: Watched, bake: Bake, now: float) -> Judgement:
    """Survived, broken, or neither yet."""
    reasons = [f"Its slot did not let it serve: {watched.refused}"] if watched.refused else []
    reasons += [_spoken(limit) for limit in _limits(watched, bake) if _broken(limit)]
    evidence = _evidence(watched, now)
    if reasons:
        return Judgement("broken", tuple(reasons), evidence)
    return Judgement("survived" if _over(watched, bake, now) else "baking", (), evidence)


def surely_above(seen: Counted, limit: float) -> bool:
    """Whether the share of bad ones exceeds `limit`, at the level ALPHA over all looks together."""
    return log_evidence(seen, limit) >= math.log(1 / ALPHA)


def log_evidence(seen: Counted, limit: float) -> float:
    """Logarithm of the e-process against 'the share is at most `limit`' (0 < limit < 1)."""
    odds = limit / (1 - limit)
    logs = []
    for factor in _ODDS:
        other = factor * odds / (1 + factor * odds)
        logs.append(seen.bad * math.log(other / limit) + (seen.n - seen.bad) * math.log((1 - other) / (1 - limit)))
    top = max(logs)
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))


def _over(watched: Watched, bake: Bake, now: float) -> bool:
    requests = watched.tally.requests if watched.tally else 0
    hours = (now - watched.since) / 3600
    if not (watched.answered or (watched.tally and watched.tally.first is not None)):
        return False  # what was never asked has survived nothing
    return (hours >= bake.hours and requests >= bake.requests) or hours >= bake.most_hours


def _limits(watched: Watched, bake: Bake) -> Iterator[_Limit]:
    tally, before = watched.tally, watched.before
    if tally:
        then = before or Tally("", 0, "")  # of which nothing is known
        yield _limit("failed", tally.failed, then.failed, bake.error_rate)
        yield _limit("were answered with no finite number", tally.not_finite, then.not_finite, _NOT_FINITE_RATE)
        if then.requests >= _ENOUGH:  # alone, nobody can tell a version's fault from a careless client's
            yield _limit("could not be used", tally.unusable, then.unusable, bake.error_rate)
        if tally.slow.n >= _ENOUGH:
            yield _limit("were slower than the use case's p95 limit", tally.slow, then.slow, _SLOW_RATE)
    if quality := watched.quality:
        known = [quality.allowed] if quality.allowed is not None else []
        if quality.before and quality.before.n >= _ENOUGH:
            known.append(_borne(quality.before))
        if known:
            most = _inside(max(known))
            yield _Limit("were wrong by what was said of them", quality.judged, quality.judged, most)


def _limit(what: str, share: Share, before: Share, most: float) -> _Limit:
    if before.n >= _ENOUGH:
        most = max(most, _borne(before.total))
    return _Limit(what, share.total, share.without_worst, _inside(most))


def _borne(before: Counted) -> float:
    """The share up to which going back would mend nothing. One bad request in a hundred may stand for seven."""
    if not before.bad:
        return 0.0
    return max(_HALF_AGAIN * before.rate, wilson(before.rate, before.n, _LEVEL)[1])


def _inside(rate: float) -> float:
    return min(max(rate, 1e-6), 1 - 1e-6)


def _broken(limit: _Limit) -> bool:
    return surely_above(limit.total, limit.most) and surely_above(limit.without_worst, limit.most)


def _spoken(limit: _Limit) -> str:
    total = limit.total
    return f"{total.bad} of {total.n} requests {limit.what}: surely more than {100 * limit.most:.3g} %."


def _evidence(watched: Watched, now: float) -> dict[str, Any]:
    """Numbers alone, as they go into the audit."""
    shown: dict[str, Any] = {"hours": round((now - watched.since) / 3600, 3), "requests": 0}
    for name, tally in (("", watched.tally), ("before_", watched.before)):
        if tally:
            shown |= {
                f"{name}requests": tally.requests, f"{name}failed": tally.failed.bad,
                f"{name}not_finite": tally.not_finite.bad, f"{name}unusable": tally.unusable.bad,
                f"{name}slow": tally.slow.bad, f"{name}timed": tally.slow.n, f"{name}overloaded": tally.overloaded,
            }  # fmt: skip
    if watched.quality:
        shown |= {"judged": watched.quality.judged.n, "wrong": watched.quality.judged.bad}
    return shown
