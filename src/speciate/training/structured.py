"""Learners for tasks with more than a label or a number, made of those that tell yes from no.

Each returns plain arrays like any other (models/estimators.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.estimators import Estimator
from speciate.models.identity import Identity
from speciate.models.linear import Linear
from speciate.models.units import PerUnit, UnitRows

Learn = Callable[[Any, Any, int], Any]
"""`learn(inputs, targets, seed)`; of yes and no: targets (N,) of 0 and 1, a Linear of one row."""
_SURE = 10.0
"""Log-odds of an answer that never was another one."""
_SHARPEST = 100.0


def one_versus_rest(learn: Learn) -> Learn:
    """Targets (N, K) of 0 and 1 -> Linear (K, D)."""

    def learn_each(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        columns = targets.T.astype(np.int64)
        rows = [_yes_or_no(learn, inputs, column, seed) for column in columns]
        return Linear(np.concatenate([row.weight for row in rows]), np.concatenate([row.bias for row in rows]))

    return learn_each


def cumulative(learn: Learn, labels: int) -> Learn:
    """Ranks (N,) -> Linear (K - 1, D): for each but the last of K `labels`, whether it lies higher (Frank & Hall
    2001)."""

    def learn_bounds(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        above: Linear = one_versus_rest(learn)(inputs, targets[:, None] > np.arange(labels - 1), seed)
        return above

    return learn_bounds


def bounds_on_a_line(line: Learn, logistic: Callable[[float], Learn], labels: int) -> Learn:
    """Ranks (N,) as one number, then where on it each of K - 1 bounds lies -> Linear (K - 1, D)."""

    def learn(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        fitted: Linear = line(inputs, targets.astype(np.float64), seed)
        bounds = cumulative(logistic(_SHARPEST), labels)(fitted.scores(inputs), targets, seed)
        return Linear(bounds.weight @ fitted.weight, bounds.weight @ fitted.bias + bounds.bias)

    return learn


def per_unit(learn: Learn, labels: int) -> Learn:
    """Codes of tags, (units,) for each example -> PerUnit (K, D). Tags that are not known, -1, are not learned from."""

    def learn_units(inputs: UnitRows, targets: Sequence[npt.NDArray[Any]], seed: int) -> PerUnit:
        codes = np.concatenate(list(targets))
        known = np.flatnonzero(codes >= 0)
        made = one_versus_rest(learn)(inputs.matrix[known], codes[known, None] == np.arange(labels), seed)
        return PerUnit(made.weight.astype(np.float32), made.bias)

    return learn_units


def as_they_are(inputs: Any, targets: Any, seed: int) -> Estimator:
    return Identity(np.asarray(inputs.shape[1]))


def discriminant(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    """The axes along which labels differ most beside what varies within them (Fisher 1936; Rao 1948), K - 1 at most.

    The covariance within labels is shrunk (Ledoit & Wolf 2004), so that there may be fewer examples than columns.
    """
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf

    rows = np.asarray(inputs, np.float64)
    centre = rows.mean(axis=0)
    codes = np.unique(targets, return_inverse=True)[1]
    counts = np.bincount(codes)
    means = np.stack([np.bincount(codes, weights=column) for column in rows.T], axis=1) / counts[:, None]
    within = ledoit_wolf(rows - means[codes], assume_centered=True)[0]
    within += np.eye(len(within)) * (1e-6 * rows.var() or 1.0)  # where no label has two examples
    spread = (means - centre) * np.sqrt(counts / len(rows))[:, None]
    kept = min(len(counts) - 1, rows.shape[1])
    axes = eigh(spread.T @ spread, within)[1][:, ::-1][:, :kept]
    return Linear(np.ascontiguousarray(axes.T), -centre @ axes)


def _yes_or_no(learn: Learn, inputs: Any, column: npt.NDArray[np.int64], seed: int) -> Linear:
    """Where all answers are one, there is nothing to learn."""
    if column.min() == column.max():
        return Linear(np.zeros((1, inputs.shape[1])), np.array([_SURE if column[0] else -_SURE]))
    learned: Linear = learn(inputs, column, seed)
    return learned
