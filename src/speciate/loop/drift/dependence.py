"""How answers hang together, and how far two samples of them then differ by chance.

Answers of one person, one session, one day resemble each other. A test that takes them for independent alarms on who
happened to ask. Here the unit is the **entity** (who or what asks). Its answers may resemble each other however they
like; two entities are drawn independently of each other. Answers without an entity are taken together by the hour.

Each unit has one vote a window: the mean of its rows, weighted by its precision. What counts is how far the vote is
from **what was to be expected of that unit before**: mu + k (own past mean - mu), where k is the best linear
prediction in a model with a variance between units, between the windows of a unit, and within a window (Henderson,
Biometrics 1975; Robinson, Statistical Science 1991; the variances by products of pairs, feature by feature). Of a
unit that was never seen k is 0: it is compared with all others. Of one that is well known k nears 1: it is compared
with itself. Such a residual is uncorrelated with the unit's past, so that successive looks do not count one chance
twice, and the e-values of `evidence` mean what they say. Comparing windows as wholes has that property only for
independent rows: a group of new people that stays differs by the same chance every week.

`contributions` splits the difference D into a sum over units. While nothing has changed each summand has expectation
0 and they are independent, so flipping their signs by chance shows how large D may be (wild cluster bootstrap with
Rademacher weights, Cameron, Gelbach & Miller, Review of Economics and Statistics 2008; sign-flipped scores, Hemerik,
Goeman & Finos, JRSS B 2020). That is exact for symmetric summands and else holds for many units. One unit can never
be significant by itself, however much it asked.

What all units share for a day or a week (news, an outage elsewhere) is no shift either, if the history has it:
`shared_inflation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.loop.drift.permutation import Values

Codes = npt.NDArray[np.int64]
LEAST_UNITS = 8
"""Entities in a window and before it, below which their answers are taken by the hour: 2^-7 is the least p-value of
eight."""
NAMED = 0.8
"""Share of answers that name an entity, from which on the bound on false alarms is promised."""
_DAY, _FAR = 86_400.0, 1e15
_BLOCKS, _LEAST_BLOCKS = (3_600.0, 60.0), 20
"""Seconds that are one unit where nobody says who asks: the longest that gives so many in the newest window; what
comes in one batch is taken row by row."""
_PRIOR_PAIRS = 100.0
_MOST = 0.95
_TINY = 1e-12
_LEAST_NEIGHBOURS, _MOST_NEIGHBOURS = 3, 12


class Units(NamedTuple):
    """How N rows hang together."""

    unit: Codes
    """(N,)"""
    period: Codes
    """(N,) Number of the window of each; the largest is the newest."""
    day: Codes
    """(N,) Days since the epoch."""
    keyed: bool
    """Whether units are entities."""

    def take(self, rows: npt.NDArray[np.bool_]) -> Units:
        return Units(self.unit[rows], self.period[rows], self.day[rows], self.keyed)


class Promise(NamedTuple):
    """Whether the bound on false alarms holds for such answers."""

    kept: bool
    because: str


def units_of(entity: Sequence[str], at: Values, period: Codes) -> Units:
    """The units of answers, at least one in the newest window. `entity`: '' where none was said. `at`: seconds since
    the epoch; a clock that jumps costs nothing but the day, as windows are told by `period`."""
    names = np.asarray(entity, dtype=np.str_)
    keyed = _usable(names, period) is None
    unit = np.arange(len(at))
    for seconds in _BLOCKS:
        by_time = np.where(np.isfinite(at), _clock(at, seconds), -1 - unit)
        block = _code(period, by_time)
        if len(np.unique(block[period == period.max()])) >= _LEAST_BLOCKS or keyed:
            unit = block
            break
    if keyed:
        _, by_name = np.unique(names, return_inverse=True)
        unit = np.where(names == "", unit, len(at) + by_name.ravel())
    return Units(unit, period, _clock(at, _DAY), keyed)


def promise(entity: Sequence[str], at: Values, period: Codes) -> Promise:
    """What can be promised of answers in which the newest window is `period.max()`, in a sentence for people."""
    names = np.asarray(entity, dtype=np.str_)
    named = float((names != "").mean()) if len(names) else 0.0
    reason = _usable(names, period)
    if reason is None and named >= NAMED:
        count = len(np.unique(names[(names != "") & (period == period.max())]))
        return Promise(True, f"{count} entities asked; each has one vote, and is compared with what it asked before")
    if reason is None:
        reason = f"{100 * (1 - named):.0f} % of the answers name no entity"
    told = (
        "answers are taken together by the hour, and the bound on false alarms does not hold where the same people ask"
    )
    return Promise(False, f"{reason}: {told} at several hours. Pass entity= to predict")


def _usable(names: npt.NDArray[np.str_], period: Codes) -> str | None:
    """Why entities cannot be the units; None: they can."""
    if not len(names) or not (names != "").any():
        return "no answer names an entity"
    newest = period == period.max()
    now, before = (np.unique(names[side & (names != "")]) for side in (newest, ~newest))
    least = min(len(now), len(before))
    if least < LEAST_UNITS:
        return f"{least} {'entity is' if least == 1 else 'entities are'} too few to compare ({LEAST_UNITS} are needed)"
    said = names[names != ""]
    if len(np.unique(said)) > 0.98 * len(said):
        return "nearly every answer names another entity, as a key of requests would"
    return None


def _clock(at: Values, seconds: float) -> Codes:
    return np.floor(np.nan_to_num(np.clip(at, -_FAR, _FAR)) / seconds).astype(np.int64)


class _Cells(NamedTuple):
    """C cells: the rows of one unit in one window."""

    of: Codes
    """(N,) Cell of each row."""
    unit: Codes
    """(C,) As small numbers."""
    new: npt.NDArray[np.bool_]
    n: Values


def _cells(units: Units) -> _Cells:
    _, unit = np.unique(units.unit, return_inverse=True)
    _, period = np.unique(units.period, return_inverse=True)
    periods = int(period.max()) + 1
    keys, of = np.unique(unit * periods + period, return_inverse=True)
    return _Cells(of, keys // periods, keys % periods == periods - 1, np.bincount(of).astype(np.float64))


def _sum(values: Values, by: Codes, size: int) -> Values:
    """(size, F): sums of rows of `values` (N, F) with the same code. Many times faster than `np.add.at`."""
    order = np.argsort(by, kind="stable")
    edges = np.flatnonzero(np.append(True, np.diff(by[order]) > 0))
    found = np.zeros((size, values.shape[1]))
    found[by[order][edges]] = np.add.reduceat(values[order], edges, axis=0)
    return found


def by_side(features: Values, units: Units) -> Values:
    """(N, F), less the mean of its side: a shift is then no variance."""
    found = features.astype(np.float64)
    new = units.period == units.period.max()
    for side in (new, ~new):
        if side.any():
            found[side] -= found[side].mean(0)
    return found


class _Variances(NamedTuple):
    """(F,) each: between units, between the windows of a unit, and within a window of a unit."""

    unit: Values
    cell: Values
    row: Values


def _variances(x: Values, cells: _Cells) -> _Variances:
    """By the mean product of pairs: of rows of a cell, and of cells of a unit. `x` (N, F) is centred by side."""
    total = np.maximum(np.square(x).mean(0), _TINY)
    sums, squares = _sum(x, cells.of, len(cells.n)), _sum(np.square(x), cells.of, len(cells.n))
    mean = sums / cells.n[:, None]
    in_cell = _shared_part((np.square(sums) - squares) / cells.n[:, None], cells.n, total)
    windows = np.bincount(cells.unit).astype(np.float64)
    sums, squares = _sum(mean, cells.unit, len(windows)), _sum(np.square(mean), cells.unit, len(windows))
    in_unit = _shared_part((np.square(sums) - squares) / windows[:, None], windows, total)
    unit = np.minimum(in_unit, _MOST)
    cell = np.clip(in_cell - unit, 0.0, _MOST + 0.02 - unit)
    return _Variances(total * unit, total * cell, total * (1 - unit - cell))


def _shared_part(products: Values, n: Values, total: Values) -> Values:
    """(F,) Share of the variance that members of a group have in common. `products` (G, F) are their mean products by
    n - 1. Few pairs say little of one feature: towards that of all."""
    pairs = float((n - 1).sum())
    if not pairs:
        return np.zeros_like(total)
    shares = products.sum(0) / pairs / total
    common = float((shares * total).sum() / total.sum())
    weight = pairs / (pairs + _PRIOR_PAIRS)
    found: Values = np.clip(weight * shares + (1 - weight) * common, 0.0, _MOST)
    return found


def contributions(features: Values, units: Units) -> Values:
    """(U, F): what each of U units adds to the difference of the newest window of `features` (N, F) from what was to be
    expected by those before. Rows of both are there."""
    cells = _cells(units)
    x = features - features.mean(0, dtype=np.float64)
    parts = _variances(by_side(features, units), cells)
    mean = _sum(x, cells.of, len(cells.n)) / cells.n[:, None]
    noise = parts.cell + parts.row / cells.n[:, None]  # (C, F) of a cell's mean, around its unit's
    count, old, new = int(cells.unit.max()) + 1, ~cells.new, cells.new
    precision = _sum(1 / noise[old], cells.unit[old], count)
    known = precision[:, :1] > 0
    precision = np.where(known, precision, 1.0)
    before = _sum(mean[old] / noise[old], cells.unit[old], count) / precision
    now = np.zeros_like(before)
    now[cells.unit[new]] = mean[new]
    trust = np.where(known, parts.unit / (parts.unit + 1 / precision), 0.0)
    weight = np.zeros_like(before)
    weight[cells.unit[new]] = 1 / (parts.unit * (1 - trust[cells.unit[new]]) + noise[new])
    base = np.where(known, 1 / (parts.unit + 1 / precision), 0.0)
    rest, residual = 1 - trust, now - trust * before
    # D does not depend on the level; the size of its summands does, so it is estimated from both sides (generalised
    # least squares), as it is while nothing has changed.
    level = ((base * before).sum(0) + (weight * rest * residual).sum(0)) / (
        base.sum(0) + (weight * np.square(rest)).sum(0)
    )
    weight, base = weight / weight.sum(0), base / base.sum(0)
    unseen = (weight * rest).sum(0)
    found: Values = weight * (residual - rest * level) - unseen * base * (before - level)
    return found


def shared_inflation(features: Values, units: Units, variance: float) -> float:
    """By how much more the squared length of D varies than by its units alone, for what all units share on one day or
    in one week by the history: at least 1. `variance`: the squared length that units alone give.

    What a day has in common: products of rows of different units on one day, less those on the same weekday of the
    next week, so that a weekly cycle is none of it. Of all neighbouring weeks the median counts, so that a change
    that the evidence is about to find does not hide itself. With entities only what is more than a standard error
    counts; without, suspicion is enough: entities that nobody named look like this.
    """
    x = by_side(features, units)
    noise = 2 * float(np.square(x.T @ x / len(x)).sum()) if units.keyed else 0.0  # 2 tr(S^2): of a mean product
    found = _neighbours(x, units)
    new = units.period == units.period.max()
    share = _surely(found.daily, found.near, found.far, noise) * sum(
        _concentration(units.day[side] % 7) for side in (new, ~new)
    )
    past = found.weekly[:-1]  # neighbours of the newest window would count the change that is looked for
    if len(past) >= _LEAST_NEIGHBOURS:
        weekly = _surely(past, found.near[:-1], found.far[:-1], noise)
        share += weekly * (1.0 + _concentration(units.period[~new]))
    return 1.0 + share / max(variance, _TINY)


class _Neighbours(NamedTuple):
    """(J,) each, of windows that follow each other; the last are the newest and the one before."""

    daily: Values
    """Mean product that rows of different units have in common for a day of one week."""
    weekly: Values
    """And for a week."""
    near: Values
    """Pairs within a week."""
    far: Values


def _neighbours(x: Values, units: Units) -> _Neighbours:
    """A unit has one vote a weekday and window: its mean row."""
    _, period = np.unique(units.period, return_inverse=True)
    keep = period >= period.max() - _MOST_NEIGHBOURS
    period = period[keep] - period[keep].min()
    _, unit = np.unique(units.unit[keep], return_inverse=True)
    windows = int(period.max()) + 1
    keys, of = np.unique((unit * 7 + units.day[keep] % 7) * windows + period, return_inverse=True)
    mean = _sum(x[keep], of, len(keys)) / np.bincount(of)[:, None]
    window, weekday, one = keys % windows, keys // windows % 7, keys // windows // 7
    of_days = _sum(mean, window * 7 + weekday, windows * 7)  # (windows * 7, F)
    n_days = np.bincount(window * 7 + weekday, minlength=windows * 7).astype(np.float64)
    held, where = np.unique(one * windows + window, return_inverse=True)
    of_units, n_units = _sum(mean, where, len(held)), np.bincount(where).astype(np.float64)
    votes = _Agreeing(mean, np.ones(len(keys)), keys // windows, window)
    day = _Agreeing(of_days, n_days, np.tile(np.arange(7), windows), np.repeat(np.arange(windows), 7))
    whole = _Agreeing(of_days.reshape(windows, 7, -1).sum(1), n_days.reshape(windows, 7).sum(1),
                      np.zeros(windows, np.int64), np.arange(windows))  # fmt: skip
    person = _Agreeing(of_units, n_units, held // windows, held % windows)
    own = votes.within(windows)
    same_day = day.within(windows) - own
    other_day = whole.within(windows) - day.within(windows) - person.within(windows) + own
    phase = day.across(windows) - votes.across(windows)
    rest = whole.across(windows) - person.across(windows) - phase
    near_day, near = _both(same_day), _both(other_day)
    weekly = _mean(near) - _mean(rest)
    told = (near[1] > 0) & (rest[1] > 0)  # else what a day and what a week have in common are one
    daily = np.where(told, _mean(near_day) - _mean(phase) - weekly, 0.0)
    return _Neighbours(daily, weekly, near[1], rest[1])


class _Agreeing(NamedTuple):
    """Sums over votes of a kind in each window: how many and what of."""

    sums: Values
    n: Values
    kind: Codes
    window: Codes

    def within(self, windows: int) -> Values:
        """(2, windows): products, and number, of ordered pairs of one kind in each window."""
        return np.stack([
            np.bincount(self.window, weights, minlength=windows)
            for weights in (np.square(self.sums).sum(1), np.square(self.n))
        ])  # fmt: skip

    def across(self, windows: int) -> Values:
        """(2, windows - 1): of pairs of one kind in a window and the next."""
        order = np.lexsort((self.window, self.kind))
        first, second = order[:-1], order[1:]
        match = (self.kind[first] == self.kind[second]) & (self.window[second] == self.window[first] + 1)
        first, second = first[match], second[match]
        products = (self.sums[first] * self.sums[second]).sum(1)
        return np.stack([
            np.bincount(self.window[first], weights, minlength=windows - 1)
            for weights in (products, self.n[first] * self.n[second])
        ])  # fmt: skip


def _both(found: Values) -> Values:
    """(2, windows) -> (2, windows - 1): of each window and the next together."""
    both: Values = found[:, :-1] + found[:, 1:]
    return both


def _mean(found: Values) -> Values:
    mean: Values = np.divide(found[0], found[1], out=np.zeros_like(found[0]), where=found[1] > 0)
    return mean


def _surely(found: Values, near: Values, far: Values, noise: float) -> float:
    """The median of `found`, less its standard error; 0 at least."""
    if not len(found) or not near.sum() or not far.sum():
        return 0.0
    error = math.sqrt(noise * (1 / float(near.sum()) + 1 / float(far.sum())))
    return max(0.0, float(np.median(found)) - error)


def _concentration(codes: Codes) -> float:
    """Sum of squared shares."""
    return float(np.square(np.unique(codes, return_counts=True)[1] / max(1, len(codes))).sum())


def _code(first: Codes, second: Codes) -> Codes:
    """One small number for each pair."""
    _, low = np.unique(second, return_inverse=True)
    _, found = np.unique(first * (int(low.max()) + 1) + low, return_inverse=True)
    small: Codes = found.astype(np.int64)
    return small
