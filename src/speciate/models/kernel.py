"""A support vector machine with an RBF kernel, for one number or for classes by votes of all pairs.

The classes' scores are those of scikit-learn's `SVC.decision_function` ("ovr"): the votes of the K (K - 1) / 2 pairwise
machines plus the sum of their margins, squeezed into a third so that it only breaks ties.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_CHUNK = 512


class Kernel(NamedTuple):
    vectors: npt.NDArray[Any]  # (S, D) support vectors
    dual: npt.NDArray[Any]  # (S, M): the weight of each support vector in each of M machines
    bias: npt.NDArray[Any]  # (M,)
    gamma: npt.NDArray[Any]  # ()
    classes: npt.NDArray[Any]  # (): K where pairs of K classes vote; 1 where the machine's value is the answer

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, K); two classes, as one number, give (N, 1)."""
        inputs = np.asarray(inputs, dtype=np.float64)
        margins = np.concatenate(
            [self._margins(inputs[start : start + _CHUNK]) for start in range(0, max(len(inputs), 1), _CHUNK)]
        )
        return _votes(margins, int(self.classes)) if self.classes > 2 else margins

    def _margins(self, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        vectors = self.vectors.astype(np.float64)
        squared = (
            (inputs**2).sum(axis=1)[:, None] - 2.0 * (inputs @ vectors.T) + (vectors**2).sum(axis=1)[None, :]
        )  # (N, S)
        similarity = np.exp(-float(self.gamma) * np.maximum(squared, 0.0))
        margins: npt.NDArray[np.float64] = similarity @ self.dual + self.bias
        return margins

    @property
    def parameters(self) -> int:
        return int(self.vectors.size + self.dual.size + self.bias.size)


def from_svm(machine: Any) -> Kernel:
    """A fitted scikit-learn SVC or SVR (RBF) as arrays."""
    classes = len(getattr(machine, "classes_", ()))
    bias = np.atleast_1d(np.asarray(machine.intercept_, dtype=np.float64))
    dual = machine.dual_coef_.T if classes <= 2 else _pairwise(machine, classes)
    return Kernel(
        vectors=np.asarray(machine.support_vectors_, dtype=np.float64),
        dual=np.ascontiguousarray(dual, dtype=np.float64),
        bias=bias,
        gamma=np.asarray(machine._gamma, dtype=np.float64),
        classes=np.asarray(max(classes, 1)),
    )


def _pairwise(machine: Any, classes: int) -> npt.NDArray[np.float64]:
    """LIBSVM's packed dual coefficients, (K - 1, S) with support vectors sorted by class, as one column per pair."""
    ends = np.cumsum(machine.n_support_)
    spans = [slice(end - count, end) for end, count in zip(ends, machine.n_support_, strict=True)]
    dual = np.zeros((len(machine.support_vectors_), classes * (classes - 1) // 2))
    for pair, (first, second) in enumerate(combinations(range(classes), 2)):
        dual[spans[first], pair] = machine.dual_coef_[second - 1, spans[first]]
        dual[spans[second], pair] = machine.dual_coef_[first, spans[second]]
    return dual


def _votes(margins: npt.NDArray[np.float64], classes: int) -> npt.NDArray[np.float64]:
    votes, sums = np.zeros((len(margins), classes)), np.zeros((len(margins), classes))
    for pair, (first, second) in enumerate(combinations(range(classes), 2)):
        margin = margins[:, pair]
        sums[:, first] += margin
        sums[:, second] -= margin
        votes[:, first] += margin >= 0
        votes[:, second] += margin < 0
    return votes + sums / (3.0 * (np.abs(sums) + 1.0))
