"""How promising frozen vectors are for a task, told without training: LogME and the H-score.

LogME (You et al. 2021): the log of the evidence of Bayesian linear regression on the vectors, per example, with the
precisions of weights and noise at their best; the mean over the columns of the targets. The H-score (Bao et al. 2019):
how much of the vectors' variance, each direction counted alike, lies between the classes; with more directions than
examples it says nothing unless the covariance is shrunk (Ibrahim et al. 2022), by Ledoit & Wolf 2004.

Both take vectors (N, D) and columns (N, K): 0 and 1 for classes (`indicators`), numbers as they are. Both are finite
whatever finite numbers come, constant vectors and single classes included. Neither is sure: what they rank first is
often not the best after fine-tuning (Agostinelli et al. 2022).

Departures. The best precisions are sought until they stay, at most 100 times, not 11. Of fewer examples than directions
the evidence counts only the directions that there are, as it must: the authors' second program counts the others in one
of its terms. Vectors are scaled as a whole, which changes no evidence; numbers to be found are brought to mean 0 and
spread 1, which moves the evidence of all candidates alike but for the mean, that vectors alone would have to tell. For
numbers the H-score is what its formula gives with the best linear guess in the place of the classes' means: for classes
the two are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.vocabulary import Family

Numbers = npt.NDArray[np.float64]

_ROUNDS, _STAYS = 100, 1e-6
_FLOOR = 1e-5
"""Added to sums of squares, as the authors of LogME do: a perfect fit has no noise, and its evidence no bound."""
_RATIO = 1e12
"""Largest ratio of the precisions, and its inverse the least: beyond, nothing changes any more."""
_CONSTANT = 1e-12
"""A spread of numbers of size 1 that is no more than rounding."""


class Evidence(NamedTuple):
    """`per_example` at these precisions of the weights and of the noise."""

    per_example: float
    alpha: float
    beta: float


def indicators(labels: npt.NDArray[np.integer]) -> Numbers:
    """(N,) codes -> (N, K), a column for each class that occurs."""
    return np.asarray(labels[:, None] == np.unique(labels)[None, :], np.float64)


def scaled(numbers: npt.NDArray[np.floating]) -> Numbers:
    """(N,) or (N, K) -> (N, K) with mean 0 and spread 1; what is constant becomes 0."""
    columns = np.asarray(numbers, np.float64).reshape(len(numbers), -1)
    largest = np.abs(columns).max(0, initial=0.0)
    columns = columns / np.where(largest > 0, largest, 1.0)  # so that no square is too large for a number
    middle = columns - columns.mean(0)
    spread = middle.std(0)
    varies = spread > _CONSTANT
    return np.where(varies, middle / np.where(varies, spread, 1.0), 0.0)


def logme(vectors: npt.NDArray[np.floating], columns: npt.NDArray[np.floating]) -> float:
    """Per example, in nats; greater is better. Values of different targets or examples cannot be compared."""
    found = _directions(_whole(vectors))
    return float(np.mean([_evidence(found, column).per_example for column in np.asarray(columns, np.float64).T]))


def evidence(vectors: npt.NDArray[np.floating], column: npt.NDArray[np.floating]) -> Evidence:
    """LogME's evidence for one column (N,), given vectors (N, D). `alpha` belongs to vectors whose mean square is 1."""
    return _evidence(_directions(_whole(vectors)), np.asarray(column, np.float64))


def h_score(
    vectors: npt.NDArray[np.floating], columns: npt.NDArray[np.floating], shrinkage: float | None = None
) -> float:
    """From 0 to the rank of the centred columns, for K classes K - 1; greater is better.

    `shrinkage` of the covariance towards a multiple of the identity, from 0 (as published first) to 1; None: as Ledoit
    and Wolf would.
    """
    whole = _whole(vectors)
    centred = whole - whole.mean(0)
    if math.sqrt(np.mean(np.square(centred))) < _CONSTANT:
        return 0.0
    centred = _whole(centred)
    found = _directions(centred)
    if shrinkage is None:
        shrinkage = _ledoit_wolf(centred)
    variance = found.squares / len(centred)
    shrunk = (1 - shrinkage) * variance + shrinkage * variance.sum() / centred.shape[1]
    told = np.square(_span(columns).T @ found.left).sum(0)  # of each direction, the part that the columns explain
    return float(np.sum((1 - shrinkage) * variance / shrunk * told))


class _Directions(NamedTuple):
    """Directions in which the vectors differ from 0: `left` (N, R) orthonormal, `squares` (R,) of the singular
    values."""

    left: Numbers
    squares: Numbers


def _whole(vectors: npt.NDArray[np.floating]) -> Numbers:
    """The vectors scaled to a mean square of 1, unless all are 0."""
    numbers = np.asarray(vectors, np.float64)
    largest = np.abs(numbers).max(initial=0.0)
    if largest == 0:
        return numbers
    numbers = numbers / largest
    return np.asarray(numbers / math.sqrt(np.mean(np.square(numbers))), np.float64)


