"""Gradient-boosted trees whose number of rounds is found on examples that they did not learn from.

LightGBM where it is installed (the extra `boosting`), else scikit-learn's histogram boosting. Either way what is kept
are plain arrays: serving and exports need neither. The loss follows the metric: absolute errors where those count.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.environment import import_without_pandas, openmp_threads
from speciate.models.estimators import Trees, trees_from_boosting
from speciate.training.selection.lanes import NO_LANES, Lanes
from speciate.training.selection.learners import Learner, in_words
from speciate.training.selection.thorough_search import Configuration

Targets = npt.NDArray[Any]
Weights = npt.NDArray[np.float64] | None
_STOP_SHARE, _FEWEST_TO_STOP = 0.15, 200
"""Share of the examples by which the number of rounds is chosen; with fewer examples the usual number is taken."""
_RATE, _USUAL_ROUNDS, _MOST_ROUNDS, _PATIENCE = 0.05, 150, 800, 30
_ONE_THREAD_CELLS = 5_000_000
"""Numbers of a matrix below which one thread grows the trees: of 1.1 million two took 1.4 times as long on free cores,
and 2.4 times beside other work."""
_NODES = 400_000
"""Leaves of all trees together, at most: a model is a few megabytes and answers in milliseconds."""


def boosted_classifier(
    inputs: Any, targets: Targets, seed: int, weights: Weights = None, rounds: int | None = None,
    lanes: Lanes = NO_LANES,
) -> Trees:  # fmt: skip
    """`rounds`: as many as that; None: found on held-out examples, beside the fit on all where there are `lanes`."""
    classes = int(targets.max()) + 1
    if not _has_lightgbm():
        return _histograms(inputs, targets, seed, "classifier", weights, rounds)
    objective = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": classes}
    return _lightgbm(inputs, targets, seed, objective, classes if classes > 2 else 1, weights, rounds, lanes)


def boosted_regression(absolute: bool) -> Callable[..., Trees]:
    """`absolute`: by absolute errors, not squared ones."""

    def learn(
        inputs: Any, targets: Targets, seed: int, weights: Weights = None, rounds: int | None = None,
        lanes: Lanes = NO_LANES,
    ) -> Trees:  # fmt: skip
        if not _has_lightgbm():
            loss = "absolute_error" if absolute else "squared_error"
            return _histograms(inputs, targets, seed, loss, weights, rounds)
        return _lightgbm(inputs, targets, seed, {"objective": "l1" if absolute else "l2"}, 1, weights, rounds, lanes)

    return learn


def rounds_of(trees: Trees) -> Mapping[str, int]:
    """The number of rounds that a fit has found, for another one on some more examples."""
    return {"rounds": len(trees.roots) // len(trees.baseline)}


def _has_lightgbm() -> bool:
    return importlib.util.find_spec("lightgbm") is not None


def _held_out(targets: Targets, seed: int, *, labelled: bool) -> npt.NDArray[np.bool_] | None:
    """Which examples choose the number of rounds; None where they are too few."""
    count = len(targets)
    if count < _FEWEST_TO_STOP:
        return None
    held = np.zeros(count, np.bool_)
    chance = np.random.default_rng(seed)
    for value in np.unique(targets) if labelled else (None,):
        places = np.flatnonzero(targets == value) if labelled else np.arange(count)
        held[chance.permutation(places)[: int(_STOP_SHARE * len(places))]] = True
    return held if held.any() else None


def _library() -> Any:
    """LightGBM, without pandas, which it imports where that is installed: in another lane scikit-learn would meet one
    half imported."""
    if "lightgbm" not in sys.modules:
        import_without_pandas("lightgbm")
    return importlib.import_module("lightgbm")


def _lightgbm(
    inputs: Any, targets: Targets, seed: int, objective: dict[str, Any], outputs: int, weights: Weights,
    known: int | None, lanes: Lanes,
) -> Trees:  # fmt: skip
    """Two fits where the rounds are not known: one on most examples, judged on the others, and one on all. The same
    round of a fit is the same tree, however many follow, so the second one runs beside the first as far as it surely
    will go."""
    lightgbm = _library()

    def dataset(places: Any, **more: Any) -> Any:
        weight = None if weights is None else weights[places]
        return lightgbm.Dataset(inputs[places], targets[places], weight=weight, **more)

    parameters = {**_usual(len(inputs), inputs.shape[1], seed), **objective}
    train = partial(lightgbm.train, keep_training_booster=True)  # else it is written as text and read again
    inputs = np.ascontiguousarray(inputs, np.float64)
    most = max(20, min(_MOST_ROUNDS, _NODES // (parameters["num_leaves"] * outputs)))
    held = _held_out(targets, seed, labelled=objective["objective"] in ("binary", "multiclass"))
    if held is None or known is not None:
        booster = train(parameters, dataset(slice(None)), known or min(_USUAL_ROUNDS, most))
        return trees_from_lightgbm(booster.dump_model(), outputs)
    rounds = _Rounds(most)

    def fit_all() -> Any:
        return train(parameters, dataset(slice(None)), most, callbacks=[rounds.end_there])

    final = lanes.turn(fit_all)
    if parameters["num_threads"] == 1:
        final.begin()
    try:
        learned = dataset(~held)
        judged = dataset(held, reference=learned)
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        best = train(parameters, learned, most, valid_sets=[judged], callbacks=[stop, rounds.see_best]).best_iteration
        rounds.settle(_enough(best, most))
    finally:
        rounds.settle(1)  # nobody waits for a fit that failed
    booster = fit_all() if final.drop() else final.result()
    return trees_from_lightgbm(booster.dump_model(), outputs)


def _enough(best: int, most: int) -> int:
    """Rounds on all examples, where `best` were the best on most of them."""
    return max(1, min(most, round(1.1 * best)))


class _Rounds:
    """How many rounds a fit takes, which another fit finds meanwhile. They are never fewer than that one's best round
    so far asks for, so it goes so far and waits."""

    def __init__(self, most: int) -> None:
        self._most, self._best = most, math.inf
        self._surely, self._settled = 0, False
        self._changed = threading.Condition()

    def see_best(self, seen: Any) -> None:
        """Callback of the fit that finds them, beside the one that stops early: the least loss is the best."""
        loss = seen.evaluation_result_list[0][2]
        if loss < self._best:
            self._best = loss
            with self._changed:
                self._surely = _enough(seen.iteration + 1, self._most)
                self._changed.notify()

    def settle(self, rounds: int) -> None:
        """The first time counts."""
        with self._changed:
            if not self._settled:
                self._surely, self._settled = rounds, True
                self._changed.notify()

    def end_there(self, seen: Any) -> None:
        """Callback of the fit that takes them."""
        from lightgbm.callback import EarlyStopException

        done = seen.iteration + 1
        with self._changed:
            self._changed.wait_for(lambda: self._settled or done < self._surely)
        if self._settled and done >= self._surely:
            raise EarlyStopException(seen.iteration, [])


_MOST_COLUMNS, _LEAST_COLUMNS, _COLUMNS_A_TREE = 0.8, 0.3, 24
"""Share of the columns that a tree may split by, at most and at least, and how many there are between."""


def _usual(count: int, columns: int, seed: int) -> dict[str, Any]:
    """A tree sees fewer of many columns: on five sets of 64 to 346 columns a share of 0.3 was as good as 0.8 or better
    by accuracy and log loss, in 0.6 of the time (evals/LOG.md)."""
    return {
        "learning_rate": _RATE, "num_leaves": 15 if count < 2000 else 31,
        "min_data_in_leaf": max(2, min(10, count // 50)),
        "feature_fraction": max(_LEAST_COLUMNS, min(_MOST_COLUMNS, _COLUMNS_A_TREE / max(columns, 1))),
        "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0, "verbose": -1, "seed": seed,
        "deterministic": True, "force_col_wise": True, "num_threads": _threads(count * columns),
    }  # fmt: skip


def staged(
    name: str, settings: Mapping[str, Any], rounds: Sequence[int], classes: int, loss: str, seed: int
) -> Configuration:
    """One training for several numbers of rounds, which are its variants. `settings`: LightGBM's, beside the usual
    ones; without LightGBM the learning rate and the leaves count. `classes`: 0 of numbers, by the `loss`."""

    def learn(inputs: Any, targets: Targets, own: int, *, count: int) -> Trees:
        made = _trained(inputs, targets, settings, count, classes, loss, seed)
        outputs = classes if classes > 2 else 1
        return trees_from_lightgbm(made.dump_model(), outputs) if _has_lightgbm() else trees_from_boosting(made)

    def answer(inputs: Any, targets: Targets, held: Any, own: int) -> list[npt.NDArray[np.float64]]:
        made = _trained(inputs, targets, settings, rounds[-1], classes, loss, seed)
        if not _has_lightgbm():
            trees = trees_from_boosting(made)
            outputs = len(trees.baseline)
            return [first_trees(trees, count * outputs).scores(held) for count in rounds]
        found = [np.asarray(made.predict(held, num_iteration=count, raw_score=True)) for count in rounds]
        return [each[:, None] if each.ndim == 1 else each for each in found]

    known = settings if _has_lightgbm() else {key: settings[key] for key in _KNOWN if key in settings}
    learners = tuple(
        Learner(f"{name}, {count} rounds", partial(learn, count=count), settings=in_words({"rounds": count, **known}))
        for count in rounds
    )
    return Configuration(learners, answer)


_KNOWN = ("learning_rate", "num_leaves")
"""Settings that count without LightGBM, too."""


def _trained(
    inputs: Any, targets: Targets, settings: Mapping[str, Any], rounds: int, classes: int, loss: str, seed: int
) -> Any:
    if not _has_lightgbm():
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        known = {"max_leaf_nodes": settings.get("num_leaves", 15), "learning_rate": settings.get("learning_rate", 0.05)}
        known |= {"max_iter": rounds, "early_stopping": False, "random_state": seed}
        if classes:
            return HistGradientBoostingClassifier(**known).fit(inputs, targets)
        errors = {"l1": "absolute_error", "l2": "squared_error"}[loss]
        return HistGradientBoostingRegressor(loss=errors, **known).fit(inputs, targets)
    lightgbm = _library()
    objective: dict[str, Any] = {"objective": "binary" if classes else loss}
    objective = {"objective": "multiclass", "num_class": classes} if classes > 2 else objective
    parameters = {**_usual(len(inputs), inputs.shape[1], seed), **objective, **settings}
    return lightgbm.train(parameters, lightgbm.Dataset(inputs, targets), rounds)


def first_trees(trees: Trees, count: int) -> Trees:
    """The first `count` trees alone."""
    end = int(trees.roots[count]) if count < len(trees.roots) else len(trees.feature)
    nodes = {name: getattr(trees, name)[:end] for name in trees._fields if name not in ("roots", "output", "baseline")}
    return trees._replace(**nodes, roots=trees.roots[:count], output=trees.output[:count])


def trees_from_lightgbm(dumped: dict[str, Any], outputs: int) -> Trees:
    """`Booster.dump_model()` of numeric features as arrays: the scores are its raw scores."""
    parts: dict[str, list[Any]] = {name: [] for name in Trees._fields}

    def add(node: dict[str, Any]) -> int:
        place = len(parts["feature"])
        leaf = "leaf_value" in node and "split_feature" not in node
        left_where_missing = node.get("default_left", False)
        if not leaf and node.get("missing_type") == "None":  # NaN is read as 0
            left_where_missing = node["threshold"] >= 0
        for name, value in (
            ("feature", -1 if leaf else node["split_feature"]),
            ("threshold", 0.0 if leaf else node["threshold"]),
            ("left", 0),
            ("right", 0),
            ("value", node["leaf_value"] if leaf else 0.0),
            ("missing_left", left_where_missing),
        ):
            parts[name].append(value)
        if not leaf:
            parts["left"][place] = add(node["left_child"])
            parts["right"][place] = add(node["right_child"])
        return place

    for number, tree in enumerate(dumped["tree_info"]):
        parts["roots"].append(add(tree["tree_structure"]))
        parts["output"].append(number % outputs)
    kinds = {"feature": np.int32, "left": np.int32, "right": np.int32, "roots": np.int32, "output": np.int32}
    found = {
        name: np.array(values, bool if name == "missing_left" else kinds.get(name, np.float64))
        for name, values in parts.items()
    }
    return Trees(**{**found, "baseline": np.zeros(outputs)})


def _histograms(inputs: Any, targets: Targets, seed: int, loss: str, weights: Weights, known: int | None) -> Trees:
    """scikit-learn's. Once with early stopping for the number of rounds, then on all examples."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    labelled = loss == "classifier"
    made: Any = HistGradientBoostingClassifier if labelled else HistGradientBoostingRegressor
    classes = len(np.unique(targets)) if labelled else 1
    outputs = classes if classes > 2 else 1
    most = max(20, min(_MOST_ROUNDS, _NODES // (31 * outputs)))
    settings: dict[str, Any] = {"learning_rate": 0.1, "random_state": seed, **({} if labelled else {"loss": loss})}
    rounds = known or min(60 if labelled else 100, most)
    smallest = np.bincount(targets).min() if labelled else math.inf
    if len(targets) >= _FEWEST_TO_STOP and smallest >= 2 and known is None:
        tried = made(
            **settings, max_iter=most, early_stopping=True, validation_fraction=_STOP_SHARE,
            n_iter_no_change=_PATIENCE // 2,
        ).fit(inputs, targets, weights)  # fmt: skip
        rounds = max(5, round(1.1 * (tried.n_iter_ - _PATIENCE // 2)))
    return trees_from_boosting(made(**settings, max_iter=rounds, early_stopping=False).fit(inputs, targets, weights))


def _threads(cells: int) -> int:
    """What a run may use, of few numbers one: threads wait for each other in every step, on a busy machine long."""
    return 1 if cells < _ONE_THREAD_CELLS else openmp_threads()
