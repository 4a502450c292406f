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

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from speciate import use_cases
from speciate.predictions import label_queue, quality, reading
from speciate.predictions.log_files import log_folder
from speciate.predictions.quality import wilson_interval
from speciate.promotion.aliases import CANARY, Alias
from speciate.promotion.request_counters import BadCount, BadShare, RequestCounters
from speciate.settings import Bake
from speciate.use_cases import UseCase
from speciate.vocabulary import counts_right
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

ACTOR = "bake"
SURVIVED, CANARY_SURVIVED, BROKEN, TAKEN_BACK = (
    "promotion.survived", "canary.survived", "bake.broken", "bake.rolled_back",
)  # fmt: skip
BakeState = Literal["provisional", "survived", "broken"]
"""State of the version under an alias: provisional until it survived, or broke a limit and stayed."""
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
"""Level of the interval (Wilson) whose upper end the version before may have had: above it is one time in a hundred."""


_HAS_ANSWERED = """
SELECT 1 FROM events
WHERE subject = ? AND type IN ('production.answered', ?) AND data ->> 'model' = ? LIMIT 1
"""


class Quality(NamedTuple):
    """How many answers people or later labels called wrong."""

    judged: BadCount
    before: BadCount | None
    """The same count for the version before."""
    allowed: float | None
    """Share that may be wrong by the use case's target, for metrics that are such a share."""


class BakeObservation(NamedTuple):
    """All that is known of a version that bakes."""

    since: float
    """When the alias moved."""
    counters: RequestCounters | None
    """None where no deployment counted a request of it."""
    before: RequestCounters | None
    """Counters of the version that it replaced or, for a canary, stands beside."""
    answered: bool
    """Whether it ever answered, also where no deployment counts."""
    refused: str | None = None
    """Why its deployment did not let it serve."""
    quality: Quality | None = None


class Judgement(NamedTuple):
    state: Literal["baking", "survived", "broken"]
    reasons: tuple[str, ...]
    """What is broken, a text each; empty unless `state` is "broken"."""
    evidence: Mapping[str, float]
    """Numbers alone, as they go into the audit."""


class _Limit(NamedTuple):
    what: str
    total: BadCount
    without_worst: BadCount
    most: float


def judge(observation: BakeObservation, bake: Bake, now: float) -> Judgement:
    """Survived, broken, or neither yet."""
    reasons = [f"Its deployment did not let it serve: {observation.refused}"] if observation.refused else []
    reasons += [_describe_limit(limit) for limit in _limits(observation, bake) if _broken(limit)]
    evidence = _evidence(observation, now)
    if reasons:
        return Judgement("broken", tuple(reasons), evidence)
    return Judgement("survived" if _is_over(observation, bake, now) else "baking", (), evidence)


def surely_above(seen: BadCount, limit: float) -> bool:
    """Whether the share of bad ones exceeds `limit`, at the level ALPHA over all looks together."""
    return log_evidence(seen, limit) >= math.log(1 / ALPHA)


def log_evidence(seen: BadCount, limit: float) -> float:
    """Logarithm of the e-process against 'the share is at most `limit`' (0 < limit < 1)."""
    odds = limit / (1 - limit)
    logs = []
    for factor in _ODDS:
        other = factor * odds / (1 + factor * odds)
        logs.append(seen.bad * math.log(other / limit) + (seen.n - seen.bad) * math.log((1 - other) / (1 - limit)))
    top = max(logs)
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))


def _is_over(observation: BakeObservation, bake: Bake, now: float) -> bool:
    requests = observation.counters.requests if observation.counters else 0
    hours = (now - observation.since) / 3600
    if not (observation.answered or (observation.counters and observation.counters.first is not None)):
        return False  # what was never asked has survived nothing
    return (hours >= bake.hours and requests >= bake.requests) or hours >= bake.most_hours


def _limits(observation: BakeObservation, bake: Bake) -> Iterator[_Limit]:
    counters, before = observation.counters, observation.before
    if counters:
        then = before or RequestCounters("", 0, "")  # of which nothing is known
        yield _limit("failed", counters.failed, then.failed, bake.error_rate)
        yield _limit("were answered with no finite number", counters.not_finite, then.not_finite, _NOT_FINITE_RATE)
        if then.requests >= _ENOUGH:  # alone, nobody can tell a version's fault from a careless client's
            yield _limit("could not be used", counters.unusable, then.unusable, bake.error_rate)
        if counters.slow.n >= _ENOUGH:
            yield _limit("were slower than the use case's p95 limit", counters.slow, then.slow, _SLOW_RATE)
    if quality := observation.quality:
        known = [quality.allowed] if quality.allowed is not None else []
        if quality.before and quality.before.n >= _ENOUGH:
            known.append(_tolerated_rate(quality.before))
        if known:
            most = _clamp_rate(max(known))
            yield _Limit("were wrong by feedback", quality.judged, quality.judged, most)


