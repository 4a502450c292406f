"""TabM (Gorishniy et al. 2025, "TabM: Advancing tabular deep learning with parameter-efficient ensembling") as arrays.

Many perceptrons in one: they share their layers, and each scales what goes into a layer and what comes out of it by
numbers of its own. The mean of their answers is the answer. Here the last layer is shared, too. It answers without
torch; training/recipes/tabm.py learns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_FARTHEST = 5.0
"""Spreads from the mean, beyond which a number counts as so far."""
_CHUNK = 256
"""Examples at a time."""
_LEAST = 1e-9
"""Probability."""
_OF_ALL = ("ranked", "shift", "classes")
"""Fields that do not belong to one network."""


class Perceptrons(NamedTuple):
    """`B` networks, whose answers are averaged, each of `M` members with two layers of `W` units.

    `D` numbers are read, `R` of them also as ranks: I = D + R.
    """

    ranked: npt.NDArray[np.int64]  # (R,) columns
    knots: npt.NDArray[np.float64]  # (B, R, Q) quantiles of their training values, equally far apart in rank
    into_first: Floats  # (B, M, I)
    first: Floats  # (B, W, I)
    out_of_first: Floats  # (B, M, W)
    first_bias: Floats  # (B, M, W)
    into_second: Floats  # (B, M, W)
    second: Floats  # (B, W, W)
    out_of_second: Floats  # (B, M, W)
    second_bias: Floats  # (B, M, W)
    into_last: Floats  # (B, M, W)
    last: Floats  # (B, K, W)
    last_bias: Floats  # (B, K)
    shift: npt.NDArray[np.float64]  # (K,), or (1,) of two classes and of numbers: added to the scores
    classes: npt.NDArray[Any]  # () 1 where the K outputs are log odds of classes; 0: numbers

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, K) log probabilities, (N, 1) log odds of the second of two classes, or (N, K) numbers."""
        matrix = np.asarray(inputs, np.float64)
        starts = range(0, max(len(matrix), 1), _CHUNK)
        answers = np.concatenate(
            [
                np.mean(
                    [self._answers(network, matrix[at : at + _CHUNK]) for network in range(len(self.first))], axis=0
                )
                for at in starts
            ]
        )
        if not self.classes:
            return answers + self.shift
        logs: npt.NDArray[np.float64] = np.log(np.maximum(answers, _LEAST))
        return (logs[:, 1:] - logs[:, :1] if logs.shape[1] == 2 else logs) + self.shift

    def _answers(self, network: int, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(N, K) probabilities or numbers, the mean of one network's members."""
        own = {name: array[network] for name, array in self._asdict().items() if name not in _OF_ALL}
        state = with_ranks(inputs, self.ranked, own["knots"])[:, None]
        state = ((state * own["into_first"]) @ own["first"].T) * own["out_of_first"] + own["first_bias"]
        state = (np.maximum(state, 0) * own["into_second"]) @ own["second"].T
        state = np.maximum(state * own["out_of_second"] + own["second_bias"], 0)
        outputs = ((state * own["into_last"]) @ own["last"].T + own["last_bias"]).astype(np.float64)
        if self.classes:
            powers = np.exp(outputs - outputs.max(axis=2, keepdims=True))
            outputs = powers / powers.sum(axis=2, keepdims=True)
        return np.asarray(outputs.mean(axis=1))

    @property
    def parameters(self) -> int:
        return int(sum(array.size for name, array in self._asdict().items() if name not in (*_OF_ALL, "knots")))


def side_by_side(networks: Sequence[Perceptrons]) -> Perceptrons:
    """One that answers with the mean of them all. Learned from other rows, they may rank other columns."""
    ranked = np.unique(np.concatenate([each.ranked for each in networks]))
    alike = [_ranking(each, ranked) for each in networks]
    joined = {
        name: np.concatenate([getattr(each, name) for each in alike])
        for name in Perceptrons._fields
        if name not in _OF_ALL
    }
    return alike[0]._replace(**joined)


def _ranking(network: Perceptrons, ranked: npt.NDArray[np.int64]) -> Perceptrons:
    """The same answers from these columns' ranks, `network.ranked` among them: further ones weigh nothing."""
    numbers = network.first.shape[2] - len(network.ranked)
    places = np.searchsorted(ranked, network.ranked)
    kept = np.concatenate([np.arange(numbers), numbers + places])

    def widened(array: Floats, fill: float) -> Floats:
        wide = np.full((*array.shape[:2], numbers + len(ranked)), fill, array.dtype)
        wide[:, :, kept] = array
        return wide

    knots = np.zeros((len(network.knots), len(ranked), network.knots.shape[2]))
    knots[:, places] = network.knots
    return network._replace(
        ranked=ranked, knots=knots, into_first=widened(network.into_first, 1.0), first=widened(network.first, 0.0)
    )


def with_ranks(
    inputs: npt.NDArray[np.float64], ranked: npt.NDArray[np.int64], knots: npt.NDArray[np.float64]
) -> Floats:
    """(N, D) -> (N, D + R): the numbers, and ranks from -1 to 1, which outliers and skew do not reach."""
    ranks = [_rank(inputs[:, column], own) for column, own in zip(ranked, knots, strict=True)]
    found: Floats = np.column_stack([np.clip(inputs, -_FARTHEST, _FARTHEST), *ranks]).astype(np.float32)
    return found


def _rank(values: npt.NDArray[np.float64], knots: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Between knots in proportion; of a value that many training rows share, the middle of their ranks."""
    different, first = np.unique(knots, return_index=True)
    last = len(knots) - 1 - np.unique(knots[::-1], return_index=True)[1]
    return np.interp(values, different, (first + last) / (len(knots) - 1) - 1)
