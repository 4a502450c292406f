"""k nearest neighbours, by brute force: the training examples are the model."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_CHUNK = 256


class Neighbours(NamedTuple):
    """Distances are Euclidean; rows of unit length (TF-IDF) so rank by the cosine."""

    points: npt.NDArray[Any]  # (S, D), or its nonzero values where it is sparse
    indices: npt.NDArray[Any]  # (nonzero,) columns of a sparse matrix (CSR); empty for a dense one
    starts: npt.NDArray[Any]  # (S + 1,) likewise
    width: npt.NDArray[Any]  # () D
    answers: npt.NDArray[Any]  # (S, K): one-hot classes, or values
    nearest: npt.NDArray[Any]  # () how many of them answer
    votes: npt.NDArray[Any]  # () whether answers are votes for classes

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) dense or sparse -> (N, K): log of the smoothed share of votes, or the neighbours' mean."""
        points = self._matrix()
        norms = np.asarray(points.multiply(points).sum(axis=1)).ravel() if self._sparse else (points**2).sum(axis=1)
        parts = []
        for start in range(0, max(inputs.shape[0], 1), _CHUNK):
            products = inputs[start : start + _CHUNK] @ points.T
            products = products.toarray() if self._sparse else np.asarray(products)
            places = np.argsort(norms[None, :] - 2.0 * products, axis=1, kind="stable")[:, : int(self.nearest)]
            parts.append(self.answers[places].mean(axis=1))
        means = np.concatenate(parts).astype(np.float64)
        if not self.votes:
            return means
        smoothing = 1.0 / (int(self.nearest) + 1)  # as if one more neighbour had voted for every class equally
        shares: npt.NDArray[np.float64] = np.log((1 - smoothing) * means + smoothing / means.shape[1])
        return shares

    @property
    def _sparse(self) -> bool:
        return len(self.starts) > 0

    def _matrix(self) -> Any:
        if not self._sparse:
            return self.points.astype(np.float64)
        from scipy.sparse import csr_array

        shape = (len(self.starts) - 1, int(self.width))
        return csr_array((self.points.astype(np.float64), self.indices, self.starts), shape=shape)

    @property
    def parameters(self) -> int:
        return int(self.points.size)


def remember(inputs: Any, answers: npt.NDArray[Any], count: int, *, votes: bool) -> Neighbours:
    """`inputs` (S, D) dense or CSR, `answers` (S, K)."""
    sparse = hasattr(inputs, "indptr")
    return Neighbours(
        points=inputs.data if sparse else np.asarray(inputs),
        indices=inputs.indices if sparse else np.zeros(0, dtype=np.int32),
        starts=inputs.indptr if sparse else np.zeros(0, dtype=np.int32),
        width=np.asarray(inputs.shape[1]),
        answers=answers.astype(np.float32),
        nearest=np.asarray(min(count, inputs.shape[0])),
        votes=np.asarray(votes),
    )
