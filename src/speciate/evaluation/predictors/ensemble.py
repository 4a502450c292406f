"""Several models that answer as one: the mean of their probabilities or numbers, else the answer that most give.

Each member's answers are recorded as its own, so that a model which also takes part by itself is asked once. An answer
that one member lacks is made of the others'; where none answers, there is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from speciate.evaluation.answers import Answer
from speciate.evaluation.compare import Cost
from speciate.evaluation.predictors.contract import Asked, Sheet


def hand_in(asked: Asked, ask_member: Callable[[Asked], Sheet]) -> Sheet:
    sheets = [ask_member(asked._replace(contestant=member)) for member in asked.contestant.members]
    times = min(len(sheet.repeats) for sheet in sheets)
    repeats = tuple(
        [joined(answers) for answers in zip(*(sheet.repeats[time] for sheet in sheets), strict=True)]
        for time in range(times)
    )
    served = tuple(name for sheet in sheets for name in sheet.served)
    notes = tuple(note for sheet in sheets for note in sheet.notes)
    return Sheet(asked.contestant, repeats, together([sheet.cost for sheet in sheets]), served, notes)


def joined(answers: Sequence[Answer]) -> Answer:
    """
    >>> joined([Answer("a", 0.6, {"a": 0.6, "b": 0.4}), Answer("b", 0.9, {"a": 0.1, "b": 0.9})]).output
    'b'
    >>> joined([Answer(1.0), Answer(None, error="cut"), Answer(3.0)]).output
    2.0
    """
    given = [answer for answer in answers if answer.error is None]
    if not given:
        return Answer(None, error="; ".join(dict.fromkeys(answer.error or "" for answer in answers))[:300])
    if all(answer.probabilities for answer in given):
        labels = dict.fromkeys(label for answer in given for label in answer.probabilities or {})
        mean = {label: fmean((answer.probabilities or {}).get(label, 0.0) for answer in given) for label in labels}
        best = max(mean, key=lambda label: mean[label])
        if all(answer.output in mean for answer in given):
            return Answer(best, mean[best], mean)
    if all(isinstance(answer.output, int | float) for answer in given):
        return Answer(fmean(answer.output for answer in given))
    votes = Counter(repr(answer.output) for answer in given)
    most = max(votes.values())
    return next(Answer(answer.output) for answer in given if votes[repr(answer.output)] == most)


def together(costs: Sequence[Cost]) -> Cost:
    """Members answer one after the other, so dollars and medians add up; the p95 of a sum is not known from theirs."""

    def total(name: str) -> float | None:
        values = [getattr(cost, name) for cost in costs]
        return None if None in values else sum(values)

    devices = dict.fromkeys(cost.device for cost in costs if cost.device)
    return Cost(total("usd_per_1k"), total("p50_ms"), None, " and ".join(devices) or None, total("memory_mb"))
