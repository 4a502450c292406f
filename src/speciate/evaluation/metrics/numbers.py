"""Metrics of numbers: one per example, the steps of a forecast, the actions of an episode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from speciate.evaluation.metrics.metric import LARGEST, Answers, Statistic
from speciate.evaluation.statistics import Codes, Floats
from speciate.tasks.families.control import ACTIONS, ENVIRONMENT, METRIC, ROLLOUT, SUCCESS

_FLAT = 1e-12


def _mae(answers: Answers) -> Floats:
    misses: Floats = np.abs(_filled_numbers(answers) - answers.references.astype(float))
    return misses


def _rmse(answers: Answers) -> Statistic:
    error = _filled_numbers(answers) - answers.references.astype(float)
    return Statistic(np.stack([np.ones_like(error), error**2], 1), lambda sums: np.sqrt(sums[:, 1] / sums[:, 0]))


def _r2(answers: Answers) -> Statistic:
    reference = answers.references.astype(float)
    truth_centred = reference - reference.mean()  # for the precision of the sums of squares
    error = _filled_numbers(answers) - reference
    parts = np.stack([np.ones_like(error), error**2, truth_centred, truth_centred**2], axis=1)

    def combine(sums: Floats) -> Floats:
        spread = sums[:, 3] - np.square(sums[:, 2]) / sums[:, 0]
        return np.where(spread > 0, 1 - sums[:, 1] / spread, math.nan)

    return Statistic(parts, combine)


def _pearson(answers: Answers) -> Statistic:
    """0 where the answers are all the same; undefined where the references are."""
    reference, given = answers.references.astype(float), _filled_numbers(answers)
    x, y = reference - reference.mean(), given - given.mean()
    parts = np.stack([np.ones_like(x), x, y, x**2, y**2, x * y], axis=1)
    return Statistic(parts, lambda sums: _correlation(*sums.T))


def _correlation(n: Floats, x: Floats, y: Floats, xx: Floats, yy: Floats, xy: Floats) -> Floats:
    """Correlation from sums. What is left of equal numbers by rounding is no spread."""
    spread, other = xx - x**2 / n, yy - y**2 / n
    flat, other_flat = spread <= _FLAT * xx, other <= _FLAT * yy
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.clip((xy - x * y / n) / np.sqrt(spread * other), -1.0, 1.0)
    return np.where(flat, math.nan, np.where(other_flat, 0.0, found))


def _spearman(answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """Pearson's correlation of ranks, which each resample gives anew; equal numbers share the mean of theirs."""
    numbers = answers.references.astype(float), _filled_numbers(answers)

    def value(weights: Floats) -> Floats:
        drawn = weights[:, clusters]
        n = drawn.sum(1)
        x, y = (_mid_ranks(each, drawn) - (n[:, None] + 1) / 2 for each in numbers)
        return _correlation(
            n, (drawn * x).sum(1), (drawn * y).sum(1), (drawn * x**2).sum(1), (drawn * y**2).sum(1),
            (drawn * x * y).sum(1),
        )  # fmt: skip

    return lambda weights: np.concatenate([value(chunk) for chunk in _chunks(weights, len(clusters))])


