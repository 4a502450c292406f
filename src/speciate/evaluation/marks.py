"""Scores that no table of metrics knows how to make: a judge's. They come when all answers are there, and count like
those of any other mean metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speciate.evaluation.compare import Entry
from speciate.evaluation.report import Verdicts
from speciate.evaluation.statistics import Floats


class Unscored(NamedTuple):
    """An answer that a scorer gave no score. `detail` may quote what the code or the data say: foreign text."""

    model: str
    example: str
    repeat: int
    failure: str
    detail: str


class Marks(NamedTuple):
    """`repeats`, by contestant: for each time that it was asked everything, scores (n,), NaN where there is none."""

    metric: str
    repeats: Mapping[str, Sequence[Floats]]
    notes: Sequence[str] = ()
    verdicts: Verdicts | None = None
    unscored: Sequence[Unscored] = ()


def marked(entry: Entry, marks: Marks) -> Entry:
    """The entry with these scores among its answers'."""
    scores = marks.repeats[entry.contestant.name]
    repeats = tuple(
        answers._replace(marks={**answers.marks, marks.metric: each})
        for answers, each in zip(entry.repeats, scores, strict=True)
    )
    return entry._replace(repeats=repeats)
