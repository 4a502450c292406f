"""Pairs of answers, one better than the other, as trl's trainers take them; what is no pair is left out and said."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.language.checks import folded
from speciate.language.forms import Form
from speciate.modalities.messages import ASSISTANT, Conversation, Message, last_said, with_system
from speciate.training.language.lessons import form, lessons, turns
from speciate.training.language.pupil import Pupil, pupil
from speciate.training.language.specs import PairParameters
from speciate.training.study import Study


class Pair(NamedTuple):
    example: Example
    asked: Conversation
    chosen: str
    rejected: str


class Pairs(NamedTuple):
    """What a recipe needs to make its trainer."""

    learner: Pupil
    asked: Form
    train: list[Pair]
    held: list[Pair]


def prepared(study: Study, parameters: PairParameters) -> Pairs:
    """The base model and the pairs of both splits. INVALID where there are none."""
    learner = pupil(study, parameters)
    asked = form(study, learner.tokenizer, parameters, [each.asked for each in turns(study, study.train)])
    lessons(study, learner.tokenizer, asked, parameters, "completion", learner.longest)  # says what is wrong with them
    train = pairs(study, study.train, parameters.rejected, "training")
    if not train:
        raise SpeciateError(
            Code.INVALID,
            f"No training example of {study.payload.dataset} has two different answers: {parameters.rejected!r} is "
            "missing or the same as the better one.",
            "Call train_model again with hyperparameters={'rejected': COLUMN}, or with method='sft'.",
        )
    return Pairs(learner, asked, train, pairs(study, study.validation, parameters.rejected, "validation"))


def pairs(study: Study, examples: Sequence[Example], column: str, which: str) -> list[Pair]:
    found, lacking, same = [], 0, 0
    for turn in turns(study, examples):
        worse = last_said(turn.example.columns.get(column))
        better = last_said(turn.answer) or ""
        if worse is None:
            lacking += 1
        elif folded(worse) == folded(better):
            same += 1
        else:
            found.append(Pair(turn.example, turn.asked, better, worse))
    for count, why in ((lacking, f"have no {column!r}"), (same, "have two answers that are the same")):
        if count:
            study.notes.append(f"{count} {which} examples {why} and are left out.")
    return found


def as_pairs(found: Sequence[Pair], asked: Form) -> Any:
    """A `datasets.Dataset` of prompt, chosen and rejected."""
    rows = [
        {
            "prompt": _prompt(each, asked),
            "chosen": _answer(each.chosen, asked),
            "rejected": _answer(each.rejected, asked),
        }
        for each in found
    ]
    return _dataset(rows)


def as_verdicts(found: Sequence[Pair], asked: Form, seed: int, together: int) -> Any:
    """A `datasets.Dataset` of prompt, completion and label: each answer by itself, good or bad, the two in turn.

    trl takes them in this order in every epoch, and measures the distance to the base model (KL) by giving each
    question the answer that stands before it among so many `together`. So the order is drawn here, and neighbours
    belong to different questions as far as that goes.
    """
    order = random.Random(seed).sample(found, len(found))
    rows = [
        {
            "prompt": _prompt(order[place], asked),
            "completion": _answer(order[place].chosen if good else order[place].rejected, asked),
            "label": good,
        }
        for place, good in apart(len(order), together)
    ]
    return _dataset(rows)


def apart(pairs: int, together: int) -> list[tuple[int, bool]]:
    """Both answers of so many pairs, a good and a bad one in turn, with the two to one question far from each other:
    as few as may be stand one behind the other in a circle of `together`.

    >>> apart(4, 2)
    [(0, True), (2, False), (1, True), (3, False), (2, True), (0, False), (3, True), (1, False)]
    """

    def arranged(shift: int) -> list[tuple[int, bool]]:
        return [each for at in range(pairs) for each in ((at, True), ((at + shift) % pairs, False))]

    def neighbours(rows: list[tuple[int, bool]]) -> int:
        circles = [rows[start : start + together] for start in range(0, len(rows), together)]
        return sum(each[at][0] == each[at - 1][0] for each in circles for at in range(len(each)))

    half = pairs // 2
    return min((arranged(shift) for shift in (half, half + 1, half + 2)), key=neighbours)


def _dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows) if rows else None


def _prompt(pair: Pair, asked: Form) -> Any:
    said = with_system(pair.asked, asked.system)
    return [each.shown() for each in said] if asked.template == "chat" else "\n\n".join(each.content for each in said)


def _answer(text: str, asked: Form) -> Any:
    return [Message(ASSISTANT, text).shown()] if asked.template == "chat" else text
