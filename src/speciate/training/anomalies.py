"""Learners that know normal examples only: the nearest of them, their mean and covariance, and an isolation forest."""

from __future__ import annotations

from typing import Any

import numpy as np

from speciate.models.estimators import Estimator
from speciate.models.novelty import from_isolation, gaussian, nearest
from speciate.training.selection import Learner

_NEIGHBOURS, _TREES = 3, 200
_MOST_COLUMNS = 3000


def _near(inputs: Any, targets: Any, seed: int) -> Estimator:
    return nearest(inputs, _NEIGHBOURS)


def _around(inputs: Any, targets: Any, seed: int) -> Estimator:
    return gaussian(inputs)


def _isolated(inputs: Any, targets: Any, seed: int) -> Estimator:
    from sklearn.ensemble import IsolationForest

    return from_isolation(IsolationForest(n_estimators=_TREES, random_state=seed).fit(np.asarray(inputs)))


def _around_too_large(rows: int, columns: int, classes: int) -> str | None:
    """Its time grows with the cube of the columns."""
    return f"a covariance of {columns:,} columns would take minutes" if columns > _MOST_COLUMNS else None


SPARSE = (Learner("neighbours", _near),)
DENSE = (
    Learner("neighbours", _near),
    Learner("covariance", _around, _around_too_large),
    Learner("isolation", _isolated),
)