def _limit(what: str, share: BadShare, before: BadShare, most: float) -> _Limit:
    if before.n >= _ENOUGH:
        most = max(most, _tolerated_rate(before.total))
    return _Limit(what, share.total, share.without_worst, _clamp_rate(most))


def _tolerated_rate(before: BadCount) -> float:
    """The share up to which going back would mend nothing. One bad request in a hundred may stand for seven."""
    if not before.bad:
        return 0.0
    return max(_HALF_AGAIN * before.rate, wilson_interval(before.rate, before.n, _LEVEL)[1])


def _clamp_rate(rate: float) -> float:
    return min(max(rate, 1e-6), 1 - 1e-6)


def _broken(limit: _Limit) -> bool:
    return surely_above(limit.total, limit.most) and surely_above(limit.without_worst, limit.most)


def _describe_limit(limit: _Limit) -> str:
    total = limit.total
    return f"{total.bad} of {total.n} requests {limit.what}: surely more than {100 * limit.most:.3g} %."


def _evidence(observation: BakeObservation, now: float) -> Mapping[str, float]:
    shown: dict[str, float] = {"hours": round((now - observation.since) / 3600, 3), "requests": 0}
    for name, counters in (("", observation.counters), ("before_", observation.before)):
        if counters:
            shown |= {
                f"{name}requests": counters.requests, f"{name}failed": counters.failed.bad,
                f"{name}not_finite": counters.not_finite.bad, f"{name}unusable": counters.unusable.bad,
                f"{name}slow": counters.slow.bad, f"{name}timed": counters.slow.n,
                f"{name}overloaded": counters.overloaded,
            }  # fmt: skip
    if observation.quality:
        shown |= {"judged": observation.quality.judged.n, "wrong": observation.quality.judged.bad}
    return shown


def quality_of(workspace: Workspace, use_case: str, model: str, before: str | None, since: float) -> Quality | None:
    """None where nothing was said since then. Reads the log: not for every second."""
    if not reading.feedback(log_folder(workspace.folders, use_case), since=since):
        return None
    found = label_queue.summarize_log(workspace, use_case).quality
    return quality_from_feedback(found, use_cases.get(workspace.database, use_case), model, before)


def quality_from_feedback(
    found: Sequence[quality.Quality], use_case: UseCase, model: str, before: str | None
) -> Quality | None:
    """How many answers feedback calls wrong, for the version that bakes and the one before: of the answers drawn at
    random if there are some, else of any.

    Shares of right answers and mean scores between 0 and 1 count; the missing part of a mean score counts as wrong,
    which the e-process allows (a convex function of a bounded value lies below its chord). Errors of numbers have no
    bound and are left out. Randomly drawn answers are compared with the use case's target, too; complaints that people
    happen to make only with complaints about the version before.
    """
    for drawn in ("random", "any"):
        for measure in ("right", "score"):
            own = _wrong_answers(found, model, drawn, measure)
            if own is None:
                continue
            target = use_case.objective.target if counts_right(use_case.objective.metric) else None
            fair = drawn == "random" and measure == "right" and target is not None
            other = _wrong_answers(found, before, drawn, measure) if before else None
            return Quality(own, other, 1 - target if fair and target is not None else None)
    return None


def _wrong_answers(found: Sequence[quality.Quality], model: str, drawn: str, measure: str) -> BadCount | None:
    for each in found:
        if (each.model, each.drawn, each.measure) == (model, drawn, measure):
            return BadCount(each.n, int(each.n * (1 - each.mean) + 1e-9))
    return None


_MOVES = ("alias.moved", "canary.set", "canary.ended", TAKEN_BACK)
_BAKE_EVENTS = f"""
SELECT subject, type, stamp, data FROM events
WHERE type IN ('{SURVIVED}', '{CANARY_SURVIVED}', '{BROKEN}', '{TAKEN_BACK}', 'alias.moved', 'canary.set',
               'canary.ended') AND subject IN (SELECT unnest(?::VARCHAR[]))
ORDER BY seq
"""
_NEW_BAKE_EVENTS = f"""
SELECT subject, type, stamp, data FROM events
WHERE type IN ('{SURVIVED}', '{CANARY_SURVIVED}', '{BROKEN}', '{TAKEN_BACK}', 'alias.moved', 'canary.set',
               'canary.ended') AND seq > ? AND seq <= ?
ORDER BY seq
"""
_LAST_MOVES = """
SELECT use_case, arg_max(action, seq) FROM audit
WHERE action IN ('promote', 'rollback') AND use_case IN (SELECT unnest(?::VARCHAR[])) GROUP BY use_case
"""


