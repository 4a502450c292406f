"""Metrics of actions, an episode at a time: how far they are from those that were recorded, and what came of acting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from speciate.evaluation.metrics.answers import LARGEST, Answers, Statistic
from speciate.evaluation.statistics import Floats
from speciate.tasks.control import ACTIONS, ENVIRONMENT, METRIC, ROLLOUT, SUCCESS


def _mae(answers: Answers) -> Floats:
    return np.array([miss.mean() for miss in _misses(answers)])


def _mse(answers: Answers) -> Floats:
    return np.array([np.square(miss).mean() for miss in _misses(answers)])


def _success(answers: Answers) -> Floats:
    """1 or 0. An episode that names no environment is not counted; one that was not acted out has failed."""
    pairs = zip(answers.truth, answers.given, strict=True)
    return np.array([_succeeded(answer) if ENVIRONMENT in truth else math.nan for truth, answer in pairs])


def _succeeded(answer: Any) -> float:
    rollout = answer.get(ROLLOUT) if isinstance(answer, dict) else None
    return float(isinstance(rollout, dict) and rollout.get(SUCCESS) == 1)


def _misses(answers: Answers) -> list[Floats]:
    """(T, A) each. No answer, or one of another shape, lies at the far end of what was ever done."""
    truths = [np.array(truth[ACTIONS], float) for truth in answers.truth]
    low, high = min(truth.min() for truth in truths), max(truth.max() for truth in truths)
    return [
        np.maximum(truth - low, high - truth) if given is None else np.abs(given - truth)
        for truth, given in (
            (truth, _actions(answer, truth)) for truth, answer in zip(truths, answers.given, strict=True)
        )
    ]


def _actions(answer: Any, truth: Floats) -> Floats | None:
    try:
        given = np.array(answer[ACTIONS] if isinstance(answer, dict) else answer, float)
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return given if given.shape == truth.shape and (np.abs(given) <= LARGEST).all() else None


MEANS: dict[str, Callable[[Answers], Floats]] = {"action_mae": _mae, "action_mse": _mse, METRIC: _success}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {}