def _mid_ranks(numbers: Floats, drawn: Floats) -> Floats:
    """(n,), (B, n) times drawn -> (B, n), from 1."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    order = np.argsort(places, kind="stable")
    each = np.add.reduceat(drawn[:, order], np.cumsum(counts) - counts, axis=1)
    ranks: Floats = (np.cumsum(each, 1) - (each - 1) / 2)[:, places]
    return ranks


def _median_ae(answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """The mean of the two in the middle, where they are two."""
    errors = _mae(answers)
    order = np.argsort(errors, kind="stable")

    def value(weights: Floats) -> Floats:
        counts = np.cumsum(weights[:, clusters[order]], 1)
        n = counts[:, -1]
        middles = [errors[order][(counts > at[:, None] + 0.25).argmax(1)] for at in ((n - 1) // 2, n // 2)]
        return np.asarray((middles[0] + middles[1]) / 2, float)

    return lambda weights: np.concatenate([value(chunk) for chunk in _chunks(weights, len(clusters))])


def _chunks(weights: Floats, n: int) -> list[Floats]:
    return np.array_split(weights, max(1, weights.shape[0] * n // 4_000_000))


def _mape(answers: Answers) -> Floats:
    """A reference of 0 has no such error, and is not counted."""
    size = np.abs(answers.references.astype(float))
    shares: Floats = np.divide(_mae(answers), size, out=np.full(len(size), math.nan), where=size > 0)
    return shares


def _undefined(answers: Answers) -> Floats:
    return np.full(len(answers.references), math.nan)


def _filled_numbers(answers: Answers) -> Floats:
    reference, given = answers.references.astype(float), answers.given.astype(float)
    low, high = reference.min(), reference.max()
    farthest = np.where(reference - low > high - reference, low, high)
    return np.where(np.isnan(given), farthest, given)


CORPORA: dict[str, Callable[[Answers, Codes], Callable[[Floats], Floats]]] = {
    "spearman": _spearman, "median_ae": _median_ae,
}  # fmt: skip
ALONE: dict[str, Callable[[Answers], Floats]] = {"median_ae": _mae, "spearman": _undefined, "pearson": _undefined}
"""What they are of each example by itself."""


def _forecast_mae(answers: Answers) -> Floats:
    return np.array([miss.mean() for miss in _forecast_errors(answers)])


def _mase(answers: Answers) -> Floats:
    """Errors in units of `naive`. Channels that never changed have no such unit; a series of them is not counted."""
    return np.array(
        [
            _scaled(miss, np.array(reference["naive"]))
            for miss, reference in zip(_forecast_errors(answers), answers.references, strict=True)
        ]
    )


def _forecast_rmse(answers: Answers) -> Statistic:
    parts = np.array([(np.square(miss).sum(), miss.size) for miss in _forecast_errors(answers)])
    return Statistic(parts, lambda sums: np.sqrt(sums[:, 0] / sums[:, 1]))


def _smape(answers: Answers) -> Floats:
    """Makridakis et al. (2020), as a share: 0 where both are 0, 2 without an answer."""
    pairs = zip(answers.references, answers.given, strict=True)
    return np.array([_symmetric(np.array(reference["steps"], float), given) for reference, given in pairs])


def _symmetric(reference: Floats, answer: Any) -> float:
    steps = _steps(answer, reference)
    if steps is None:
        return 2.0
    size = np.abs(reference) + np.abs(steps)
    return float(np.divide(2 * np.abs(reference - steps), size, out=np.zeros_like(size), where=size > 0).mean())


def _scaled(miss: Floats, naive: Floats) -> float:
    changes = naive > 0
    return float((miss[changes].mean(1) / naive[changes]).mean()) if changes.any() else math.nan


def _forecast_errors(answers: Answers) -> list[Floats]:
    """(C, horizon) each. No answer, or one of another shape, lies at the far end of what is true anywhere."""
    references = [np.array(reference["steps"], float) for reference in answers.references]
    low, high = min(reference.min() for reference in references), max(reference.max() for reference in references)
    return [
        np.maximum(reference - low, high - reference) if steps is None else np.abs(steps - reference)
        for reference, steps in (
            (reference, _steps(answer, reference)) for reference, answer in zip(references, answers.given, strict=True)
        )
    ]


def _steps(answer: Any, reference: Floats) -> Floats | None:
    try:
        steps = np.array(answer, float)
    except (TypeError, ValueError, OverflowError):
        return None
    if len(reference) == 1 and steps.ndim == 1:
        steps = steps[None, :]
    return steps if steps.shape == reference.shape and (np.abs(steps) <= LARGEST).all() else None


def _action_mae(answers: Answers) -> Floats:
    return np.array([miss.mean() for miss in _action_errors(answers)])


def _action_mse(answers: Answers) -> Floats:
    return np.array([np.square(miss).mean() for miss in _action_errors(answers)])


def _success_rate(answers: Answers) -> Floats:
    """1 or 0. An episode that names no environment is not counted; one that was not acted out has failed."""
    pairs = zip(answers.references, answers.given, strict=True)
    return np.array([_succeeded(answer) if ENVIRONMENT in reference else math.nan for reference, answer in pairs])


def _succeeded(answer: Any) -> float:
    rollout = answer.get(ROLLOUT) if isinstance(answer, dict) else None
    return float(isinstance(rollout, dict) and rollout.get(SUCCESS) == 1)


def _action_errors(answers: Answers) -> list[Floats]:
    """(T, A) each. No answer, or one of another shape, lies at the far end of what was ever done."""
    references = [np.array(reference[ACTIONS], float) for reference in answers.references]
    low, high = min(reference.min() for reference in references), max(reference.max() for reference in references)
    return [
        np.maximum(reference - low, high - reference) if given is None else np.abs(given - reference)
        for reference, given in (
            (reference, _actions(answer, reference))
            for reference, answer in zip(references, answers.given, strict=True)
        )
    ]


def _actions(answer: Any, reference: Floats) -> Floats | None:
    try:
        given = np.array(answer[ACTIONS] if isinstance(answer, dict) else answer, float)
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return given if given.shape == reference.shape and (np.abs(given) <= LARGEST).all() else None


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "mae": _mae,
    "mape": _mape,
    "forecast_mae": _forecast_mae,
    "mase": _mase,
    "smape": _smape,
    "action_mae": _action_mae,
    "action_mse": _action_mse,
    METRIC: _success_rate,
}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "rmse": _rmse,
    "r2": _r2,
    "pearson": _pearson,
    "forecast_rmse": _forecast_rmse,
}