class BakeEvent(NamedTuple):
    """An event about the bake of a use case, or a move of its aliases."""

    type: str
    at: float
    data: Mapping[str, Any]


class BakeHistory(NamedTuple):
    """All that the state of a bake follows from."""

    said: Sequence[BakeEvent] = ()
    """Oldest first."""
    last_move: str | None = None
    """How production moved last: `promote` or `rollback`."""


def bake_histories(reader: Database | Transaction, use_cases: Collection[str]) -> dict[str, BakeHistory]:
    """The bake history of each of these use cases. The events are scanned once, however many these are: they have no
    index."""
    said: defaultdict[str, list[BakeEvent]] = defaultdict(list)
    for subject, kind, at, data in reader.read(_BAKE_EVENTS, [[f"use_case:{name}" for name in use_cases]]):
        said[subject].append(BakeEvent(kind, at, json.loads(data)))
    moves: dict[str, str] = dict(reader.read(_LAST_MOVES, [list(use_cases)]))
    return {name: BakeHistory(said[f"use_case:{name}"], moves.get(name)) for name in use_cases}


class BakeHistories:
    """`bake_histories` again and again: of the events each is read once."""

    def __init__(self) -> None:
        self._seq = 0
        self._said: defaultdict[str, list[BakeEvent]] = defaultdict(list)

    def read(self, database: Database, use_cases: Collection[str]) -> dict[str, BakeHistory]:
        """A history without news equals the one before."""
        seq = database.last_seq
        for subject, kind, at, data in database.read(_NEW_BAKE_EVENTS, [self._seq, seq]):
            self._said[subject] = [*self._said[subject], BakeEvent(kind, at, json.loads(data))]
        self._seq = seq
        moves: dict[str, str] = dict(database.read(_LAST_MOVES, [list(use_cases)]))
        return {name: BakeHistory(self._said[f"use_case:{name}"], moves.get(name)) for name in use_cases}


def bake_state(history: BakeHistory, alias: Alias) -> BakeState:
    """State of a bake by its events. A version that survived before and is back by a rollback does not bake again."""
    for each in reversed(history.said):
        of_this_move = (each.data.get("alias"), str(each.data.get("generation"))) == (
            alias.alias, str(alias.generation),
        )  # fmt: skip
        if each.type in (survived_event(alias), BROKEN) and of_this_move:
            return "broken" if each.type == BROKEN else "survived"
    back = alias.alias != CANARY and history.last_move == "rollback"
    ever = back and any(each.type == SURVIVED and each.data.get("model") == alias.model for each in history.said)
    return "survived" if ever else "provisional"


def current_bake_state(reader: Database | Transaction, alias: Alias) -> BakeState:
    """`bake_state` of one alias, with its history as it is now."""
    return bake_state(bake_histories(reader, [alias.use_case])[alias.use_case], alias)


class AutomaticRollback(NamedTuple):
    """What the bake did last, and why."""

    model: str
    alias: str
    at: float
    reasons: tuple[str, ...]


def automatic_rollback(history: BakeHistory) -> AutomaticRollback | None:
    """None where an alias of the use case moved since for another reason."""
    moves = (each for each in reversed(history.said) if each.type in _MOVES)
    if (newest := next(moves, None)) is None or newest.type != TAKEN_BACK:
        return None
    told = newest.data
    return AutomaticRollback(told["model"], told["alias"], newest.at, tuple(told["reasons"]))


def current_automatic_rollback(reader: Database | Transaction, use_case: str) -> AutomaticRollback | None:
    """`automatic_rollback` of one use case, with its history as it is now."""
    return automatic_rollback(bake_histories(reader, [use_case])[use_case])


def has_answered(reader: Database | Transaction, use_case: str, model: str, *, as_canary: bool = False) -> bool:
    """Whether a version ever answered for a use case in production, or also `as_canary`."""
    kind = "canary.answered" if as_canary else "production.answered"
    return bool(reader.read(_HAS_ANSWERED, [f"use_case:{use_case}", kind, model]))


def survived_event(alias: Alias) -> str:
    """The type of the event that says so."""
    return CANARY_SURVIVED if alias.alias == CANARY else SURVIVED
