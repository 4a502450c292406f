"""How unlike the training examples something is: by the nearest of them, or by their mean and covariance.

Isolation forests are trees (trees.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.trees import Trees

_CHUNK = 256


class Distance(NamedTuple):
    """Mean distance to the nearest training examples, Euclidean; rows of unit length (TF-IDF) so rank by the cosine."""

    points: npt.NDArray[Any]  # (S, D), or its nonzero values where it is sparse
    indices: npt.NDArray[Any]  # (nonzero,) columns of a sparse matrix (CSR); empty for a dense one
    starts: npt.NDArray[Any]  # (S + 1,) likewise
    width: npt.NDArray[Any]  # () D
    nearest: npt.NDArray[Any]  # () how many of them count

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) dense or sparse -> (N, 1)"""
        points, count = self._matrix(), int(self.nearest)
        norms, own = _squares(points), _squares(inputs)
        parts = [np.zeros(0)]
        for start in range(0, inputs.shape[0], _CHUNK):
            products = inputs[start : start + _CHUNK] @ points.T
            products = products.toarray() if hasattr(products, "toarray") else np.asarray(products)
            squares = own[start : start + _CHUNK, None] + norms - 2.0 * products
            nearest = np.partition(squares, count - 1, axis=1)[:, :count]
            parts.append(np.sqrt(np.maximum(nearest, 0.0)).mean(axis=1))
        return np.concatenate(parts)[:, None]

    def _matrix(self) -> Any:
        if not len(self.starts):
            return self.points.astype(np.float64)
        from scipy.sparse import csr_array

        shape = (len(self.starts) - 1, int(self.width))
        return csr_array((self.points.astype(np.float64), self.indices, self.starts), shape=shape)

    @property
    def parameters(self) -> int:
        return int(self.points.size)


class Gaussian(NamedTuple):
    """Mahalanobis' distance from the mean."""

    mean: npt.NDArray[Any]  # (D,)
    whitening: npt.NDArray[Any]  # (D, D): the precision is its square, whitening.T @ whitening

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, 1)"""
        white = (np.asarray(inputs, np.float64) - self.mean) @ self.whitening.T
        distances: npt.NDArray[np.float64] = np.linalg.norm(white, axis=1)[:, None]
        return distances

    @property
    def parameters(self) -> int:
        return int(self.mean.size + self.whitening.size)


def nearest(inputs: Any, count: int) -> Distance:
    """`inputs`: (S, D) dense or CSR."""
    sparse = hasattr(inputs, "indptr")
    return Distance(
        points=inputs.data if sparse else np.asarray(inputs),
        indices=inputs.indices if sparse else np.zeros(0, np.int32),
        starts=inputs.indptr if sparse else np.zeros(0, np.int32),
        width=np.asarray(inputs.shape[1]),
        nearest=np.asarray(min(count, inputs.shape[0])),
    )


def gaussian(inputs: npt.NDArray[Any]) -> Gaussian:
    """Of (S, D), the covariance shrunk towards a sphere as far as Ledoit & Wolf (2004) say."""
    from sklearn.covariance import ledoit_wolf

    inputs = np.asarray(inputs, np.float64)
    mean = inputs.mean(axis=0)
    covariance, _ = ledoit_wolf(inputs - mean, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    floor = max(values[-1] * 1e-10, 1e-12)  # of directions in which nothing varies
    return Gaussian(mean, (vectors / np.sqrt(np.maximum(values, floor))).T)


def from_isolation(forest: Any) -> Trees:
    """A fitted scikit-learn IsolationForest as arrays; the score is minus the mean depth at which an example is alone.

    It ranks as scikit-learn's score does, which is 2 to the power of minus that depth in units of what is usual.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in Trees._fields}
    offset, count = 0, len(forest.estimators_)
    for fitted, columns in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = fitted.tree_
        leaf = tree.children_left < 0
        parts["feature"].append(np.where(leaf, -1, columns[np.maximum(tree.feature, 0)]).astype(np.int32))
        parts["threshold"].append(tree.threshold.astype(np.float64))
        parts["left"].append(np.where(leaf, 0, tree.children_left + offset).astype(np.int32))
        parts["right"].append(np.where(leaf, 0, tree.children_right + offset).astype(np.int32))
        parts["value"].append(-(_depths(tree) + _usual_depth(tree.n_node_samples)) / count)
        parts["missing_left"].append(np.zeros(len(leaf), bool))
        parts["roots"].append(np.array([offset], np.int32))
        parts["output"].append(np.array([0], np.int32))
        offset += len(leaf)
    parts["baseline"].append(np.zeros(1))
    return Trees(**{name: np.concatenate(arrays) for name, arrays in parts.items()})


def _depths(tree: Any) -> npt.NDArray[np.float64]:
    """Steps from the root to each node; children come after their parents."""
    depths = np.zeros(tree.node_count)
    for node in np.flatnonzero(tree.children_left >= 0):
        depths[[tree.children_left[node], tree.children_right[node]]] = depths[node] + 1
    return depths


def _usual_depth(count: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of a tree that isolates this many examples (Liu et al. 2008, equation 1): what a leaf of many stands for."""
    many = np.maximum(count, 3).astype(np.float64)
    usual = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(count <= 1, 0.0, np.where(count == 2, 1.0, usual))


def _squares(matrix: Any) -> npt.NDArray[np.float64]:
    if hasattr(matrix, "multiply"):
        return np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    squares: npt.NDArray[np.float64] = np.square(np.asarray(matrix, np.float64)).sum(axis=1)
    return squares
