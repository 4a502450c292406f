"""Two-sample tests: is the newest window drawn like what came before it, when rows of one unit resemble each other?

Each sums up what units contribute (`dependence`), and compares it with the sums under signs that are flipped by
chance. Ties are broken by chance ("smoothed", Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005,
section 2.2), so the p-value is on (0, 1] and no e-value made of it is weaker than it need be. A first look takes
`FLIPS`; where none of them reaches what is seen it takes more, up to `PATIENT`, which a quiet window does once in 500
times: what is surely another source then has a p-value that says so. Such a p-value is still valid (cf. Besag &
Clifford, Biometrika 1991).

All randomness comes from the generator that is passed in: the same seed gives the same p-value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from speciate.loop.drift.dependence import Codes, Units, contributions, shared_inflation
from speciate.loop.drift.permutation import Rows, ShiftTest, Values, smoothed

FLIPS, PATIENT = 499, (9_999, 99_999)
_BLOCK = 2_000
_THRESHOLDS = 32
_TINY = 1e-12


def largest_distance(views: Sequence[Rows], units: Units, rng: np.random.Generator, times: int = FLIPS) -> ShiftTest:
    """Whether the mean rows differ in any of several views (N, D) of the same rows. Of kernel features it is the
    (biased) MMD^2 of Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equation 5, of weighted votes.

    The largest counts, each in standard deviations of what flipped signs make of it; as all are flipped alike, it is
    one test. In the first view each feature is in units of its own spread.
    """
    parts = [contributions(np.asarray(view, np.float64), units) for view in views]
    widths = np.array(
        [[shared_inflation(np.asarray(view, np.float64), units, float(np.square(part).sum()))]
         for view, part in zip(views, parts, strict=True)]
    )  # fmt: skip
    parts[0] = parts[0] / np.maximum(np.sqrt(np.square(parts[0]).sum(0)), _TINY)

    def largest(lengths: Values) -> Values:
        """(V, R) squared lengths -> (R,)"""
        by_chance = lengths[:, 1:] * widths
        centre, spread = by_chance.mean(1, keepdims=True), by_chance.std(1, keepdims=True)
        centred = np.concatenate([lengths[:, :1], by_chance], axis=1) - centre
        found: Values = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
        rounded: Values = np.round(found.max(0), 9)
        return rounded

    def lengths(signs: Rows) -> Values:
        return np.array([np.square(signs @ part.astype(np.float32)).sum(1) for part in parts], np.float64)

    return _test(lengths, largest, len(parts[0]), rng, times)


def largest_gap(values: Values, units: Units, rng: np.random.Generator, times: int = FLIPS) -> ShiftTest:
    """Kolmogorov and Smirnov's largest distance of the two distribution functions of finite values (N,), at 32 of
    their quantiles."""
    some = np.unique(np.quantile(values, np.arange(1, _THRESHOLDS + 1) / (_THRESHOLDS + 1), method="inverted_cdf"))
    below = (values[:, None] <= some[some < values.max()]).astype(np.float64)
    if not below.shape[1]:
        return ShiftTest(0.0, 1.0 - float(rng.random()))
    parts = contributions(below, units)
    width = np.sqrt(shared_inflation(below, units, float(np.square(parts).sum())))

    def gaps(signs: Rows) -> Values:
        found: Values = np.abs(signs @ parts.astype(np.float32)).max(1).astype(np.float64)[None]
        return found

    return _test(gaps, lambda found: _widened(found[0], float(width)), len(parts), rng, times)


def share_distance(codes: Codes, units: Units, rng: np.random.Generator, times: int = FLIPS) -> ShiftTest:
    """Whether shares of labels, codes (N,) from 0 on, differ: their distance in units of what they vary by, as
    Pearson's chi-squared."""
    shares = np.maximum(np.bincount(codes) / len(codes), _TINY)
    rows = np.eye(len(shares))[codes] / np.sqrt(shares)
    parts = contributions(rows, units)
    width = shared_inflation(rows, units, float(np.square(parts).sum()))

    def lengths(signs: Rows) -> Values:
        found: Values = np.square(signs @ parts.astype(np.float32)).sum(1).astype(np.float64)[None]
        return found

    return _test(lengths, lambda found: _widened(found[0], width), len(parts), rng, times)


def _widened(values: Values, width: float) -> Values:
    """The first as it is, those by chance so many times larger."""
    found: Values = np.round(np.concatenate([values[:1], values[1:] * width]), 7)
    return found


def _test(
    measure: Callable[[Rows], Values], combine: Callable[[Values], Values], units: int, rng: np.random.Generator,
    times: int,
) -> ShiftTest:  # fmt: skip
    """`measure` of signs (R, U); `combine` makes of all together one value of each."""
    measured = measure(_signs(units, rng, times))
    values = combine(measured)
    for more in PATIENT if times == FLIPS else ():
        if (values[1:] >= values[0]).any():
            break
        blocks = range(math.ceil((more + 1 - measured.shape[1]) / _BLOCK))
        measured = np.concatenate([measured, *(measure(_signs(units, rng, _BLOCK)[1:]) for _ in blocks)], axis=1)
        values = combine(measured)
    return ShiftTest(float(values[0]), smoothed(values, rng))


def _signs(units: int, rng: np.random.Generator, times: int) -> Rows:
    """(times + 1, units): first as it is, then by chance."""
    found = np.ones((times + 1, units), np.float32)
    found[1:] = 2.0 * rng.integers(0, 2, (times, units), dtype=np.int8) - 1
    return found
