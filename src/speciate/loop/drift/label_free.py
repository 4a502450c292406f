"""How good production is, estimated without labels or with few: shown to people, never a reason to act or not to act.

On a real shift (digits of another source) every estimate of this kind stayed optimistic by most of the loss; fifty
labels of random answers settled it. `prediction_powered` mends an estimate by such labels and is unbiased whatever the
estimate is worth; it is narrower than the labels alone only where the estimate is sane.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
_Z = 1.959964
_LEAST_LABELS = 10


class Calibration(NamedTuple):
    """A step function from confidence to the share of right answers. Steps are ascending in both."""

    confidence: Values
    """(K,) where each step begins."""
    right: Values
    """(K,)"""

    def __call__(self, confidence: Values) -> Values:
        """(N,) -> (N,)"""
        places = np.clip(np.searchsorted(self.confidence, confidence, "right") - 1, 0, len(self.right) - 1)
        found: Values = self.right[places]
        return found


def calibrate(confidence: Values, right: Values) -> Calibration:
    """(N,) confidences and 0/1 of labelled answers, N >= 1: isotonic regression by pooling adjacent violators (Barlow
    et al. 1972; for calibration Zadrozny & Elkan, KDD 2002)."""
    order = np.argsort(confidence, kind="stable")
    starts, first = np.unique(confidence[order], return_index=True)
    sums = np.add.reduceat(right[order].astype(np.float64), first)
    counts = np.diff(np.append(first, len(order))).astype(np.float64)
    blocks: list[list[float]] = []  # begin, sum, count
    for begin, total, count in zip(starts.tolist(), sums.tolist(), counts.tolist(), strict=True):
        blocks.append([begin, total, count])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            _, more, others = blocks.pop()
            blocks[-1][1] += more
            blocks[-1][2] += others
    return Calibration(np.array([b for b, _, _ in blocks]), np.array([s / c for _, s, c in blocks]))


class Estimated(NamedTuple):
    value: float
    low: float | None
    high: float | None
    """Upper bound of the 95 % interval; both bounds are None where the estimate rests on no labels."""
    labels: int


def confidence_based(expected: Values) -> Estimated:
    """The mean of calibrated confidences (N,): CBPE, as NannyML calls it. It assumes that no input is of a kind that
    the calibration had not: after a shift it says what confidence says, which is too much."""
    return Estimated(float(expected.mean()), None, None, 0)


def prediction_powered(expected: Values, labelled: Values, right: Values) -> Estimated | None:
    """Mean correctness of the answers, estimated from what is expected of them (N,) and corrected by labels. `labelled`
    (L,): the expectations of those answers that were drawn at random and labelled. `right` (L,): what their labels
    said, between 0 and 1. None below ten labels.

    mean(expected) + mean(right - labelled), with the normal interval of Angelopoulos et al., Prediction-Powered
    Inference, Science 2023, section "mean estimation".
    """
    if len(right) < _LEAST_LABELS or not len(expected):
        return None
    rest = right - labelled
    value = float(expected.mean() + rest.mean())
    half = _Z * math.sqrt(float(expected.var()) / len(expected) + float(rest.var(ddof=1)) / len(rest))
    return Estimated(value, max(0.0, value - half), min(1.0, value + half), len(right))
