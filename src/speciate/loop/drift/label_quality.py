"""How many answers are wrong, by labels of answers that were drawn at random, each counted once, when it arrives.

What is labelled first is no fair draw of what was asked last: complaints come quickly, and hard ones late. So nothing
is assigned to the time of asking, and no window is revised: an answer counts in the window in which its first verdict
on a random draw arrived, with what its labels say by the end of it. Labels that come later, twice or with another
verdict change nothing that was counted; they are told (`contradicted`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from speciate.predictions.feedback import Correctness, correctness, latest_by_source
from speciate.predictions.quality import AnswerOutput, random_sample
from speciate.predictions.reading import StoredFeedback


class Arrived(NamedTuple):
    """Verdicts that arrived within a window."""

    wrong: float
    """Sum over answers of 1 - right, or of 1 - score."""
    judged: int
    """Answers with a label or a score."""
    errors: tuple[float, ...]
    """Absolute errors, where answers are numbers: they have no bound, and are compared with those before."""
    contradicted: int
    """Answers that were counted before, and were now judged otherwise."""
    ids: tuple[str, ...]
    """Ids of the judged answers, in the order of `right`."""
    right: tuple[float, ...]


def arrivals(answers: Iterable[AnswerOutput], given: Sequence[StoredFeedback], begin: float, end: float) -> Arrived:
    """Verdicts that arrived in [begin, end). `answers`: those of one version alone. `given`: all feedback on them, in
    any order; feedback from `end` on is not looked at."""
    known = {each.id: each.output for each in answers}
    until_end = latest_by_source(each for each in given if each.at < end)
    until_begin = latest_by_source(each for each in given if each.at < begin)
    before, now = (_drawn([each for each in given if each.at < edge]) for edge in (begin, end))
    right: dict[str, float] = {}
    errors: list[float] = []
    contradicted = 0
    for name in sorted(now & known.keys()):
        verdict = correctness(known[name], until_end[name])
        if name in before:
            earlier = correctness(known[name], until_begin[name])
            contradicted += bool(earlier and verdict and earlier.value != verdict.value)
        elif verdict is not None:
            _count(name, verdict, right, errors)
    return Arrived(
        wrong=float(sum(1 - value for value in right.values())), judged=len(right), errors=tuple(errors),
        contradicted=contradicted, ids=tuple(right), right=tuple(right.values()),
    )  # fmt: skip


def _drawn(given: Sequence[StoredFeedback]) -> set[str]:
    """Which answers are a fair draw, by what was said until some time: who is one stays one, whatever is said later. So
    of each source its first word as a random draw counts, else its first."""
    first: dict[str, dict[str, StoredFeedback]] = {}
    for each in sorted(given, key=lambda one: (one.drawn != "random", one.at)):
        first.setdefault(each.prediction, {}).setdefault(each.source, each)
    return random_sample(first)


def _count(name: str, verdict: Correctness, right: dict[str, float], errors: list[float]) -> None:
    if verdict.measure == "absolute_error":
        errors.append(verdict.value)
    else:
        right[name] = min(1.0, max(0.0, verdict.value))


def errors_before(answers: Iterable[AnswerOutput], given: Sequence[StoredFeedback], begin: float) -> tuple[float, ...]:
    """Absolute errors of randomly drawn answers whose verdict arrived before `begin`."""
    known: Mapping[str, Any] = {each.id: each.output for each in answers}
    until = latest_by_source(each for each in given if each.at < begin)
    drawn = _drawn([each for each in given if each.at < begin])
    found = [correctness(known[name], until[name]) for name in sorted(drawn & known.keys())]
    return tuple(each.value for each in found if each is not None and each.measure == "absolute_error")
