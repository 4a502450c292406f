"""Classical policies: the action from the state, by a weighted sum, as in the most alike steps, or by trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.estimators import Estimator
from speciate.models.neighbours import remember
from speciate.models.trees import Trees, from_boosting, side_by_side
from speciate.models.units import NeighboursPerUnit, PerUnit, TreesPerUnit, UnitRows
from speciate.tasks.step_states import StepStates
from speciate.training.selection import Learner, Way
from speciate.training.study import Study

_MOST_REMEMBERED, _MOST_GROWN = 200_000, 20_000_000
_PENALTY = 1.0
_TREES = 100


def ways(study: Study, wanted: Sequence[str]) -> list[Way]:
    """From cheap to dear. `wanted`: "neighbours", "ridge", "boosting"; empty: all."""
    outputs = len(study.targets(study.train[:1])[0][0])
    plain = (
        Learner("ridge", _steps(_ridge)),
        Learner("neighbours", _steps(_alike), _too_many),
        Learner("boosting", _steps(_boosted), partial(_too_large, outputs)),
    )
    found = [
        Way("state", StepStates.fit, plain),
        Way("state and products", partial(StepStates.fit, products=True), (Learner("ridge", _steps(_ridge)),)),
    ]
    kept = (
        way._replace(learners=tuple(one for one in way.learners if not wanted or one.name in wanted)) for way in found
    )
    return [way for way in kept if way.learners]


Learn = Callable[[Any, Any, int], Estimator]


def _steps(learn: Learn) -> Learn:
    """From steps one by one; `targets`: (T, A) for each example."""

    def learn_steps(inputs: UnitRows, targets: Sequence[npt.NDArray[Any]], seed: int) -> Estimator:
        return learn(inputs.matrix, np.concatenate(list(targets)), seed)

    return learn_steps


def _ridge(rows: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=_PENALTY).fit(rows, targets)
    return PerUnit(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))


def _alike(rows: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    return NeighboursPerUnit(*remember(rows, targets, 5, votes=False))


def _boosted(rows: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    return TreesPerUnit(*side_by_side([_trees(rows, column, seed) for column in targets.T]))


def _trees(rows: Any, target: npt.NDArray[Any], seed: int) -> Trees:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(early_stopping=False, max_iter=_TREES, random_state=seed)
    return from_boosting(model.fit(rows, target))


def _too_many(rows: int, columns: int, classes: int) -> str | None:
    if rows > _MOST_REMEMBERED:
        return f"{rows:,} steps are more than the {_MOST_REMEMBERED:,} that are looked through for each action"
    return None


def _too_large(outputs: int, rows: int, columns: int, classes: int) -> str | None:
    """As for a label (classical.py): a tree per number of an action and round."""
    work = (rows + 5000) * columns * outputs
    return f"{columns:,} columns and {outputs} numbers in an action would take minutes" if work > _MOST_GROWN else None
