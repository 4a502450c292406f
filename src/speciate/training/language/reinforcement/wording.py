"""How answers are worded: how long they are, and how much of them is said again. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

GRAM = 2
"""Tokens in a row that are counted as one, after Li et al. 2016 (distinct-2)."""
_FEWEST = 4
"""Pairs of tokens from which on an answer can be said to repeat itself."""


class Wording(NamedTuple):
    """Of answers together. NaN where none is long enough to say."""

    longest: float
    """The length in tokens that 95 of 100 answers do not exceed."""
    distinct: float
    """Of the pairs of neighbouring tokens in an answer those that are there once; the mean over answers."""
    alike: float
    """Of the answers to a question after its first, the share that repeats one before; the mean over questions."""


def wording(answers: Sequence[Sequence[int]], each: int = 1) -> Wording:
    """Of token ids; `each`: answers to the same question stand together, so many at a time.

    >>> wording([[1, 2, 1, 2, 1, 2, 1, 2]]).distinct
    0.2857142857142857
    """
    lengths = sorted(len(answer) for answer in answers)
    shares = [len(set(pairs)) / len(pairs) for answer in answers if len(pairs := _pairs(answer)) >= _FEWEST]
    groups = [answers[start : start + each] for start in range(0, len(answers), each)]
    again = [1 - (len({tuple(one) for one in group}) - 1) / (len(group) - 1) for group in groups if len(group) > 1]
    return Wording(
        float(lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]) if lengths else math.nan,
        _mean(shares), _mean(again),
    )  # fmt: skip


def _pairs(answer: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(answer[place : place + GRAM]) for place in range(len(answer) - GRAM + 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
