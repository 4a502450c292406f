"""Metrics of how a model ranks examples: one sort, then cumulated weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.answers import ERROR, Answers
from speciate.evaluation.statistics import Codes, Floats
from speciate.vocabulary import RECALL_AT_PRECISIONS


def _ranked(
    measure: Callable[[Floats, Floats], Floats], answers: Answers, clusters: Codes
) -> Callable[[Floats], Floats]:
    """Of the positive label, else the mean over the labels that occur, each against the rest."""
    table = answers.table
    known = range(len(answers.labels)) if answers.positive is None else (answers.positive,)
    wanted = [label for label in known if (answers.truth == label).any()]
    sides = [(_worst_for_errors(table[:, label], answers, label), answers.truth == label) for label in wanted]

    def one(weights: Floats, scores: Floats, positive: NDArray[np.bool_]) -> Floats:
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last example of each tie
        drawn = weights[:, clusters[order]]
        hits = np.cumsum(drawn * positive[order], axis=1)[:, ends]
        alarms = np.cumsum(drawn * ~positive[order], axis=1)[:, ends]
        return measure(hits, alarms)

    def value(weights: Floats) -> Floats:
        if not sides:  # the positive label does not occur
            return np.full(len(weights), math.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate(
                [
                    np.mean([one(chunk, scores, positive) for scores, positive in sides], axis=0)
                    for chunk in np.array_split(weights, max(1, weights.shape[0] * len(clusters) // 4_000_000))
                ]
            )

    return value


def _worst_for_errors(scores: Floats, answers: Answers, label: int) -> Floats:
    """An error ranks a positive last and a negative first."""
    return np.where(answers.given == ERROR, np.where(answers.truth == label, -1.0, 2.0), scores)


def _auroc(hits: Floats, alarms: Floats) -> Floats:
    """Trapezoids below the ROC curve; (B, thresholds) of cumulated positives and negatives -> (B,)."""
    found, false = hits / hits[:, -1:], alarms / alarms[:, -1:]
    step = np.diff(false, axis=1, prepend=0.0)
    before = np.hstack([np.zeros((len(found), 1)), found[:, :-1]])
    area: Floats = (step * (found + before) / 2).sum(1)
    return area


def _auprc(hits: Floats, alarms: Floats) -> Floats:
    """Average precision: precision weighted by each threshold's gain in recall, without interpolation."""
    alerts = hits + alarms
    precision = np.divide(hits, alerts, out=np.zeros_like(hits), where=alerts > 0)
    average: Floats = (np.diff(hits / hits[:, -1:], axis=1, prepend=0.0) * precision).sum(1)
    return average


def _recall_at(precision: float, hits: Floats, alarms: Floats) -> Floats:
    """The best recall of thresholds whose precision is at least this; 0 where there is none."""
    reached = hits >= precision * (hits + alarms) - 1e-9
    best: Floats = np.where(reached, hits / hits[:, -1:], 0.0).max(1)
    return best


CORPORA: dict[str, Callable[[Answers, Codes], Callable[[Floats], Floats]]] = {
    "auroc": partial(_ranked, _auroc),
    "auprc": partial(_ranked, _auprc),
    **{
        f"recall_at_precision_{percent}": partial(_ranked, partial(_recall_at, percent / 100))
        for percent in RECALL_AT_PRECISIONS
    },
}
