"""What the detectors are compared with on the same streams: rows that are taken for independent, and river's detectors.

`by_rows` is the test that `monitor` had until entities were known: 600 rows of before and the window's are relabelled
by chance. river (ADWIN, KSWIN, Page-Hinkley; Montiel et al., JMLR 2021) sees one number a row, in order of time: each
scalar, and of embeddings the first three principal components of the first week, all standardised by that week.
"""

from __future__ import annotations

import numpy as np

from speciate.loop.drift.kernel_features import kernel_features, whiten
from speciate.loop.drift.permutation import Rows, Values, smoothed

TIMES, PATIENT = 499, 9_999


def by_rows(old: Rows, new: Rows, rng: np.random.Generator) -> float:
    """p-value of embeddings (M, D) and (N, D), by permutations of rows."""
    white = whiten(np.vstack([old, new]))
    return _permuted([white, kernel_features(white, rng)], len(old), rng)


def values_by_rows(old: Values, new: Values, rng: np.random.Generator) -> float:
    """p-value of scalars, by the largest gap of their distribution functions."""
    both = np.concatenate([old, new])
    n, m, order = len(new), len(old), np.argsort(both, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(both[order]) > 0, True))

    def measure(chosen: Rows) -> Values:
        passed = np.cumsum(chosen[:, order], axis=1, dtype=np.float64)[:, ends]
        return np.round(np.abs(passed / n - (ends + 1 - passed) / m).max(1), 9)

    values = measure(_relabelled(m, n, rng, TIMES))
    if not (values[1:] >= values[0]).any():
        values = np.concatenate([values, *(measure(_relabelled(m, n, rng, 500))[1:] for _ in range(19))])
    return smoothed(values, rng)


def labels_by_rows(old: Values, new: Values, rng: np.random.Generator) -> float:
    codes = np.concatenate([old, new]).astype(int)
    shares = np.maximum(np.bincount(codes) / len(codes), 1e-9)
    return _permuted([(np.eye(len(shares))[codes] / np.sqrt(shares)).astype(np.float32)], len(old), rng)


def _permuted(views: list[Rows], m: int, rng: np.random.Generator) -> float:
    n = len(views[0]) - m

    def measure(chosen: Rows) -> Values:
        return np.array([
            np.square(sums / n - (view.sum(0) - sums) / m).sum(1) for view in views for sums in [chosen @ view]
        ], np.float64)  # fmt: skip

    def largest(found: Values) -> Values:
        spread = np.maximum(found.std(1, keepdims=True), 1e-12)
        return np.round(((found - found.mean(1, keepdims=True)) / spread).max(0), 9)

    measured = measure(_relabelled(m, n, rng, TIMES))
    values = largest(measured)
    if not (values[1:] >= values[0]).any():
        further = [measure(_relabelled(m, n, rng, 500))[:, 1:] for _ in range(19)]
        values = largest(np.concatenate([measured, *further], axis=1))
    return smoothed(values, rng)


def _relabelled(m: int, n: int, rng: np.random.Generator, times: int) -> Rows:
    chosen = np.zeros((times + 1, m + n), np.float32)
    chosen[0, m:] = 1
    chosen[1:] = rng.permuted(np.tile(chosen[0], (times, 1)), axis=1)
    return chosen


def river_alarms(first: Values, rest: Values, weeks: Values, names: tuple[str, ...]) -> dict[str, int | None]:
    """Week of the first alarm of each detector: `first` (F,) are the first week's values, `rest` (N,) what came
    since."""
    from river import drift

    made = {
        "ADWIN": drift.ADWIN,
        "ADWIN, delta 1e-6": lambda: drift.ADWIN(delta=1e-6),
        "Page-Hinkley": drift.PageHinkley,
        "KSWIN, alpha 1e-4": lambda: drift.KSWIN(alpha=1e-4, seed=0),
    }
    centre, spread = float(first.mean()), float(first.std()) or 1.0
    found: dict[str, int | None] = {}
    for name in names:
        detector, found[name] = made[name](), None
        for value in ((first - centre) / spread).tolist():
            detector.update(value)
        for value, week in zip(((rest - centre) / spread).tolist(), weeks.tolist(), strict=True):
            detector.update(value)
            if detector.drift_detected:
                found[name] = int(week)
                break
    return found
