"""Classical learners for more than a label or a number: label sets, ranks, tags, retrieval, anomalies, forecasts,
control, segmentation of volumes. Each returns plain arrays like any other (models/estimators.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.segmentation_masks import resize_labels
from speciate.models.estimators import (
    Estimator,
    Identity,
    Linear,
    NeighboursPerUnit,
    PerUnit,
    Trees,
    TreesPerUnit,
    UnitRows,
    fit_distance,
    fit_gaussian,
    fit_neighbours,
    side_by_side,
    trees_from_boosting,
    trees_from_isolation,
)
from speciate.tasks.families.control import StepStates
from speciate.tasks.families.forecasting import Lags
from speciate.tasks.families.segmentation import Segmentation, VoxelFeatures
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.training.training_context import TrainingContext

Learn = Callable[..., Any]
"""`learn(inputs, targets, seed)`; of yes and no: targets (N,) of 0 and 1, a Linear of one row."""
_CERTAIN_LOG_ODDS = 10.0
"""Log-odds of an answer that never was another one."""
_SHARPEST_C = 100.0


def one_versus_rest(learn: Learn) -> Learn:
    """Targets (N, K) of 0 and 1 -> Linear (K, D)."""

    def learn_each(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        columns = targets.T.astype(np.int64)
        rows = [_learn_binary(learn, inputs, column, seed) for column in columns]
        return Linear(np.concatenate([row.weight for row in rows]), np.concatenate([row.bias for row in rows]))

    return learn_each


def cumulative(learn: Learn, labels: int) -> Learn:
    """Ranks (N,) -> Linear (K - 1, D): for each but the last of K `labels`, whether it lies higher (Frank & Hall
    2001)."""

    def learn_bounds(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        above: Linear = one_versus_rest(learn)(inputs, targets[:, None] > np.arange(labels - 1), seed)
        return above

    return learn_bounds


def thresholds_on_a_line(line: Learn, logistic: Callable[[float], Learn], labels: int) -> Learn:
    """Ranks (N,) as one number, then where on it each of K - 1 bounds lies -> Linear (K - 1, D)."""

    def learn(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        fitted: Linear = line(inputs, targets.astype(np.float64), seed)
        bounds = cumulative(logistic(_SHARPEST_C), labels)(fitted.scores(inputs), targets, seed)
        return Linear(bounds.weight @ fitted.weight, bounds.weight @ fitted.bias + bounds.bias)

    return learn


def per_unit(learn: Learn, labels: int) -> Learn:
    """Codes of tags, (units,) for each example -> PerUnit (K, D). Tags that are not known, -1, are not learned from."""

    def learn_units(inputs: UnitRows, targets: Sequence[npt.NDArray[Any]], seed: int) -> PerUnit:
        codes = np.concatenate(list(targets))
        known = np.flatnonzero(codes >= 0)
        made = one_versus_rest(learn)(inputs.matrix[known], codes[known, None] == np.arange(labels), seed)
        return PerUnit(made.weight.astype(np.float32), made.bias)

    return learn_units


def keep_vectors(inputs: Any, targets: Any, seed: int) -> Estimator:
    return Identity(np.asarray(inputs.shape[1]))


def discriminant(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    """The axes along which labels differ most beside what varies within them (Fisher 1936; Rao 1948), K - 1 at most.

    The covariance within labels is shrunk (Ledoit & Wolf 2004), so that there may be fewer examples than columns.
    """
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf

    rows = np.asarray(inputs, np.float64)
    centre = rows.mean(axis=0)
    codes = np.unique(targets, return_inverse=True)[1]
    counts = np.bincount(codes)
    means = np.stack([np.bincount(codes, weights=column) for column in rows.T], axis=1) / counts[:, None]
    within = ledoit_wolf(rows - means[codes], assume_centered=True)[0]
    within += np.eye(len(within)) * (1e-6 * rows.var() or 1.0)  # where no label has two examples
    spread = (means - centre) * np.sqrt(counts / len(rows))[:, None]
    kept = min(len(counts) - 1, rows.shape[1])
    axes = eigh(spread.T @ spread, within)[1][:, ::-1][:, :kept]
    return Linear(np.ascontiguousarray(axes.T), -centre @ axes)


def _learn_binary(learn: Learn, inputs: Any, column: npt.NDArray[np.int64], seed: int) -> Linear:
    """Learn a column of 0 and 1. Where all answers are one, there is nothing to learn."""
    if column.min() == column.max():
        return Linear(
            np.zeros((1, inputs.shape[1])), np.array([_CERTAIN_LOG_ODDS if column[0] else -_CERTAIN_LOG_ODDS])
        )
    learned: Linear = learn(inputs, column, seed)
    return learned


# Anomaly detection, learned from normal examples: nearest neighbours, mean and covariance, an isolation forest.


_NOVELTY_NEIGHBOURS, _ISOLATION_TREES = 3, 200
_MOST_GAUSSIAN_COLUMNS = 3000


def _learn_nearest(inputs: Any, targets: Any, seed: int) -> Estimator:
    return fit_distance(inputs, _NOVELTY_NEIGHBOURS)


def _learn_gaussian(inputs: Any, targets: Any, seed: int) -> Estimator:
    return fit_gaussian(inputs)


def _learn_isolation(inputs: Any, targets: Any, seed: int) -> Estimator:
    from sklearn.ensemble import IsolationForest

    return trees_from_isolation(
        IsolationForest(n_estimators=_ISOLATION_TREES, random_state=seed).fit(np.asarray(inputs))
    )


def _gaussian_too_large(rows: int, columns: int, classes: int) -> str | None:
    """Why a covariance is too large, if it is: its time grows with the cube of the columns."""
    return f"a covariance of {columns:,} columns would take minutes" if columns > _MOST_GAUSSIAN_COLUMNS else None


SPARSE_ANOMALY_LEARNERS = (Learner("neighbours", _learn_nearest),)
DENSE_ANOMALY_LEARNERS = (
    Learner("neighbours", _learn_nearest),
    Learner("covariance", _learn_gaussian, _gaussian_too_large),
    Learner("isolation", _learn_isolation),
)


# Forecasts: all future steps at once from the last ones, by a weighted sum or as in the most similar past windows.
# A sum of lags can do what DLinear does (Zeng et al. 2023): its moving average is one, too.


_FORECAST_PENALTIES = (1.0, 100.0)
_HORIZONS_SEEN = ((2, 8), (4, 24), (8, 48))
"""Steps that are seen: this many horizons, and at least so many."""
_MOST_LAGS, _MOST_LAG_COLUMNS = 512, 4000


def forecasting_groups(context: TrainingContext, wanted: Sequence[str]) -> list[LearnerGroup]:
    """From few steps to many. `wanted`: "neighbours" or "ridge"; empty: both."""
    channels = len(context.train[0].media)
    horizon = context.payload.terms.horizon or 1
    longest = max(example.media.shape[1] for example in context.train)
    steps = sorted({min(max(times * horizon, least), longest, _MOST_LAGS) for times, least in _HORIZONS_SEEN})
    learners = [
        Learner("neighbours", _nearest_windows),
        *(Learner(f"ridge {penalty:g}", _joint_ridge(penalty), _too_many_lags) for penalty in _FORECAST_PENALTIES),
    ]
    if channels > 1:  # one sum for all channels, each from its own past: needs less
        learners += [
            Learner(f"ridge of a channel {penalty:g}", _channel_ridge(penalty, channels))
            for penalty in _FORECAST_PENALTIES
        ]
    learners = [learner for learner in learners if not wanted or learner.name.split()[0] in wanted]
    return [
        LearnerGroup(f"last {seen} steps", partial(Lags.fit, steps=seen, horizon=horizon), tuple(learners))
        for seen in steps
    ]


LearnForecast = Callable[[Any, npt.NDArray[Any], int], Estimator]


def _joint_ridge(penalty: float) -> LearnForecast:
    def learn(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
        weight, bias = _fit_forecast_ridge(penalty, inputs, targets)
        return Linear(weight, bias)

    return learn


def _channel_ridge(penalty: float, channels: int) -> LearnForecast:
    def learn(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
        count = len(inputs) * channels
        weight, bias = _fit_forecast_ridge(penalty, inputs.reshape(count, -1), targets.reshape(count, -1))
        return Linear(np.kron(np.eye(channels), weight), np.tile(bias, channels))

    return learn


def _fit_forecast_ridge(
    penalty: float, inputs: Any, targets: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=penalty).fit(inputs, targets)
    return np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)


def _nearest_windows(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    return fit_neighbours(inputs, targets, 5, votes=False)


def _too_many_lags(rows: int, columns: int, classes: int) -> str | None:
    return f"sums of {columns:,} columns would take minutes" if columns > _MOST_LAG_COLUMNS else None


# Control: the action from the state, by a weighted sum, as in the most similar steps, or by trees.


_MOST_STATES, _MOST_TREE_WORK = 200_000, 20_000_000
_CONTROL_PENALTY = 1.0
_CONTROL_TREES = 100


def control_groups(context: TrainingContext, wanted: Sequence[str]) -> list[LearnerGroup]:
    """From cheap to dear. `wanted`: "neighbours", "ridge", "boosting"; empty: all."""
    outputs = len(context.targets(context.train[:1])[0][0])
    plain = (
        Learner("ridge", _per_step(_control_ridge)),
        Learner("neighbours", _per_step(_nearest_states), _too_many_states),
        Learner("boosting", _per_step(_control_boosting), partial(_control_trees_too_large, outputs)),
    )
    found = [
        LearnerGroup("state", StepStates.fit, plain),
        LearnerGroup(
            "state and products", partial(StepStates.fit, products=True), (Learner("ridge", _per_step(_control_ridge)),)
        ),
    ]
    kept = (
        way._replace(learners=tuple(one for one in way.learners if not wanted or one.name in wanted)) for way in found
    )
    return [way for way in kept if way.learners]


LearnControl = Callable[[Any, Any, int], Estimator]


def _per_step(learn: LearnControl) -> LearnControl:
    """Learn from steps one by one; `targets`: (T, A) for each example."""

    def learn_steps(inputs: UnitRows, targets: Sequence[npt.NDArray[Any]], seed: int) -> Estimator:
        return learn(inputs.matrix, np.concatenate(list(targets)), seed)

    return learn_steps


def _control_ridge(rows: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=_CONTROL_PENALTY).fit(rows, targets)
    return PerUnit(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))


def _nearest_states(rows: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    return NeighboursPerUnit(*fit_neighbours(rows, targets, 5, votes=False))


def _control_boosting(rows: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    return TreesPerUnit(*side_by_side([_control_trees(rows, column, seed) for column in targets.T]))


def _control_trees(rows: Any, target: npt.NDArray[Any], seed: int) -> Trees:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(early_stopping=False, max_iter=_CONTROL_TREES, random_state=seed)
    return trees_from_boosting(model.fit(rows, target))


def _too_many_states(rows: int, columns: int, classes: int) -> str | None:
    if rows > _MOST_STATES:
        return f"{rows:,} steps are more than the {_MOST_STATES:,} that are looked through for each action"
    return None


def _control_trees_too_large(outputs: int, rows: int, columns: int, classes: int) -> str | None:
    """As for a label (classical.py): a tree per number of an action and round."""
    work = (rows + 5000) * columns * outputs
    return (
        f"{columns:,} columns and {outputs} numbers in an action would take minutes" if work > _MOST_TREE_WORK else None
    )


# Segmentation of volumes: the label of each voxel from its own values and those around it.


_LARGEST_SIDE = 32  # voxels along each axis
_MOST_VOXELS_PER_LABEL = 30_000
"""Voxels of each label, and of background, that are learned from."""


def segmentation_groups(task_head: Segmentation, logistic: Learn) -> list[LearnerGroup]:
    """`logistic`: a learner of yes and no."""
    side = min(task_head.side, _LARGEST_SIDE)
    learner = Learner("logistic", _learn_from_voxels(one_versus_rest(logistic), len(task_head.labels), side))
    return [LearnerGroup("voxels and their surroundings", lambda examples: VoxelFeatures(side), (learner,))]


def _learn_from_voxels(learn: Learn, labels: int, side: int) -> Callable[[UnitRows, Any, int], PerUnit]:
    """From some voxels of each label; what is no label of the training examples is not learned from."""

    def learn_voxels(inputs: UnitRows, targets: Sequence[npt.NDArray[Any]], seed: int) -> PerUnit:
        codes = np.concatenate([resize_labels(each, (side,) * each.ndim).ravel() for each in targets])
        chance = np.random.default_rng(seed)
        chosen = [_sample(np.flatnonzero(codes == code), chance) for code in range(labels + 1)]
        places = np.sort(np.concatenate(chosen))
        made = learn(inputs.matrix[places], codes[places, None] == np.arange(labels + 1), seed)
        return PerUnit(made.weight.astype(np.float32), made.bias)

    return learn_voxels


def _sample(places: npt.NDArray[np.int64], chance: np.random.Generator) -> npt.NDArray[np.int64]:
    return (
        places
        if len(places) <= _MOST_VOXELS_PER_LABEL
        else chance.choice(places, _MOST_VOXELS_PER_LABEL, replace=False)
    )
