"""Pairs of answers, one better than the other, as tokens for trl's trainers; what is no pair is left out and said."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.language import forms
from speciate.language.checks import folded
from speciate.language.forms import IGNORED, Form, Lesson, answer_of, asked_of
from speciate.modalities.messages import Conversation, last_said
from speciate.training.language.lessons import form, lessons, turns
from speciate.training.language.preference.leaning import leaning
from speciate.training.language.pupil import Pupil, pupil
from speciate.training.language.specs import PairParameters
from speciate.training.study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TRAINING = "training"


class Pair(NamedTuple):
    example: Example
    asked: Conversation
    chosen: str
    rejected: str


class Tokens(NamedTuple):
    """Of a question and two answers to it."""

    asked: list[int]
    chosen: list[int]
    rejected: list[int]


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
    train = pairs(study, study.train, parameters.rejected, TRAINING)
    if not train:
        raise SpeciateError(
            Code.INVALID,
            f"No training example of {study.payload.dataset} has two different answers: {parameters.rejected!r} is "
            "missing or the same as the better one.",
            "Call train_model again with hyperparameters={'rejected': COLUMN}, or with method='sft'.",
        )
    return Pairs(learner, asked, train, pairs(study, study.validation, parameters.rejected, "validation"))


def pairs(study: Study, examples: Sequence[Example], column: str, which: str) -> list[Pair]:
    """`which`: how the examples are called where something is said of them."""
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
    if which == TRAINING and (said := leaning([(each.chosen, each.rejected) for each in found])):
        study.notes.append(said)
    return found


def tokens(found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, asked: Form, limit: int) -> list[Tokens]:
    """As `sft` learns them and the model is asked, which trl's own way differs from: it learns what a template puts
    behind the end of an answer, loses the end of a question whose last token reaches into the answer, and begins texts
    otherwise. Cut at `limit` tokens; without those of which no answer is left. INVALID where a template refuses one."""
    made = []
    for each in found:
        good, bad = (_lesson(each, said, tokenizer, asked) for said in (each.chosen, each.rejected))
        question = asked_of(good)
        if (room := limit - len(question)) > 0:
            made.append(Tokens(question, answer_of(good)[:room], answer_of(bad)[:room]))
    return made


def _lesson(pair: Pair, said: str, tokenizer: PreTrainedTokenizerBase, asked: Form) -> Lesson:
    try:
        return forms.lesson(tokenizer, pair.asked, said, asked, "completion")
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The example {pair.example.id} cannot be written as the model reads it; untrusted says why.",
            "Call train_model again with another chat_template.",
            str(error),
        ) from error


def as_pairs(found: Sequence[Tokens]) -> Any:
    """A `datasets.Dataset` of a question and its two answers, apart."""
    return _dataset(
        [{"prompt_ids": each.asked, "chosen_ids": each.chosen, "rejected_ids": each.rejected} for each in found]
    )


def as_sequences(found: Sequence[Tokens]) -> Any:
    """A `datasets.Dataset` of the question with each of its answers. Texts are asked for and stay empty."""
    rows = []
    for each in found:
        row: dict[str, Any] = {"prompt": "", "chosen": "", "rejected": ""}
        for name, answer in (("prompt", []), ("chosen", each.chosen), ("rejected", each.rejected)):
            ids = [*each.asked, *answer]
            row |= {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids)}
            if answer:
                row[f"{name}_labels"] = [*[IGNORED] * len(each.asked), *answer]
        rows.append(row)
    return _dataset(rows)


def as_verdicts(found: Sequence[Tokens], seed: int, together: int) -> Any:
    """A `datasets.Dataset` of a question, an answer and its label: each answer by itself, good or bad, the two in turn.

    trl takes them in this order in every epoch, so it is drawn here. The distance to the base model (KL) is measured by
    answers to other questions: each row brings the answer of the one before it among so many `together`.
    """
    order = random.Random(seed).sample(found, len(found))
    rows: list[dict[str, Any]] = [
        {
            "prompt_ids": order[place].asked,
            "completion_ids": order[place].chosen if good else order[place].rejected,
            "label": good,
        }
        for place, good in apart(len(order), together)
    ]
    for start in range(0, len(rows), together):
        some = rows[start : start + together]
        answers = [each["completion_ids"] for each in some]
        for at, row in enumerate(some):
            row["KL_completion_ids"] = answers[at - 1]
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
