"""Whether one model costs more than another: pure, from measurements with their doubt.

A cost decides only where it is known and matters. Known: of models that were measured by turns in one run the interval
of the ratio lies beyond 1.25, for what is common to a turn (other load, the clock's speed) cancels; of others the
intervals lie so far apart. Matters: the difference is more than 0.0001 USD per 1,000 answers, which is 7 ms of one core
an answer at the usual price. Two trainings of one recipe cost the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from speciate.evaluation.statistics import clustered_mean
from speciate.sample_size import LEVEL

DEARER = 1.25
"""A candidate counts as dearer only beyond this ratio ..."""
LEAST_USD = 0.0001
"""... and beyond this difference, in USD per 1,000 answers."""
_LIKE_SIZE = 1.5
"""Ratio of parameters up to which two trainings of a recipe gave the same kind of model: a search may have chosen
another one."""
LEAST_TURNS = 3
"""The fewest that give an interval."""

Interval = tuple[float, float]


class Costed(Protocol):
    """What a row of a report says of a model's cost."""

    @property
    def usd_per_1k(self) -> float | None: ...
    @property
    def usd_interval(self) -> Interval | None: ...
    @property
    def usd_turns(self) -> tuple[float, ...]: ...
    @property
    def recipe(self) -> str | None: ...
    @property
    def parameters(self) -> int | None: ...


class _Logs(NamedTuple):
    low: float
    high: float


def interval_of_turns(turns: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Interval of the typical cost: a t interval of the costs' logarithms over turns. None below three turns."""
    logs = _logs(turns, level)
    return None if logs is None else (float(np.exp(logs.low)), float(np.exp(logs.high)))


def ratio(candidate: Costed, baseline: Costed, level: float = LEVEL) -> Interval | None:
    """The interval of the candidate's cost over the baseline's; None where nothing tells.

    Of models that were measured by turns within turns, else from the ends of both intervals.
    """
    mine, theirs = candidate.usd_turns, baseline.usd_turns
    if len(mine) == len(theirs) >= LEAST_TURNS and min(theirs) > 0:
        return interval_of_turns([a / b for a, b in zip(mine, theirs, strict=True)], level)
    if candidate.usd_interval and baseline.usd_interval and baseline.usd_interval[0] > 0:
        (low, high), (least, most) = candidate.usd_interval, baseline.usd_interval
        return low / most, high / least
    return None


def is_dearer(candidate: Costed, baseline: Costed) -> bool:
    """Whether answers of the candidate cost more; also where either cost is unknown, to be careful."""
    if same_recipe(candidate, baseline):
        return False
    if candidate.usd_per_1k is None or baseline.usd_per_1k is None:
        return True
    if candidate.usd_per_1k - baseline.usd_per_1k <= LEAST_USD:
        return False
    known = ratio(candidate, baseline)
    return known[0] > DEARER if known else candidate.usd_per_1k > DEARER * baseline.usd_per_1k


def is_cheaper(candidate: Costed, baseline: Costed) -> bool:
    """Whether they surely cost less."""
    both_known = candidate.usd_per_1k is not None and baseline.usd_per_1k is not None
    return both_known and is_dearer(baseline, candidate)


def same_recipe(one: Costed, other: Costed) -> bool:
    """Whether both are trainings of one recipe that gave models of like size."""
    if one.recipe is None or one.recipe != other.recipe or not one.parameters or not other.parameters:
        return False
    return max(one.parameters, other.parameters) <= _LIKE_SIZE * min(one.parameters, other.parameters)


def _logs(values: Sequence[float], level: float) -> _Logs | None:
    array = np.asarray(values, float)
    if array.size < LEAST_TURNS or not (array > 0).all():
        return None
    found = clustered_mean(np.log(array), np.arange(array.size), level)
    return _Logs(found.low, found.high)
