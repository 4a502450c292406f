"""Few labels and many examples without one: a head learns from its own surest answers to these, round by round.

Self-training (Scudder 1965; pseudo-labels, Lee 2013) on frozen vectors, where it costs a few fits of a linear head.
Each round takes more of the answers, of each label its surest ones, so that a frequent label does not crowd out the
rest. Together they weigh as much as the labelled examples. Whether it helps is decided on held-out labels, beside the
plain head: on data whose clusters are not its labels it does not.

Label spreading (Zhou et al. 2004) lets labels flow along a graph of nearest neighbours instead; a head then learns from
what reached each example, by how sure it is. With many labels of few examples it was far better, with two labels worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.blend import answers_of
from speciate.models.estimators import Linear

WeightedLearn = Callable[[Any, npt.NDArray[Any], int, npt.NDArray[np.float64] | None], Linear]
"""(inputs, targets, seed, weight of each example)"""
Teaching = Callable[[WeightedLearn, Callable[[], npt.NDArray[Any]]], Callable[[Any, npt.NDArray[Any], int], Linear]]
MOST_LABELLED, FEWEST_UNLABELLED, MOST_UNLABELLED = 2000, 50, 5000
"""Examples. With more labels the rest hardly helps; of more without one a sample is taken."""
_ROUNDS, _MOST_TAKEN = 5, 0.8
"""The last round takes this share of each label's answers."""


def self_trained(
    learn: WeightedLearn, unlabelled: Callable[[], npt.NDArray[Any]]
) -> Callable[[Any, npt.NDArray[Any], int], Linear]:
    """`unlabelled()`: (U, D), as the inputs are."""

    def learn_more(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        others = unlabelled()
        head = learn(inputs, targets, seed, None)
        for number in range(1, _ROUNDS + 1):
            shares = answers_of(head.scores(others), "classes", 1.0)
            places = _surest(shares, _MOST_TAKEN * number / _ROUNDS)
            weight = min(1.0, len(targets) / max(len(places), 1))
            head = learn(
                np.concatenate([inputs, others[places]]),
                np.concatenate([targets, shares.argmax(axis=1)[places]]),
                seed,
                np.concatenate([np.ones(len(targets)), np.full(len(places), weight)]),
            )
        return head

    return learn_more


_NEIGHBOURS, _POWER, _FLOW, _SPREADS, _SPREAD_WEIGHT = 10, 3, 0.9, 20, 0.3
_BLOCK = 512


def spread_labels(
    learn: WeightedLearn, unlabelled: Callable[[], npt.NDArray[Any]]
) -> Callable[[Any, npt.NDArray[Any], int], Linear]:
    """As `self_trained`."""

    def learn_more(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        others = unlabelled()
        shares = _flowed(np.concatenate([inputs, others]), targets)[len(targets) :]
        count = shares.shape[1]
        sure = np.clip((shares.max(axis=1) - 1 / count) / (1 - 1 / count), 0, 1)
        return learn(
            np.concatenate([inputs, others]),
            np.concatenate([targets, shares.argmax(axis=1)]),
            seed,
            np.concatenate([np.ones(len(targets)), _SPREAD_WEIGHT * sure]),
        )

    return learn_more


def _flowed(vectors: npt.NDArray[Any], targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, K) shares of the labels that reach each example; the first ones have `targets`."""
    from scipy.sparse import csr_array, diags_array

    middled = vectors - vectors.mean(axis=0)
    unit = (middled / (np.linalg.norm(middled, axis=1, keepdims=True) + 1e-9)).astype(np.float32)
    total, near = len(unit), min(_NEIGHBOURS, len(unit) - 1)
    places, weights = np.empty((total, near), np.int64), np.empty((total, near))
    for start in range(0, total, _BLOCK):
        alike = unit[start : start + _BLOCK] @ unit.T
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -np.inf
        found = np.argpartition(-alike, near - 1, axis=1)[:, :near]
        places[start : start + _BLOCK] = found
        weights[start : start + _BLOCK] = np.maximum(np.take_along_axis(alike, found, axis=1), 0) ** _POWER
    rows = np.repeat(np.arange(total), near)
    graph = csr_array((weights.ravel(), (rows, places.ravel())), shape=(total, total))
    graph = graph.maximum(graph.T)
    scale = diags_array((np.asarray(graph.sum(axis=1)).ravel() + 1e-9) ** -0.5)
    flow = scale @ graph @ scale
    known = np.zeros((total, int(targets.max()) + 1))
    known[np.arange(len(targets)), targets] = 1
    known /= np.maximum(known.sum(axis=0), 1)  # a frequent label has no more to give than a rare one
    reached = known.copy()
    for _ in range(_SPREADS):
        reached = _FLOW * (flow @ reached) + (1 - _FLOW) * known
    shares: npt.NDArray[np.float64] = (reached + 1e-12) / (reached + 1e-12).sum(axis=1, keepdims=True)
    return shares


def _surest(shares: npt.NDArray[np.float64], taken: float) -> npt.NDArray[np.int64]:
    """Places of this share of each label's answers, the surest of them."""
    given = shares.argmax(axis=1)
    found = []
    for label in np.unique(given):
        own = np.flatnonzero(given == label)
        order = own[np.argsort(-shares[own, label], kind="stable")]
        found.append(order[: math.ceil(taken * len(own))])
    return np.concatenate(found)
