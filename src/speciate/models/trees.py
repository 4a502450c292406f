"""Gradient-boosted trees as flat arrays, walked all at once.

Every step moves each (example, tree) pair one level down, so one example costs as many array operations as the deepest
tree has levels, whatever the number of trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_CHUNK = 256


class Trees(NamedTuple):
    """Nodes of T trees, one after another; children are absolute positions. A leaf's `feature` is -1."""

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


def from_boosting(model: Any) -> Trees:
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
    """Those of one output each as one of many: (N, K)."""
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
