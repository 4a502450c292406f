"""Metrics of any number of labels per example, each a set.

The definitions are scikit-learn's over the table of examples and labels (the tests hold them to it). F1 is undefined
where there is no label, neither true nor given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats


def _subset_accuracy(answers: Answers) -> Floats:
    pairs = zip(answers.truth, answers.given, strict=True)
    return np.array([given is not None and set(given) == set(truth) for truth, given in pairs], np.float64)


def _f1_micro(answers: Answers) -> Statistic:
    """An error counts as as many wrong labels as there are true ones, and at least as one."""
    parts = np.zeros((len(answers.truth), 3))  # hit, given, true
    for row, (truth, given) in enumerate(zip(answers.truth, answers.given, strict=True)):
        true = set(truth)
        found = None if given is None else set(given)
        said = max(1, len(true)) if found is None else len(found)
        parts[row] = len(true & (found or set())), said, len(true)
    return Statistic(parts, lambda sums: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]))


MEANS: dict[str, Callable[[Answers], Floats]] = {"subset_accuracy": _subset_accuracy}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"f1_micro": _f1_micro}
