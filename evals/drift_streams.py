"""Made streams of requests whose rows are not independent, as real ones are not, and their changes.

A stream is some weeks of answers: who asked, when, a 64-d 'embedding' of rank 16, and three scalars (a confidence,
one of five labels, a count of words). A latent row is z = sqrt(p) u + sqrt(q) s + sqrt(1 - p - q) e: `u` is the
entity's for good, `s` its session's, `e` the row's own; so p + q is the correlation within an entity. Entities ask by
a lognormal activity, in sessions of three rows within minutes, and a tenth of them is replaced each week. **In a
quiet stream nothing changes**: whoever comes is drawn as all were. `REGIMES` has what is quiet, `CHANGES` what is
not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.loop.drift.permutation import Rows, Values

WEEK, DAY, HOUR = 7 * 86_400.0, 86_400.0, 3_600.0
BEGIN = 1_700_000_000.0
_D, _RANK = 64, 16
_ENTITIES, _A_WEEK, _SESSION, _REPLACED = 60, 120, 3, 0.1
_MIX = np.random.default_rng(0).normal(size=(_RANK, _D)) / np.sqrt(_RANK)
_SHARES = (0.4, 0.7, 0.9, 0.98)
_LATENTS = _RANK + 3


class Week(NamedTuple):
    """One window's answers, in order of time."""

    at: Values
    entity: list[str]
    embedding: Rows
    confidence: Values
    label: npt.NDArray[np.int64]
    words: Values


class Regime(NamedTuple):
    lasting: float = 0.0
    """Correlation within an entity for good."""
    session: float = 0.0
    """And more of it within a session."""
    volume: Callable[[int], float] = lambda week: 1.0
    """How many ask, of 60."""
    cycle: float = 0.0
    """Standard deviations by which nights and week-ends differ."""
    burst: int = 0
    """Rows of one entity on one afternoon of week 5."""
    repeats: float = 0.0
    """Share of rows that are followed by near-copies of themselves."""
    daily: float = 0.0
    """Correlation of all who ask on one day."""


REGIMES = {
    "independent": Regime(),
    "entity .2": Regime(lasting=0.2),
    "entity .5": Regime(lasting=0.3, session=0.2),
    "cycle": Regime(lasting=0.1, cycle=0.8),
    "falling volume": Regime(lasting=0.2, volume=lambda week: 2.0 * 0.82**week),
    "rising volume": Regime(lasting=0.2, volume=lambda week: 0.6 * 1.15**week),
    "burst": Regime(lasting=0.2, burst=150),
    "near-repeats": Regime(lasting=0.1, repeats=0.3),
    "a day's topic": Regime(lasting=0.1, daily=0.05),
}


class Change(NamedTuple):
    inputs: Callable[[float], float] = lambda weeks: 0.0
    """Standard deviations by which one latent of 16 is shifted, so many weeks after the change began (below 0:
    before)."""
    scalars: Callable[[float], float] = lambda weeks: 0.0
    """The same of each scalar."""


def _step(size: float) -> Callable[[float], float]:
    return lambda weeks: size if weeks >= 0 else 0.0


CHANGES = {
    "0.5 sd": Change(inputs=_step(0.5)),
    "1 sd": Change(inputs=_step(1.0)),
    "slow, 0 to 1 sd in 12 weeks": Change(inputs=lambda weeks: min(1.0, max(0.0, weeks / 12))),
    "scalars 0.3 sd": Change(scalars=_step(0.3)),
    "scalars 0.6 sd": Change(scalars=_step(0.6)),
}
QUIET = Change()


class _Entity(NamedTuple):
    name: str
    lasting: Values
    activity: float


def stream(regime: Regime, seed: int, weeks: int, change: Change = QUIET, since: int = 0) -> list[Week]:
    """`change` begins with week `since`."""
    rng = np.random.default_rng([seed, 2026])
    born = 0

    def entity() -> _Entity:
        nonlocal born
        born += 1
        return _Entity(f"e{born}", rng.normal(size=_LATENTS), float(rng.lognormal()))

    known: list[_Entity] = []
    found = []
    for week in range(weeks):
        wanted = max(8, round(_ENTITIES * regime.volume(week)))
        stay = rng.permutation(len(known))[: min(wanted, round(len(known) * (1 - _REPLACED)))]
        known = [known[place] for place in sorted(stay.tolist())]
        known += [entity() for _ in range(wanted - len(known))]
        found.append(_week(regime, week, known, rng, change, since))
    return found


