"""Estimators that answer without a training library: NamedTuples of arrays with `scores`, stored in one safetensors
file.

First `save` and `load`; then the forms, and how a fitted scikit-learn model becomes one; at the end their table. There
is no pickle and nothing like it: a file names one form of the table and brings its arrays; any other name is refused.
Rebuilt estimators need NumPy only, so a served model imports no training library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models.perceptrons import Perceptrons
from speciate.models.quadratics import Quadratic

Floats = npt.NDArray[np.float64]
_CHUNK = 256
_KERNEL_CHUNK = 512
"""Examples at a time."""
_NEVER = -1e30
"""Score of a class without an example."""


class Estimator(Protocol):
    """A NamedTuple of arrays."""

    def scores(self, inputs: Any) -> npt.NDArray[Any]:
        """(N, D) -> (N, K): one column per class; one column for two classes (positive: the second) or a number.

        Where an example has several answers: (N,) of arrays.
        """
        ...

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        ...


def save(estimator: Any, path: Path) -> None:
    form = next(name for name, made in FORMS.items() if type(estimator) is made)
    save_arrays(estimator._asdict(), path, {"form": form})


def load(path: Path) -> Estimator:
    """Raises REFUSED for a form that is not in the table or does not have the form's arrays."""
    arrays, metadata = load_arrays(path)
    form = FORMS.get(metadata.get("form", ""))
    if form is None or set(arrays) != set(form._fields):
        raise not_rebuilt(path, metadata.get("form", "nothing"), arrays)
    estimator: Estimator = form(**arrays)
    return estimator


def not_rebuilt(path: Path, form: str, arrays: Mapping[str, object]) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"{path.name} holds {form!r} with {sorted(arrays)}, "
        f"which is none of the estimators that can be rebuilt: {', '.join(FORMS)}.",
        "Train the model again with train_model.",
    )


def save_arrays(arrays: dict[str, npt.NDArray[Any]], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    metadata = metadata or {"arrays": str(len(arrays))}  # a file with neither arrays nor this cannot be read again
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path, metadata)


def load_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Arrays and metadata of one safetensors file. Raises REFUSED where it is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise SpeciateError(
            Code.REFUSED, f"{path} is not a safetensors file: {error}", "Train the model again with train_model."
        ) from error


def saved_form(path: Path) -> str:
    """The form of the estimator in a file that `save` wrote, read without its arrays; empty where it says none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("form", ""))
    except SafetensorError:
        return ""


class Linear(NamedTuple):
    weight: npt.NDArray[Any]  # (K, D)
    bias: npt.NDArray[Any]  # (K,)

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) dense or sparse -> (N, K)."""
        scores: npt.NDArray[np.float64] = np.asarray(inputs @ self.weight.T, dtype=np.float64) + self.bias
        return scores

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)


