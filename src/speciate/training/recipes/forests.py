"""Extremely randomised trees (Geurts, Ernst & Wehenkel 2006) as arrays: many trees that split at random, averaged.

Scores are shares of votes, so that a temperature makes them probabilities. A tree answers for one label in our arrays:
with more than two labels each tree stands there once a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.estimators import Trees
from speciate.training.selection.learners import Learner, in_words
from speciate.training.selection.thorough_search import Configuration

Targets = npt.NDArray[Any]
_TREES = 200
_MOST_NODES = 3_000_000
"""Nodes of all trees and labels together, at most."""


def extra_trees_classifier(features: float | str = "sqrt") -> Callable[[Any, Targets, int], Trees]:
    """`features`: how many are looked at in each split."""

    def learn(inputs: Any, targets: Targets, seed: int, weights: Targets | None = None) -> Trees:
        from sklearn.ensemble import ExtraTreesClassifier

        classes = len(np.unique(targets))
        model = ExtraTreesClassifier(
            _TREES, criterion="entropy", max_features=features, min_samples_leaf=_least_leaf(len(targets), classes),
            random_state=seed,
        ).fit(inputs, targets, weights)  # fmt: skip
        return _trees(model, classes)

    return learn


def extra_trees_regression(features: float = 1 / 3, leaf: int = 2) -> Callable[[Any, Targets, int], Trees]:
    """`features`: share that is looked at in each split. `leaf`: examples in one, at least."""

    def learn(inputs: Any, targets: Targets, seed: int, weights: Targets | None = None) -> Trees:
        from sklearn.ensemble import ExtraTreesRegressor

        least = max(leaf, _least_leaf(len(targets), 1))
        model = ExtraTreesRegressor(_TREES, max_features=features, min_samples_leaf=least, random_state=seed)
        return _trees(model.fit(inputs, targets, weights), 1)

    return learn


def forest(name: str, *, classes: int, extra: bool, features: float | str, leaf: int) -> Configuration:
    """`classes`: 0 of numbers. `extra`: splits at random, else the best ones of a sample of the rows (Breiman 2001)."""

    def grow(inputs: Any, targets: Targets, seed: int) -> Any:
        from sklearn import ensemble

        kind = ("ExtraTrees" if extra else "RandomForest") + ("Classifier" if classes else "Regressor")
        least = max(leaf, _least_leaf(len(targets), max(classes, 1)))
        by: dict[str, Any] = {"criterion": "entropy"} if classes else {}
        model = getattr(ensemble, kind)(_TREES, max_features=features, min_samples_leaf=least, random_state=seed, **by)
        return model.fit(inputs, targets)

    def answer(inputs: Any, targets: Targets, held: Any, seed: int) -> list[npt.NDArray[np.float64]]:
        model = grow(inputs, targets, seed)
        if not classes:
            return [model.predict(held)[:, None]]
        shares = model.predict_proba(held)
        return [shares if classes > 2 else shares[:, 1:] - 0.5]

    def learn(inputs: Any, targets: Targets, seed: int) -> Trees:
        return _trees(grow(inputs, targets, seed), max(classes, 1))

    settings = in_words({"max_features": features, "min_samples_leaf": leaf})
    return Configuration((Learner(name, learn, settings=settings),), answer)


def _least_leaf(examples: int, classes: int) -> int:
    """Examples in a leaf: so many that the arrays stay small."""
    copies = classes if classes > 2 else 1
    return max(1, math.ceil(2 * examples * _TREES * copies / _MOST_NODES))


def _trees(model: Any, classes: int) -> Trees:
    """A fitted forest. `classes`: 1 of a number; two classes give one score, the share of the second above a half."""
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in Trees._fields}
    outputs = classes if classes > 2 else 1
    offset, count = 0, len(model.estimators_)
    for grown in model.estimators_:
        tree = grown.tree_
        leaf = tree.children_left < 0
        shares = tree.value[:, 0, :]  # (nodes, K), or the mean of a number
        for output in range(outputs):
            value = shares[:, output] if classes != 2 else shares[:, 1] - 0.5
            parts["feature"].append(np.where(leaf, -1, tree.feature).astype(np.int32))
            parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
            parts["left"].append(np.where(leaf, 0, tree.children_left + offset).astype(np.int32))
            parts["right"].append(np.where(leaf, 0, tree.children_right + offset).astype(np.int32))
            parts["value"].append(np.where(leaf, value / count, 0.0))
            parts["missing_left"].append(np.zeros(len(leaf), np.bool_))
            parts["roots"].append(np.array([offset], np.int32))
            parts["output"].append(np.array([output], np.int32))
            offset += len(leaf)
    parts["baseline"].append(np.zeros(outputs))
    return Trees(**{name: np.concatenate(arrays) for name, arrays in parts.items()})
