"""A rank test of independent values by permutation, and what all tests of a shift share.

A p-value here is exact at any sample size: while nothing has changed, the place of the observed statistic among those
of relabelled values is uniform; ties are broken by chance. Values must be independent: labels of answers that were
drawn at random nearly are. Whatever may hang together is compared by `shift_tests`.

All randomness comes from the generator that is passed in: the same seed gives the same p-value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

PERMUTATIONS, PATIENT = 499, 9_999
_LEAST_P = 1e-9


class ShiftTest(NamedTuple):
    statistic: float
    p: float


def higher_rank(reference: Values, window: Values, rng: np.random.Generator, times: int = PERMUTATIONS) -> ShiftTest:
    """Whether the window's values are larger: by the mean rank (Wilcoxon 1945), one-sided, whatever the tails. Where
    none of `PERMUTATIONS` reaches what is seen, `PATIENT` are taken.

    The statistic is the share of pairs in which the window's value is the larger one; ties count half.
    """
    both, n, m = np.concatenate([reference, window]), len(window), len(reference)
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    def shares(sums: Values) -> Values:
        found: Values = np.round((sums - n * (n + 1) / 2) / (n * m), 12)
        return found

    def drawn(count: int) -> Values:
        found: Values = rng.permuted(np.tile(ranks, (count, 1)), axis=1)[:, m:].sum(1)
        return found

    values = shares(np.append(ranks[m:].sum(), drawn(times)))
    if times == PERMUTATIONS and not (values[1:] >= values[0]).any():
        values = np.append(values, shares(np.concatenate([drawn(500) for _ in range((PATIENT - times) // 500)])))
    return ShiftTest(float(values[0]), smoothed(values, rng))


def smoothed(values: Values, rng: np.random.Generator) -> float:
    """The share of values at least as large as the first, ties broken by chance."""
    larger, equal = int((values[1:] > values[0]).sum()), int((values[1:] == values[0]).sum())
    return max(_LEAST_P, float((larger + rng.random() * (1 + equal)) / len(values)))
