"""Few labels and many examples without one: a head learns from its own surest answers to these, round by round.

Self-training (Scudder 1965; pseudo-labels, Lee 2013) on frozen vectors, where it costs a few fits of a linear head.
Each round takes more of the answers, of each label its surest ones, so that a frequent label does not crowd out the
rest. Together they weigh as much as the labelled examples. Whether it helps is decided on held-out labels, beside the
plain head: on data whose clusters are not its labels it does not.
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


def _surest(shares: npt.NDArray[np.float64], taken: float) -> npt.NDArray[np.int64]:
    """Places of this share of each label's answers, the surest of them."""
    given = shares.argmax(axis=1)
    found = []
    for label in np.unique(given):
        own = np.flatnonzero(given == label)
        order = own[np.argsort(-shares[own, label], kind="stable")]
        found.append(order[: math.ceil(taken * len(own))])
    return np.concatenate(found)
