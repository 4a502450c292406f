"""How much training rows count that arrived from production, beside those that were there before. Pure.

Where what production is asked has changed, a few rows of the new source lie among many of the old one, and a learner
that gives each row the same weight hardly moves. More weight for them (importance weighting: Shimodaira 2000) gains on
the new source and loses a little on the old one. How far one may go is found out of fold: the heaviest weight is taken
at which the others lose no more than a promotion may lose there, and arrived rows do not surely say that it is worse.
They are too few to say that it is better: of sixty rows the share of right answers is known to six points, about what
there is to gain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.use_cases import NOT_WORSE_MARGIN, NOT_WORSE_SHARE
from speciate.vocabulary import Metric

ARRIVED = "arrived"
"""The column in which episodes of a watch say when a row came (datasets/sources/answer_log.py)."""
_EPISODE = re.compile(r"episode-\d+")
FEWEST = 20
"""Rows of either kind that must be there to compare weights."""


class Weighed(NamedTuple):
    """What a learner with one weight makes of rows that it did not learn from."""

    weight: float
    losses: npt.NDArray[np.float64]
    """(A,), of arrived rows: log losses, or absolute errors."""
    arrived: float
    """The metric on arrived rows, and on the others; NaN: too few. Signed so that higher is better."""
    before: float


def has_arrived(example: Example) -> bool:
    """Whether an episode added it. A column of the user's own with this name says something else."""
    found = (example.columns.get(name) for name in (ARRIVED, f"log_{ARRIVED}"))
    return any(isinstance(each, str) and _EPISODE.fullmatch(each) for each in found)


def weights(examples: Sequence[Example], weight: float) -> npt.NDArray[np.float64]:
    """(N,): arrived rows count `weight` times as much as others. The mean is 1: penalties keep their meaning."""
    given = np.array([weight if has_arrived(each) else 1.0 for each in examples])
    scaled: npt.NDArray[np.float64] = given / given.mean()
    return scaled


def choose(tried: Sequence[Weighed], metric: Metric) -> float:
    """The heaviest weight that loses no more than the margin on other rows, and whose losses on arrived ones are not
    surely higher. What it is compared with is the weight nearest to 1, which stays where rows are too few.

    >>> from speciate.vocabulary import find_metric
    >>> alike = np.ones(30)
    >>> choose([Weighed(1, alike, 0.5, 0.9), Weighed(4, alike, 0.5, 0.89), Weighed(16, alike, 0.6, 0.8)],
    ...        find_metric("accuracy"))
    4
    """
    plain = min(tried, key=lambda each: abs(math.log(each.weight)))
    if len(plain.losses) < FEWEST or not math.isfinite(plain.before):
        return plain.weight
    margin = NOT_WORSE_MARGIN if metric.bounded else NOT_WORSE_SHARE * abs(plain.before)
    allowed = [
        each.weight
        for each in tried
        if each.before >= plain.before - margin - 1e-9 and not _is_worse(each.losses - plain.losses)
    ]
    return max(allowed)


def _is_worse(more: npt.NDArray[np.float64]) -> bool:
    """By two standard errors of these differences."""
    return bool(more.mean() > 2 * more.std() / math.sqrt(len(more)))


def report(rows: int, tried: Sequence[Weighed], chosen: float, sign: int) -> Mapping[str, object]:
    """As a training's report has it."""

    def shown(value: float) -> float | None:
        return round(sign * value, 6) if math.isfinite(value) else None

    return {
        "rows": rows, "chosen": chosen,
        "tried": [
            {"weight": each.weight, "arrived": shown(each.arrived), "before": shown(each.before)} for each in tried
        ],
    }  # fmt: skip
