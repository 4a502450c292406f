"""Which of several base models are worth a training, by the scores of their vectors and by their sizes. Pure.

Scores of frozen vectors misrank (transferability.py), so they leave out and never choose: beside the best, the smallest
and the largest stay, whatever their scores, and so does what could not be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.vocabulary import Family

KEEP = 3
FAMILIES: tuple[Family, ...] = ("classification", "multi-label", "ordinal", "regression")
"""Whose examples have one vector and a truth that a column of numbers can say."""


class Scores(NamedTuple):
    logme: float
    h_score: float


class Standing(NamedTuple):
    """A base model beside the others. `place`: 1 is the best; None where it has no scores."""

    base_model: str
    place: int | None
    kept: bool
    why: str


def places(scores: Sequence[Scores], parameters: Sequence[int]) -> list[int]:
    """From 1, each once: by the mean of the ranks in both scores; of equals the smaller model is first."""
    columns = list(zip(*scores, strict=True))
    means = [sum(_rank(column, value) for column, value in zip(columns, row, strict=True)) for row in scores]
    order = sorted(range(len(scores)), key=lambda each: (means[each], parameters[each], each))
    found = [0] * len(order)
    for place, each in enumerate(order, 1):
        found[each] = place
    return found


def prune(
    base_models: Sequence[str], scores: Mapping[str, Scores], parameters: Mapping[str, int], keep: int = KEEP
) -> list[Standing]:
    """Best first, then those without scores, all of which stay. Of those with scores `keep` do, at least three: the
    best, the smallest and the largest."""
    keep = max(keep, 3)
    scored = [base for base in base_models if base in scores]
    sizes = [parameters[base] for base in scored]
    placed = dict(zip(scored, places([scores[base] for base in scored], sizes), strict=True))
    best_first = sorted(scored, key=placed.__getitem__)
    why: dict[str, str] = {}
    if len(scored) > keep and min(sizes) < max(sizes):
        why[best_first[0]] = "the best scores"
        why.setdefault(min(best_first, key=parameters.__getitem__), "the smallest")
        why.setdefault(max(best_first, key=parameters.__getitem__), "the largest")
    for base in best_first:
        if len(why) < keep:
            why.setdefault(base, "among the best scores")
    found = [Standing(base, placed[base], base in why, why.get(base, "others promise more")) for base in best_first]
    return found + [Standing(base, None, True, "not measured") for base in base_models if base not in scores]


def comparable(base_model: str | None) -> bool:
    """Whether it has learned something: fresh weights promise nothing yet."""
    return base_model is not None and not base_model.startswith(("new:", "timm:"))


def kept(report: Mapping[str, Any]) -> list[str]:
    """Of a shortlist's report, best first."""
    return [row["base_model"] for row in report["candidates"] if row["kept"]]


def _rank(column: Sequence[float], value: float) -> float:
    """From 0, greatest first; equals share theirs."""
    return sum(other > value for other in column) + 0.5 * (sum(other == value for other in column) - 1)
