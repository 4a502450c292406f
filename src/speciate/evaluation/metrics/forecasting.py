"""Metrics of the steps to come, a series at a time; of several channels the mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from speciate.evaluation.metrics.answers import LARGEST, Answers, Statistic
from speciate.evaluation.statistics import Floats


def _mae(answers: Answers) -> Floats:
    return np.array([miss.mean() for miss in _misses(answers)])


def _mase(answers: Answers) -> Floats:
    """Errors in units of `naive`. Channels that never changed have no such unit; a series of them is not counted."""
    return np.array(
        [_scaled(miss, np.array(truth["naive"])) for miss, truth in zip(_misses(answers), answers.truth, strict=True)]
    )


def _rmse(answers: Answers) -> Statistic:
    parts = np.array([(np.square(miss).sum(), miss.size) for miss in _misses(answers)])
    return Statistic(parts, lambda sums: np.sqrt(sums[:, 0] / sums[:, 1]))


def _smape(answers: Answers) -> Floats:
    """Makridakis et al. (2020), as a share: 0 where both are 0, 2 without an answer."""
    pairs = zip(answers.truth, answers.given, strict=True)
    return np.array([_symmetric(np.array(truth["steps"], float), given) for truth, given in pairs])


def _symmetric(truth: Floats, answer: Any) -> float:
    steps = _steps(answer, truth)
    if steps is None:
        return 2.0
    size = np.abs(truth) + np.abs(steps)
    return float(np.divide(2 * np.abs(truth - steps), size, out=np.zeros_like(size), where=size > 0).mean())


def _scaled(miss: Floats, naive: Floats) -> float:
    changes = naive > 0
    return float((miss[changes].mean(1) / naive[changes]).mean()) if changes.any() else math.nan


def _misses(answers: Answers) -> list[Floats]:
    """(C, horizon) each. No answer, or one of another shape, lies at the far end of what is true anywhere."""
    truths = [np.array(truth["steps"], float) for truth in answers.truth]
    low, high = min(truth.min() for truth in truths), max(truth.max() for truth in truths)
    return [
        np.maximum(truth - low, high - truth) if steps is None else np.abs(steps - truth)
        for truth, steps in (
            (truth, _steps(answer, truth)) for truth, answer in zip(truths, answers.given, strict=True)
        )
    ]


def _steps(answer: Any, truth: Floats) -> Floats | None:
    try:
        steps = np.array(answer, float)
    except (TypeError, ValueError, OverflowError):
        return None
    if len(truth) == 1 and steps.ndim == 1:
        steps = steps[None, :]
    return steps if steps.shape == truth.shape and (np.abs(steps) <= LARGEST).all() else None


MEANS: dict[str, Callable[[Answers], Floats]] = {"forecast_mae": _mae, "mase": _mase, "smape": _smape}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"forecast_rmse": _rmse}