def _week(
    regime: Regime, week: int, known: list[_Entity], rng: np.random.Generator, change: Change, since: int
) -> Week:
    activity = np.array([each.activity for each in known])
    rows = len(known) * _A_WEEK / _ENTITIES
    sessions = rng.poisson(rows / _SESSION * activity / activity.sum())
    who, at, latent = [], [], []
    topics = rng.normal(size=(7, _LATENTS))
    for place, count in enumerate(sessions.tolist()):
        for start in _starts(regime, count, rng).tolist():
            n = int(rng.integers(1, 2 * _SESSION))
            own, times = _session(regime, known[place], n, start, rng, topics)
            who += [known[place].name] * len(times)
            at += times
            latent.append(own)
    if regime.burst and week == 5:
        one = known[int(rng.integers(len(known)))]
        own, times = _session(regime, one, regime.burst, 2.6 * DAY, rng, topics, apart=60.0)
        who += [one.name] * len(times)
        at += times
        latent.append(own)
    z, when = np.concatenate(latent), np.array(at)
    if regime.cycle:
        night = np.cos(2 * math.pi * when / DAY)[:, None]
        z = z + regime.cycle * (0.6 * night * _DIRECTIONS[0] + (when >= 5 * DAY)[:, None] * _DIRECTIONS[1])
    z[:, 0] += change.inputs(week - since)
    z[:, _RANK:] += change.scalars(week - since)
    order = np.argsort(when, kind="stable")
    z, when = z[order], when[order]
    inputs = z[:, :_RANK] @ _MIX + 0.3 * rng.normal(size=(len(z), _D)) * (0.1 if regime.repeats else 1.0)
    return Week(
        BEGIN + week * WEEK + when, [who[place] for place in order.tolist()], inputs.astype(np.float32),
        1 / (1 + np.exp(-1.5 - z[:, _RANK])), np.searchsorted(_QUANTILES, z[:, _RANK + 1]),
        np.round(np.exp(2.5 + 0.4 * z[:, _RANK + 2])),
    )  # fmt: skip


_DIRECTIONS = np.random.default_rng(1).normal(size=(2, _LATENTS))
_DIRECTIONS /= np.sqrt(np.square(_DIRECTIONS).mean(1, keepdims=True)) * 2
_QUANTILES = np.array([-0.253347, 0.524401, 1.281552, 2.053749])


def _starts(regime: Regime, count: int, rng: np.random.Generator) -> Values:
    """Seconds into the week; with a cycle fewer come at night and on week-ends."""
    at: Values = rng.random(4 * count) * WEEK
    if regime.cycle:
        busy = np.where(at >= 5 * DAY, 0.5, 1.0) * (1 - 0.6 * np.cos(2 * math.pi * at / DAY)) / 1.6
        kept = at[rng.random(len(at)) < busy]
        at = kept if len(kept) >= count else at
    return at[:count]


def _session(
    regime: Regime, one: _Entity, n: int, start: float, rng: np.random.Generator, topics: Values, apart: float = 300.0
) -> tuple[Values, list[float]]:
    times = np.minimum(start + np.cumsum(rng.exponential(apart, n)), WEEK - 1.0)
    days = (times // DAY).astype(int)
    own = rng.normal(size=(n, _LATENTS))
    rest = 1 - regime.lasting - regime.session - regime.daily
    z = (
        math.sqrt(regime.lasting) * one.lasting
        + math.sqrt(regime.session) * rng.normal(size=_LATENTS)
        + math.sqrt(regime.daily) * topics[days]
        + math.sqrt(rest) * own
    )
    if regime.repeats:
        copies = np.where(rng.random(n) < regime.repeats, rng.geometric(0.2, n), 0)
        z = np.repeat(z, 1 + copies, axis=0)
        times = np.minimum(np.repeat(times, 1 + copies) + rng.random(len(z)) * 120, WEEK - 1.0)
        z = z + 0.03 * rng.normal(size=z.shape)
    return z, times.tolist()
