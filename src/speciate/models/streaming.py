"""Linear discriminant analysis that goes on: a mean for each class and one covariance, brought up to date by further
examples without a look at the earlier ones.

After Hayes & Kanan 2020, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis". Departures: sums
are exact, so that the order of examples and of their batches changes nothing but roundings; and the covariance is
shrunk towards its mean variance, so that `shrinkage` means the same whatever the scale of the features.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


_NEVER = -1e30


class Streaming(NamedTuple):
    means: Floats  # (K, D)
    counts: Floats  # (K,)
    scatter: Floats  # (D, D): sum over examples of how far they lie from the mean of their class
    shrinkage: Floats  # ()

    @classmethod
    def empty(cls, classes: int, width: int, shrinkage: float) -> Self:
        zeros = np.zeros((classes, width))
        return cls(zeros, np.zeros(classes), np.zeros((width, width)), np.array(shrinkage))

    def placed(self, places: npt.NDArray[np.int64], classes: int) -> Streaming:
        """The same classes among more: each at its place, the others without an example."""
        means, counts = np.zeros((classes, self.means.shape[1])), np.zeros(classes)
        means[places], counts[places] = self.means, self.counts
        return self._replace(means=means, counts=counts)

    def learned(self, inputs: npt.NDArray[Any], targets: npt.NDArray[np.int64]) -> Streaming:
        """With further examples (N, D) of classes (N,); those of none, -1, do not count."""
        means, counts, scatter = self.means.copy(), self.counts.copy(), self.scatter.copy()
        for place in np.unique(targets[targets >= 0]):
            rows = np.asarray(inputs[targets == place], np.float64)
            mean, before, more = rows.mean(0), counts[place], len(rows)
            apart, centred = mean - means[place], rows - mean
            scatter += centred.T @ centred + before * more / (before + more) * np.outer(apart, apart)
            counts[place] = before + more
            means[place] += apart * more / counts[place]
        return Streaming(means, counts, scatter, self.shrinkage)

    def scores(self, inputs: Any) -> Floats:
        """(N, D) -> (N, K): log chances up to a constant, of classes that are all as frequent; next to none of what was
        never seen."""
        width = len(self.scatter)
        covariance = self.scatter / max(self.counts.sum(), 1.0)
        variance = float(np.trace(covariance)) / width or 1.0
        share = float(self.shrinkage)
        shrunk = (1 - share) * covariance + share * variance * np.eye(width)
        weight = np.linalg.solve(shrunk, self.means.T)  # (D, K)
        bias = -0.5 * np.einsum("kd,dk->k", self.means, weight)
        found: Floats = np.asarray(inputs, np.float64) @ weight + bias
        found[:, self.counts == 0] = _NEVER
        return found

    @property
    def parameters(self) -> int:
        return int(self.means.size + self.counts.size + self.scatter.size)
