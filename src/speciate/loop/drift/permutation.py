"""Two-sample permutation tests: is a window drawn like what came before it?

A p-value here is exact at any sample size. Under no change the rows of both samples are exchangeable, so the place of
the observed statistic among those of relabelled rows is uniform; ties are broken by chance ("smoothed", Vovk, Gammerman
& Shafer, Algorithmic Learning in a Random World, 2005, section 2.2), so it is uniform on (0, 1] and no e-value made of
it is weaker than it need be. Against a reference that grows with each window, the p-values of all windows are
independent of each other: given the rows of both together, which of them are the newest is chance.

A first look takes `PERMUTATIONS` relabellings. Where none of them reaches the observed statistic it goes on to
`PATIENT`, which a quiet window does once in 500 times: what is surely another source then has a p-value that says so,
and alarms after two windows and not three. Such a p-value is still valid: at most a is had with probability at most a,
below 1/500 as it is then that of all relabellings, and above as it is then at most that of the first (cf. Besag &
Clifford, Biometrika 1991).

All randomness comes from the generator that is passed in: the same seed gives the same p-value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

PERMUTATIONS, PATIENT = 499, 9_999
_LEAST_P = 1e-9
_MOST_32 = 1 << 30
"""Up to which a count of one sample times the size of both surely fits 32 bits."""
Measured = Values
"""(features, relabellings): what a statistic is made of."""


class ShiftTest(NamedTuple):
    statistic: float
    p: float


def mean_distance(reference: Rows, window: Rows, rng: np.random.Generator, times: int = PERMUTATIONS) -> ShiftTest:
    """Squared distance of the mean rows of (M, D) and (N, D). Of kernel features it is the (biased) MMD^2 of Gretton et
    al., A Kernel Two-Sample Test, JMLR 2012, equation 5; of one-hot labels that of their shares."""
    both, n, m = np.vstack([reference, window]), len(window), len(reference)

    def measure(chosen: Rows) -> Measured:
        return _distances(both, chosen, m, n)[None]

    return _test(measure, _first, m, n, rng, times)


def largest_distance(
    views: Sequence[tuple[Rows, Rows]], rng: np.random.Generator, times: int = PERMUTATIONS
) -> ShiftTest:
    """As `mean_distance`, of several features of the same rows: (M, D), (N, D) each. The largest distance counts,
    each in standard deviations of what relabelling makes of it; as all are relabelled alike, it is one exact test."""
    n, m = len(views[0][1]), len(views[0][0])
    stacked = [np.vstack(view) for view in views]

    def measure(chosen: Rows) -> Measured:
        return np.array([_distances(both, chosen, m, n) for both in stacked])

    def largest(measured: Measured) -> Values:
        spread = measured.std(1, keepdims=True)
        centred = measured - measured.mean(1, keepdims=True)
        found: Values = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
        rounded: Values = np.round(np.max(found, axis=0), 9)
        return rounded

    return _test(measure, largest, m, n, rng, times)


def largest_gap(reference: Values, window: Values, rng: np.random.Generator, times: int = PERMUTATIONS) -> ShiftTest:
    """Kolmogorov and Smirnov's largest distance of the two distribution functions of (M,) and (N,) finite values.

    By permutation and not by its limit distribution, which is wrong for few values and for values with ties.
    """
    both, n, m = np.concatenate([reference, window]), len(window), len(reference)
    order = np.argsort(both, kind="stable")
    ends = np.append(np.diff(both[order]) > 0, True)  # only behind the last of equal values
    passed = np.flatnonzero(ends) + 1

    def measure(chosen: Rows) -> Measured:
        """Largest gap (1, R) of each permutation, by counts: equal gaps are equal numbers, and it takes a third of the
        time of shares."""
        counts: npt.DTypeLike = np.int64 if n * (m + n) > _MOST_32 else np.int32
        gaps: npt.NDArray[np.int64] = np.cumsum(chosen.astype(np.uint8)[:, order], axis=1, dtype=counts)
        gaps = gaps if ends.all() else gaps[:, ends]
        gaps *= m + n
        gaps -= (passed * n).astype(gaps.dtype)
        largest: Values = np.abs(gaps, out=gaps).max(1) / (n * m)
        return largest[None]

    return _test(measure, _first, m, n, rng, times)


def higher_rank(reference: Values, window: Values, rng: np.random.Generator, times: int = PERMUTATIONS) -> ShiftTest:
    """Whether the window's values are larger: by the mean rank (Wilcoxon 1945), one-sided, whatever the tails.

    The statistic is the share of pairs in which the window's value is the larger one; ties count half.
    """
    both, n, m = np.concatenate([reference, window]), len(window), len(reference)
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    def measure(chosen: Rows) -> Measured:
        sums = chosen.astype(np.float64) @ ranks
        shares: Values = np.round((sums - n * (n + 1) / 2) / (n * m), 12)
        return shares[None]

    return _test(measure, _first, m, n, rng, times)


def _test(
    measure: Callable[[Rows], Measured], combine: Callable[[Measured], Values], m: int, n: int,
    rng: np.random.Generator, times: int,
) -> ShiftTest:  # fmt: skip
    """`measure` of relabellings, as `_relabelled` has them; `combine` makes of all together one value of each."""
    measured = measure(_relabelled(m, n, rng, times))
    values = combine(measured)
    if times == PERMUTATIONS and m and n and not (values[1:] >= values[0]).any():
        further = [measure(_relabelled(m, n, rng, 500)[1:]) for _ in range((PATIENT - PERMUTATIONS) // 500)]
        values = combine(np.concatenate([measured, *further], axis=1))
    return ShiftTest(float(values[0]), _smoothed(values, rng))


def _first(measured: Measured) -> Values:
    found: Values = measured[0]
    return found


def _distances(both: Rows, chosen: Rows, m: int, n: int) -> Values:
    sums = chosen @ both
    return np.asarray(np.square(sums / n - (both.sum(0) - sums) / m).sum(1), np.float64)


def _relabelled(m: int, n: int, rng: np.random.Generator, times: int) -> Rows:
    """(times + 1, m + n): 1 where a row counts as the window's; first as it is, then n rows by chance."""
    chosen = np.zeros((times + 1, m + n), np.float32)
    chosen[0, m:] = 1
    if m and n:
        drawn = rng.random((times, m + n), np.float32)
        chosen[1:] = drawn <= np.partition(drawn, n - 1, axis=1)[:, n - 1 : n]
        for row in 1 + np.flatnonzero(chosen[1:].sum(1) > n):  # equal numbers at the edge: rare
            chosen[row] = 0
            chosen[row, np.argpartition(drawn[row - 1], n - 1)[:n]] = 1
    return chosen


def _smoothed(values: Values, rng: np.random.Generator) -> float:
    """The share of values at least as large as the first, ties broken by chance."""
    larger, equal = int((values[1:] > values[0]).sum()), int((values[1:] == values[0]).sum())
    return max(_LEAST_P, float((larger + rng.random() * (1 + equal)) / len(values)))
