"""Which answers to label next. Pure.

`random` follows the hash of the id, so it is a fair draw that every caller sees in the same order; `uncertain` begins
with the lowest confidence; `disagreement` with what somebody contradicted. `mixed`, the default, takes turns between
random and uncertain: the uncertain half teaches most, the random half alone tells without bias how good the model is,
which is why each label is stored with how its answer was drawn (production/feedback.py makes the estimate).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from speciate.predictions import identity
from speciate.predictions.feedback import BySource, Drawn, Source, disagree

Strategy = Literal["mixed", "random", "uncertain", "disagreement"]


class Candidate(NamedTuple):
    id: str
    confidence: float | None
    output: Any


class Next(NamedTuple):
    id: str
    drawn: Drawn


def queue(
    candidates: Iterable[Candidate],
    given: Mapping[str, BySource],
    *,
    strategy: Strategy = "mixed",
    source: Source = "human",
    count: int = 20,
) -> list[Next]:
    """What `source` should look at next, best first. Answers that it judged already are left out.

    `candidates`: answers without an error. `given`: of `feedback.latest`.
    """
    left = [each for each in candidates if source not in given.get(each.id, {})]
    if strategy == "disagreement":
        contradicted = [each for each in left if each.id in given and disagree(each.output, given[each.id])]
        return [Next(each.id, "disagreement") for each in heapq.nsmallest(count, contradicted, key=_by_place)]
    by_chance, by_doubt = list[Next](), list[Next]()
    if strategy != "uncertain":
        by_chance = [Next(each.id, "random") for each in heapq.nsmallest(count, left, key=_by_place)]
    if strategy != "random":
        unsure = [each for each in left if each.confidence is not None]
        # twice as many: the random half may take the first of them
        by_doubt = [Next(each.id, "uncertain") for each in heapq.nsmallest(2 * count, unsure, key=_by_doubt)]
    return _in_turns(by_chance, by_doubt, count)


def place(prediction: str) -> float:
    """Of an answer in the random order, uniform in [0, 1)."""
    return identity.unit(prediction, "queue")


def _by_place(candidate: Candidate) -> float:
    return place(candidate.id)


def _by_doubt(candidate: Candidate) -> tuple[float, str]:
    return candidate.confidence or 0.0, candidate.id[::-1]  # an id begins with the time and ends with chance


def _in_turns(first: Sequence[Next], second: Sequence[Next], count: int) -> list[Next]:
    """One of each, without what came already. An answer that both would draw counts as drawn by chance: the place in
    the random order is what makes the random half fair."""
    random_ids = {each.id for each in first[: (count + 1) // 2]}
    second = [each for each in second if each.id not in random_ids]
    taken: dict[str, Next] = {}
    for pair in itertools.zip_longest(first, second):
        for each in pair:
            if each is not None and len(taken) < count:
                taken.setdefault(each.id, each)
    return list(taken.values())