class Identity(NamedTuple):
    """Nothing learned: the scores are the inputs, as for retrieval by vectors."""

    width: npt.NDArray[Any]  # () D

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) dense -> the same."""
        return np.asarray(inputs, dtype=np.float64)

    @property
    def parameters(self) -> int:
        return 0


class Kernel(NamedTuple):
    """A support vector machine with an RBF kernel, for one number, or for classes by votes of all pairs.

    The classes' scores are those of scikit-learn's `SVC.decision_function` ("ovr"): the votes of the K (K - 1) / 2
    pairwise machines plus the sum of their margins, squeezed into a third so that it only breaks ties.
    """

    vectors: npt.NDArray[Any]  # (S, D) support vectors
    dual: npt.NDArray[Any]  # (S, M): the weight of each support vector in each of M machines
    bias: npt.NDArray[Any]  # (M,)
    gamma: npt.NDArray[Any]  # ()
    classes: npt.NDArray[Any]  # (): K where pairs of K classes vote; 1 where the machine's value is the answer

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, K); two classes, as one number, give (N, 1)."""
        inputs = np.asarray(inputs, dtype=np.float64)
        margins = np.concatenate(
            [
                self._margins(inputs[start : start + _KERNEL_CHUNK])
                for start in range(0, max(len(inputs), 1), _KERNEL_CHUNK)
            ]
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


def kernel_from_svm(machine: Any) -> Kernel:
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


class Neighbours(NamedTuple):
    """k nearest neighbours by brute force: the training examples are the model. Distances are Euclidean, so rows of
    unit length (TF-IDF) rank by the cosine."""

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
        across, parts = points.T.tocsr() if self._sparse else points.T, []
        for start in range(0, max(inputs.shape[0], 1), _CHUNK):
            products = inputs[start : start + _CHUNK] @ across
            products = products.toarray() if hasattr(products, "toarray") else np.asarray(products)
            places = _smallest(norms[None, :] - 2.0 * products, int(self.nearest))
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


def _smallest(rows: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """(N, count): the places of each row's smallest numbers in their order, the earlier one of equals first. As a
    stable sort says, which would sort all of them."""
    bounds = np.partition(rows, count - 1, axis=1)[:, count - 1, None]
    taken = rows <= bounds
    within = taken.sum(axis=1)
    if (tied := within > count).any():  # of those at the bound the first ones
        equal = rows[tied] == bounds[tied]
        lacking = count - within[tied, None] + equal.sum(axis=1, keepdims=True)
        taken[tied] &= ~equal | (np.cumsum(equal, axis=1, dtype=np.int32) <= lacking)
    found = np.empty((len(rows), count), np.int64)
    clear = within >= count
    places = np.nonzero(taken[clear])[1].reshape(-1, count)
    order = np.argsort(np.take_along_axis(rows[clear], places, axis=1), axis=1, kind="stable")
    found[clear] = np.take_along_axis(places, order, axis=1)
    found[~clear] = np.argsort(rows[~clear], axis=1, kind="stable")[:, :count]  # too few are numbers
    return found


def fit_neighbours(inputs: Any, answers: npt.NDArray[Any], count: int, *, votes: bool) -> Neighbours:
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


class Trees(NamedTuple):
    """Nodes of T trees, one after another; children are absolute positions. A leaf's `feature` is -1.

    Every step moves each (example, tree) pair one level down, so one example costs as many array operations as the
    deepest tree has levels, whatever the number of trees.
    """

    feature: npt.NDArray[Any]  # (nodes,)
    threshold: npt.NDArray[Any]  # (nodes,) a value at or below it goes left
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    value: npt.NDArray[Any]
    missing_left: npt.NDArray[Any]  # where NaN goes
    roots: npt.NDArray[Any]  # (T,)
    output: npt.NDArray[Any]  # (T,) the output that a tree adds to
    baseline: npt.NDArray[Any]  # (K,)

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, K); two classes, as one number, give (N, 1)."""
        inputs = np.asarray(inputs, dtype=np.float64)
        starts = range(0, max(len(inputs), 1), _CHUNK)
        return np.concatenate([self._walk(inputs[start : start + _CHUNK]) for start in starts])

    def _walk(self, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        rows = np.arange(len(inputs))[:, None]
        nodes = np.repeat(self.roots[None, :], len(inputs), axis=0)  # (N, T)
        while True:
            feature = self.feature[nodes]
            inner = feature >= 0
            if not inner.any():
                break
            x = inputs[rows, np.maximum(feature, 0)]
            goes_left = np.where(np.isnan(x), self.missing_left[nodes], x <= self.threshold[nodes])
            nodes = np.where(inner, np.where(goes_left, self.left[nodes], self.right[nodes]), nodes)
        adds_to = (self.output[:, None] == np.arange(len(self.baseline))[None, :]).astype(np.float64)  # (T, K)
        scores: npt.NDArray[np.float64] = self.value[nodes] @ adds_to + self.baseline
        return scores

    @property
    def parameters(self) -> int:
        return int(self.threshold.size + self.value.size)


def trees_from_boosting(model: Any) -> Trees:
    """A fitted scikit-learn HistGradientBoosting model without categorical features, as arrays."""
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in Trees._fields}
    offset = 0
    for stage in model._predictors:
        for output, tree in enumerate(stage):
            nodes = tree.nodes
            leaf = nodes["is_leaf"].astype(bool)
            parts["feature"].append(np.where(leaf, -1, nodes["feature_idx"]).astype(np.int32))
            parts["threshold"].append(nodes["num_threshold"].astype(np.float64))
            parts["left"].append(np.where(leaf, 0, nodes["left"] + offset).astype(np.int32))
            parts["right"].append(np.where(leaf, 0, nodes["right"] + offset).astype(np.int32))
            parts["value"].append(nodes["value"].astype(np.float64))
            parts["missing_left"].append(nodes["missing_go_to_left"].astype(bool))
            parts["roots"].append(np.array([offset], dtype=np.int32))
            parts["output"].append(np.array([output], dtype=np.int32))
            offset += len(nodes)
    parts["baseline"].append(np.ravel(model._baseline_prediction).astype(np.float64))
    return Trees(**{name: np.concatenate(arrays) for name, arrays in parts.items()})


def side_by_side(trees: Sequence[Trees]) -> Trees:
    """Trees of one output each, joined into trees of K outputs: (N, K)."""
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in Trees._fields}
    offset = 0
    for output, each in enumerate(trees):
        inner = each.feature >= 0
        moved = {
            "left": np.where(inner, each.left + offset, 0),
            "right": np.where(inner, each.right + offset, 0),
            "roots": (each.roots + offset).astype(np.int32),
            "output": np.full_like(each.output, output),
        }
        for name, array in (each._asdict() | moved).items():
            parts[name].append(array)
        offset += len(each.feature)
    return Trees(**{name: np.concatenate(arrays) for name, arrays in parts.items()})


class UnitRows(NamedTuple):
    """Inputs of estimators that answer for each unit of an example, such as each word or step: the units of N examples,
    one after another."""

    matrix: Any  # (U, D), dense or sparse
    counts: npt.NDArray[np.int64]  # (N,) units of each example

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.matrix.shape
        return rows, columns


class PerUnit(NamedTuple):
    weight: npt.NDArray[Any]  # (K, D)
    bias: npt.NDArray[Any]  # (K,)

    def scores(self, inputs: UnitRows) -> npt.NDArray[Any]:
        """(N,) of arrays (units, K)."""
        return _apart(Linear(self.weight, self.bias).scores(inputs.matrix), inputs.counts)

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)


class NeighboursPerUnit(Neighbours):
    def scores(self, inputs: UnitRows) -> npt.NDArray[Any]:
        """(N,) of arrays (units, K)."""
        return _apart(super().scores(inputs.matrix), inputs.counts)


class TreesPerUnit(Trees):
    def scores(self, inputs: UnitRows) -> npt.NDArray[Any]:
        """(N,) of arrays (units, K)."""
        return _apart(super().scores(inputs.matrix), inputs.counts)


def _apart(scores: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """(U, K) -> (N,) of arrays, those of each example."""
    found = np.empty(len(counts), object)
    found[:] = np.split(scores, np.cumsum(counts)[:-1])
    return found


class Distance(NamedTuple):
    """Novelty as the mean Euclidean distance to the nearest training examples; rows of unit length (TF-IDF) rank by the
    cosine."""

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
    """Novelty as Mahalanobis' distance from the mean."""

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


def fit_distance(inputs: Any, count: int) -> Distance:
    """`inputs`: (S, D) dense or CSR."""
    sparse = hasattr(inputs, "indptr")
    return Distance(
        points=inputs.data if sparse else np.asarray(inputs),
        indices=inputs.indices if sparse else np.zeros(0, np.int32),
        starts=inputs.indptr if sparse else np.zeros(0, np.int32),
        width=np.asarray(inputs.shape[1]),
        nearest=np.asarray(min(count, inputs.shape[0])),
    )


def fit_gaussian(inputs: npt.NDArray[Any]) -> Gaussian:
    """The Gaussian of inputs (S, D), with the covariance shrunk towards a sphere by Ledoit & Wolf (2004)."""
    from sklearn.covariance import ledoit_wolf

    inputs = np.asarray(inputs, np.float64)
    mean = inputs.mean(axis=0)
    covariance, _ = ledoit_wolf(inputs - mean, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    floor = max(values[-1] * 1e-10, 1e-12)  # of directions in which nothing varies
    return Gaussian(mean, (vectors / np.sqrt(np.maximum(values, floor))).T)


def trees_from_isolation(forest: Any) -> Trees:
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
    """Usual depth of a tree that isolates this many examples (Liu et al. 2008, equation 1), added at a leaf of many."""
    many = np.maximum(count, 3).astype(np.float64)
    usual = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(count <= 1, 0.0, np.where(count == 2, 1.0, usual))


def _squares(matrix: Any) -> npt.NDArray[np.float64]:
    if hasattr(matrix, "multiply"):
        return np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    squares: npt.NDArray[np.float64] = np.square(np.asarray(matrix, np.float64)).sum(axis=1)
    return squares


class StreamingLda(NamedTuple):
    """Incremental linear discriminant analysis: a mean for each class and one covariance, updated by further examples
    without the earlier ones.

    After Hayes & Kanan 2020, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis". Departures:
    sums are exact, so that the order of examples and of their batches changes nothing but roundings; and the covariance
    is shrunk towards its mean variance, so that `shrinkage` means the same whatever the scale of the features.
    """

    means: Floats  # (K, D)
    counts: Floats  # (K,)
    scatter: Floats  # (D, D): sum over examples of how far they lie from the mean of their class
    shrinkage: Floats  # ()

    @classmethod
    def empty(cls, classes: int, width: int, shrinkage: float) -> Self:
        zeros = np.zeros((classes, width))
        return cls(zeros, np.zeros(classes), np.zeros((width, width)), np.array(shrinkage))

    def placed(self, places: npt.NDArray[np.int64], classes: int) -> StreamingLda:
        """The estimator with its classes among more: each at its place, the new ones without an example."""
        means, counts = np.zeros((classes, self.means.shape[1])), np.zeros(classes)
        means[places], counts[places] = self.means, self.counts
        return self._replace(means=means, counts=counts)

    def learned(self, inputs: npt.NDArray[Any], targets: npt.NDArray[np.int64]) -> StreamingLda:
        """The estimator with further examples (N, D) of classes (N,); class -1 is ignored."""
        means, counts, scatter = self.means.copy(), self.counts.copy(), self.scatter.copy()
        for place in np.unique(targets[targets >= 0]):
            rows = np.asarray(inputs[targets == place], np.float64)
            mean, before, more = rows.mean(0), counts[place], len(rows)
            apart, centred = mean - means[place], rows - mean
            scatter += centred.T @ centred + before * more / (before + more) * np.outer(apart, apart)
            counts[place] = before + more
            means[place] += apart * more / counts[place]
        return StreamingLda(means, counts, scatter, self.shrinkage)

    def scores(self, inputs: Any) -> Floats:
        """(N, D) -> (N, K): log probabilities up to a constant, with equal priors; very low for classes without an
        example."""
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


FORMS: Mapping[str, type[Any]] = {
    "linear": Linear, "kernel": Kernel, "trees": Trees, "neighbours": Neighbours, "identity": Identity,
    "per unit": PerUnit, "neighbours per unit": NeighboursPerUnit, "trees per unit": TreesPerUnit,
    "distance": Distance, "gaussian": Gaussian, "streaming": StreamingLda, "perceptrons": Perceptrons,
    "quadratic": Quadratic,
}  # fmt: skip
