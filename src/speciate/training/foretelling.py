"""Classical forecasts: all steps to come straight from the last ones seen, by a weighted sum or as in the past windows
that are most alike. A sum of lags can do what DLinear does (Zeng et al. 2023): its moving average is one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.estimators import Estimator
from speciate.models.linear import Linear
from speciate.models.neighbours import remember
from speciate.tasks.lags import Lags
from speciate.training.selection import Learner, Way
from speciate.training.study import Study

_PENALTIES = (1.0, 100.0)
_SEEN = ((2, 8), (4, 24), (8, 48))
"""Steps that are seen: this many horizons, and at least so many."""
_MOST_STEPS, _MOST_COLUMNS = 512, 4000


def ways(study: Study, wanted: Sequence[str]) -> list[Way]:
    """From few steps to many. `wanted`: "neighbours" or "ridge"; empty: both."""
    channels = len(study.train[0].media)
    horizon = study.payload.terms.horizon or 1
    longest = max(example.media.shape[1] for example in study.train)
    steps = sorted({min(max(times * horizon, least), longest, _MOST_STEPS) for times, least in _SEEN})
    learners = [
        Learner("neighbours", _alike),
        *(Learner(f"ridge {penalty:g}", _together(penalty), _too_large) for penalty in _PENALTIES),
    ]
    if channels > 1:  # one sum for all channels, each from its own past: needs less
        learners += [Learner(f"ridge of a channel {penalty:g}", _apart(penalty, channels)) for penalty in _PENALTIES]
    learners = [learner for learner in learners if not wanted or learner.name.split()[0] in wanted]
    return [
        Way(f"last {seen} steps", partial(Lags.fit, steps=seen, horizon=horizon), tuple(learners)) for seen in steps
    ]


Learn = Callable[[Any, npt.NDArray[Any], int], Estimator]


def _together(penalty: float) -> Learn:
    def learn(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
        weight, bias = _ridge(penalty, inputs, targets)
        return Linear(weight, bias)

    return learn


def _apart(penalty: float, channels: int) -> Learn:
    def learn(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
        count = len(inputs) * channels
        weight, bias = _ridge(penalty, inputs.reshape(count, -1), targets.reshape(count, -1))
        return Linear(np.kron(np.eye(channels), weight), np.tile(bias, channels))

    return learn


def _ridge(penalty: float, inputs: Any, targets: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=penalty).fit(inputs, targets)
    return np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)


def _alike(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Estimator:
    return remember(inputs, targets, 5, votes=False)


def _too_large(rows: int, columns: int, classes: int) -> str | None:
    return f"sums of {columns:,} columns would take minutes" if columns > _MOST_COLUMNS else None