def _directions(vectors: Numbers) -> _Directions:
    left, singular, _ = np.linalg.svd(vectors, full_matrices=False)
    there = singular > singular.max(initial=0.0) * max(vectors.shape) * np.finfo(np.float64).eps
    return _Directions(left[:, there], np.square(singular[there]))


def _evidence(found: _Directions, column: Numbers) -> Evidence:
    """The fixed point of You et al. 2022 in the ratio of the precisions, t = alpha / beta."""
    count, rank, squares = len(column), len(found.squares), found.squares
    seen = np.square(found.left.T @ column)  # of the column, by direction
    unseen = max(0.0, float(np.square(column).sum() - seen.sum()))
    ratio, alpha, beta, error, size = 1.0, 1.0, 1.0, 0.0, 0.0
    for _ in range(_ROUNDS):
        used = float(np.sum(squares / (squares + ratio)))
        size = float(np.sum(squares * seen / np.square(squares + ratio)))  # of the weights, squared
        error = float(np.sum(seen * np.square(ratio / (squares + ratio)))) + unseen
        alpha = used / (size + _FLOOR) if rank else 1.0
        beta = max(count - used, _FLOOR) / (error + _FLOOR)
        before, ratio = ratio, min(max(alpha / beta, 1 / _RATIO), _RATIO)
        if abs(ratio - before) <= _STAYS * before:
            break
    total = (
        0.5 * rank * math.log(max(alpha, 1 / _RATIO))
        + 0.5 * count * math.log(beta)
        - 0.5 * float(np.sum(np.log(max(alpha, 1 / _RATIO) + beta * squares)))
        - 0.5 * (beta * error + alpha * size)
        - 0.5 * count * math.log(2 * math.pi)
    )
    return Evidence(total / count, alpha, beta)


def _span(columns: npt.NDArray[np.floating]) -> Numbers:
    """(N, R): an orthonormal basis of the centred columns."""
    numbers = np.asarray(columns, np.float64)
    return _directions(numbers - numbers.mean(0)).left


def _ledoit_wolf(centred: Numbers) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(centred, assume_centered=True))


KEEP = 3
FAMILIES: tuple[Family, ...] = ("classification", "multi-label", "ordinal", "regression")
"""Families whose examples have one vector, and a label that a column of numbers can hold."""


class Scores(NamedTuple):
    logme: float
    h_score: float


class BaseModelStanding(NamedTuple):
    """A base model beside the others, and whether it is worth a training. `place`: 1 is the best; None without scores.

    Scores of frozen vectors misrank, so they exclude and never choose; base models that could not be measured stay.
    """

    base_model: str
    place: int | None
    kept: bool
    why: str


def rank_places(scores: Sequence[Scores], parameters: Sequence[int]) -> list[int]:
    """From 1, each once: by the mean of the ranks in both scores; of equals the smaller model is first."""
    columns = list(zip(*scores, strict=True))
    means = [sum(_rank(column, value) for column, value in zip(columns, row, strict=True)) for row in scores]
    order = sorted(range(len(scores)), key=lambda each: (means[each], parameters[each], each))
    found = [0] * len(order)
    for place, each in enumerate(order, 1):
        found[each] = place
    return found


def prune(
    base_models: Sequence[str],
    scores: Mapping[str, Scores],
    parameters: Mapping[str, int],
    keep: int = KEEP,
    losses: Mapping[str, float] | None = None,
) -> list[BaseModelStanding]:
    """Best first, then those without scores, all of which stay. Of those with scores the best `keep` do, at least
    three. `losses`: after brief tuning (brief_tuning.py); base models that have one come before all others.

    Places for the smallest and the largest, whatever their scores, were measured and lost: of 100 drawn cases with
    twenty base models (evals/base_model_day.py) the three kept held the best in 33 % with such places, by the scores
    alone in 44 %.
    """
    keep = max(keep, 3)
    scored = [base for base in base_models if base in scores]
    sizes = [parameters[base] for base in scored]
    placed = dict(zip(scored, rank_places([scores[base] for base in scored], sizes), strict=True))
    losses = losses or {}
    best_first = sorted(scored, key=lambda base: (losses.get(base, math.inf), placed[base]))
    best = "among the best after brief tuning" if losses else "among the best scores"
    why = {True: best, False: "others promise more"}
    found = [
        BaseModelStanding(base, place + 1, place < keep, why[place < keep]) for place, base in enumerate(best_first)
    ]
    return found + [BaseModelStanding(base, None, True, "not measured") for base in base_models if base not in scores]


def comparable(base_model: str | None) -> bool:
    """Whether it has learned something: fresh weights promise nothing yet."""
    return base_model is not None and not base_model.startswith(("new:", "timm:"))


def kept_base_models(report: Mapping[str, Any]) -> list[str]:
    """Base models that a shortlist kept, from its report, best first."""
    return [row["base_model"] for row in report["candidates"] if row["kept"]]


def _rank(column: Sequence[float], value: float) -> float:
    """Rank of a value in the column, from 0, greatest first; equals share theirs."""
    return sum(other > value for other in column) + 0.5 * (sum(other == value for other in column) - 1)
