"""How far a judge agrees with people: Cohen's kappa, with squared distances as weights where grades have an order.

Of the verdicts on one model's answers; examples without a person's verdict are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.evaluation import statistics
from speciate.evaluation.statistics import Codes, Estimate, Floats


def kappa(mine: Sequence[int], theirs: Sequence[int], kinds: int, clusters: Codes, *, ordered: bool) -> Estimate:
    """`mine` and `theirs` (n,): codes below `kinds`. Cohen (1960), weighted as in Cohen (1968): scikit-learn's
    `cohen_kappa_score`, with a bootstrap over clusters. NaN where both give everything the same verdict.
    """
    table = np.zeros((len(mine), kinds * kinds))
    table[np.arange(len(mine)), np.asarray(mine) * kinds + np.asarray(theirs)] = 1.0
    codes = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    sums = np.zeros((int(codes.max()) + 1, kinds * kinds))
    np.add.at(sums, codes, table)
    grid = np.arange(kinds, dtype=float)
    costs = (grid[:, None] - grid) ** 2 if ordered else 1.0 - np.eye(kinds)

    def value(weights: Floats) -> Floats:
        counts = (weights @ sums).reshape(-1, kinds, kinds)
        chance = counts.sum(2)[:, :, None] * counts.sum(1)[:, None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            chance /= counts.sum((1, 2))[:, None, None]
            expected = (costs * chance).sum((1, 2))
            return np.where(expected > 0, 1 - (costs * counts).sum((1, 2)) / expected, math.nan)

    return statistics.bootstrap(statistics.resample(value, codes))._replace(n=len(mine))


def coded(cell: Any, verdicts: Sequence[str]) -> int | None:
    """Which of the verdicts a cell of a person's names; None: none of them.

    >>> coded(4.0, ("1", "2", "3", "4", "5")), coded("Yes", ("no", "yes")), coded("6", ("1", "2"))
    (3, 1, None)
    """
    if isinstance(cell, bool):
        cell = "yes" if cell else "no"
    said = str(cell).strip().casefold()
    if said.endswith(".0"):
        said = said[:-2]
    if tuple(verdicts) == ("no", "yes") and said in ("0", "1"):
        return int(said)
    known = [verdict.casefold() for verdict in verdicts]
    return known.index(said) if said in known else None
