"""Metrics of any number of labels per example, each a set.

The definitions are scikit-learn's over the table of examples and labels (the tests hold them to it). F1 is undefined
where there is no label, neither true nor given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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


def _hamming_loss(answers: Answers) -> Floats:
    """An error is wrong about every label."""
    true, given, is_error = _tables(answers)
    return np.where(is_error, 1.0, (true != given).mean(1) if true.size else 0.0)


def _f1_macro_labels(answers: Answers) -> Statistic:
    """Over the labels that are true or given anywhere. An error gives every label that is not true, and no other."""
    true, given, is_error = _tables(answers)
    given = np.where(is_error[:, None], ~true, given)

    def combine(sums: Floats) -> Floats:
        hit, said, real = np.split(sums, 3, axis=1)
        counted = said + real > 0
        values = np.divide(2 * hit, said + real, out=np.zeros_like(hit), where=counted)
        means: Floats = values.sum(1) / counted.sum(1)
        return means

    return Statistic(np.hstack([true & given, given, true]).astype(float), combine)


def _tables(answers: Answers) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """(n, K) of what is true and what is given, of all labels that anybody knows; (n,) of errors."""
    sets = [[set(each or ()) for each in side] for side in (answers.truth, answers.given)]
    labels = sorted(set(answers.labels).union(*sets[0], *sets[1]), key=repr)  # a model may answer numbers, too
    true, given = (np.array([[name in each for name in labels] for each in side], bool) for side in sets)
    shape = len(answers.truth), len(labels)
    return true.reshape(shape), given.reshape(shape), np.array([each is None for each in answers.given])


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "subset_accuracy": _subset_accuracy, "hamming_loss": _hamming_loss,
}  # fmt: skip
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"f1_micro": _f1_micro, "f1_macro_labels": _f1_macro_labels}
