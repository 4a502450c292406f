"""Which label is answered, for metrics that do not count each example alike: scores moved by a constant a label.

A learner's most probable label is best by accuracy. By macro-F1, balanced accuracy or the F1 of one label rare labels
are worth more, and the answer that the metric wants is another one. The constants are found on held-out scores, and
kept only where they help on the half of them that did not choose them, by more than one standard error of a share that
so many changed answers move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.blend import Blend
from speciate.models.estimators import Linear, Trees
from speciate.models.perceptrons import Perceptrons
from speciate.models.quadratics import Quadratic

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Measure = Callable[[Labels, Labels], float]
_FEWEST, _MOST_LABELS, _STEPS, _ROUNDS = 60, 30, 21, 2
_LEAST_GAIN = 0.002


class DecisionShift(NamedTuple):
    """`by` (K,) or (1,): what the model adds to its scores. `unseen` (N, K) or (N, 1): what a held-out example that
    judges the model adds to its own, found without its half. The metric of scores moved by `by` is of rows that chose
    it: on 150 rows of four labels a macro-F1 of 0.33 seems to be 0.40."""

    by: Floats
    unseen: Floats


def measure_for(metric: str, labels: Sequence[str], positive: str | None) -> Measure | None:
    """The metric of (true, answered) positions; None where the most probable label is best, or nothing is known."""
    if metric == "f1_macro":
        return lambda true, given: float(np.nanmean(_f1(true, given, len(labels))))
    if metric == "balanced_accuracy":
        return _balanced_accuracy
    if metric == "f1" and positive in labels:
        place = list(labels).index(str(positive))
        return lambda true, given: float(np.nan_to_num(_f1(true, given, len(labels))[place]))
    return None


def find_shift(
    scores: Any, targets: Labels, measure: Measure, seed: int, groups: Sequence[str] | None = None
) -> DecisionShift | None:
    """(N, K) or (N, 1) scores of held-out examples -> what is added to scores, or None where nothing helps.

    `targets`: (N,), -1 does not count. `groups`: (N,), by default each row alone: rows of one group are in one half, as
    is an example that several divisions held out, and err together.
    """
    scores = np.asarray(scores, np.float64)
    rows = np.flatnonzero(np.asarray(targets) >= 0)
    if len(rows) < _FEWEST or scores.shape[1] > _MOST_LABELS:
        return None
    count, scores, true = len(scores), scores[rows], np.asarray(targets)[rows]
    group = np.arange(len(rows))
    if groups is not None:
        group = np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    half = (np.random.default_rng(seed).permutation(int(group.max()) + 1) % 2 == 0)[group]
    if half.all() or not half.any():
        return None
    unseen = np.empty_like(scores)
    for learn in (half, ~half):
        unseen[~learn] = _tuned(scores[learn], true[learn], measure)
    given = _answers(scores + unseen)
    before = _answers(scores)
    by_chance = float(np.sqrt((np.bincount(group, given != before) ** 2).sum())) / len(rows)
    if measure(true, given) < measure(true, before) + max(_LEAST_GAIN, by_chance):
        return None
    found = _tuned(scores, true, measure)
    if not found.any():
        return None
    of_all = np.tile(found, (count, 1))
    of_all[rows] = unseen
    return DecisionShift(found, of_all)


def _answers(scores: Floats) -> Labels:
    found: Labels = (scores[:, 0] > 0).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(axis=1)
    return found


def _tuned(scores: Floats, true: Labels, measure: Measure) -> Floats:
    """One label after another, from no shift; of equal ones the smallest."""
    width = scores.shape[1]
    shift = np.zeros(width)
    for _ in range(_ROUNDS if width > 1 else 1):
        for label in range(width):
            rest, best_other = _best_other(scores + shift, label)
            margins = rest - scores[:, label]
            steps = np.append(np.quantile(margins, np.linspace(0.01, 0.99, _STEPS)), [0.0, shift[label]])
            steps = steps[np.argsort(np.abs(steps), kind="stable")]
            values = []
            for step in steps:
                moved = scores[:, label] + step
                first = (moved > rest) | ((moved == rest) & (label < best_other))  # as argmax: of equal ones the first
                values.append(measure(true, np.where(first, label if width > 1 else 1, best_other)))
            shift[label] = steps[int(np.argmax(values))]
    return shift


def _best_other(scores: Floats, label: int) -> tuple[Floats, Labels]:
    """(N,) the greatest score of the other labels, and whose it is. One column is the log odds of label 1."""
    if scores.shape[1] == 1:
        return np.zeros(len(scores)), np.zeros(len(scores), np.int64)
    others = np.delete(scores, label, axis=1)
    places = others.argmax(axis=1)
    return others.max(axis=1), places + (places >= label)


def _f1(true: Labels, given: Labels, labels: int) -> Floats:
    """F1 of each label, (labels,); NaN for a label that neither is there nor is answered."""
    hits = np.bincount(true[true == given], minlength=labels)
    total = np.bincount(true, minlength=labels) + np.bincount(given, minlength=labels)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan)


def _balanced_accuracy(true: Labels, given: Labels) -> float:
    labels = np.unique(true)
    return float(np.mean([(given[true == label] == label).mean() for label in labels]))


def can_shift(estimator: Any) -> bool:
    return type(estimator) in (Linear, Quadratic, Trees, Perceptrons, Blend)


def shifted(estimator: Any, by: Floats) -> Any:
    """A copy of the estimator, with `by` added to its scores."""
    if isinstance(estimator, Linear | Quadratic):
        return estimator._replace(bias=np.asarray(estimator.bias) + by)
    if isinstance(estimator, Trees):
        return estimator._replace(baseline=np.asarray(estimator.baseline) + by)
    return estimator._replace(shift=by)  # of a blend it was none, of perceptrons zero
