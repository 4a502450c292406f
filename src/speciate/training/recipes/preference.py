"""Pairs of answers, one better than the other, as tokens for trl's trainers; what is no pair is excluded and said."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Conversation, last_answer
from speciate.models.language import chat_templates
from speciate.models.language.chat_templates import (
    IGNORED,
    ChatFormat,
    TokenizedExample,
    completion_tokens,
    prompt_tokens,
)
from speciate.models.language.example_checks import normalize
from speciate.training.language.model_setup import LoadedModel, load_base_model
from speciate.training.language.tokenized_examples import choose_prompt_form, find_turns, tokenize_splits
from speciate.training.language_hyperparameters import PairParameters
from speciate.training.training_context import TrainingContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TRAINING_SPLIT = "training"


class Pair(NamedTuple):
    example: Example
    prompt: Conversation
    chosen: str
    rejected: str


class PairTokens(NamedTuple):
    """Token ids of a question and of two answers to it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class PreparedPairs(NamedTuple):
    """What a recipe needs to make its trainer."""

    learner: LoadedModel
    chat_format: ChatFormat
    train: list[Pair]
    held: list[Pair]


def prepare_pairs(context: TrainingContext, parameters: PairParameters) -> PreparedPairs:
    """The base model and the pairs of both splits. INVALID where there are none."""
    learner = load_base_model(context, parameters)
    chat_format = choose_prompt_form(
        context, learner.tokenizer, parameters, [each.prompt for each in find_turns(context, context.train)]
    )
    tokenize_splits(
        context, learner.tokenizer, chat_format, parameters, "completion", learner.longest
    )  # says what is wrong with them
    train = find_pairs(context, context.train, parameters.rejected, TRAINING_SPLIT)
    if not train:
        raise SpeciateError(
            Code.INVALID,
            f"No training example of {context.payload.dataset} has two different answers: {parameters.rejected!r} is "
            "missing or the same as the better one.",
            "Call train_model again with hyperparameters={'rejected': COLUMN}, or with method='sft'.",
        )
    return PreparedPairs(
        learner, chat_format, train, find_pairs(context, context.validation, parameters.rejected, "validation")
    )


def find_pairs(context: TrainingContext, examples: Sequence[Example], column: str, which: str) -> list[Pair]:
    """`which`: how the examples are called where something is said of them."""
    found, lacking, same = [], 0, 0
    for turn in find_turns(context, examples):
        worse = last_answer(turn.example.columns.get(column))
        better = last_answer(turn.answer) or ""
        if worse is None:
            lacking += 1
        elif normalize(worse) == normalize(better):
            same += 1
        else:
            found.append(Pair(turn.example, turn.prompt, better, worse))
    for count, why in ((lacking, f"have no {column!r}"), (same, "have two answers that are the same")):
        if count:
            context.notes.append(f"{count} {which} examples {why} and are excluded.")
    if which == TRAINING_SPLIT and (said := answers_alone_note([(each.chosen, each.rejected) for each in found])):
        context.notes.append(said)
    return found


def tokenize_pairs(
    found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, limit: int
) -> list[PairTokens]:
    """As `sft` learns them and the model is asked, which trl's own way differs from: it learns what a template puts
    behind the end of an answer, loses the end of a question whose last token reaches into the answer, and begins texts
    otherwise. Cut at `limit` tokens; without those of which no answer is left. INVALID where a template refuses one."""
    made = []
    for each in found:
        good, bad = (_tokenize_answer(each, said, tokenizer, chat_format) for said in (each.chosen, each.rejected))
        question = prompt_tokens(good)
        if (room := limit - len(question)) > 0:
            made.append(PairTokens(question, completion_tokens(good)[:room], completion_tokens(bad)[:room]))
    return made


def _tokenize_answer(
    pair: Pair, said: str, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat
) -> TokenizedExample:
    try:
        return chat_templates.tokenize_example(tokenizer, pair.prompt, said, chat_format, "completion")
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The example {pair.example.id} cannot be written as the model reads it; untrusted says why.",
            "Call train_model again with another chat_template.",
            str(error),
        ) from error


def pair_rows(found: Sequence[PairTokens]) -> Any:
    """A `datasets.Dataset` of a question and its two answers, apart."""
    return _dataset(
        [{"prompt_ids": each.prompt, "chosen_ids": each.chosen, "rejected_ids": each.rejected} for each in found]
    )


def sequence_rows(found: Sequence[PairTokens]) -> Any:
    """A `datasets.Dataset` of the question with each of its answers. Texts are asked for and stay empty."""
    rows = []
    for each in found:
        row: dict[str, object] = {"prompt": "", "chosen": "", "rejected": ""}
        for name, answer in (("prompt", []), ("chosen", each.chosen), ("rejected", each.rejected)):
            ids = [*each.prompt, *answer]
            row |= {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids)}
            if answer:
                row[f"{name}_labels"] = [*[IGNORED] * len(each.prompt), *answer]
        rows.append(row)
    return _dataset(rows)


def verdict_rows(found: Sequence[PairTokens], seed: int, together: int) -> Any:
    """A `datasets.Dataset` of a question, an answer and its label: each answer by itself, good or bad, the two in turn.

    trl takes them in this order in every epoch, so it is drawn here. The distance to the base model (KL) is measured by
    answers to other questions: each row brings the answer of the one before it among so many `together`.
    """
    order = random.Random(seed).sample(found, len(found))
    rows: list[dict[str, object]] = [
        {
            "prompt_ids": order[place].prompt,
            "completion_ids": order[place].chosen if good else order[place].rejected,
            "label": good,
        }
        for place, good in interleaved(len(order), together)
    ]
    for start in range(0, len(rows), together):
        some = rows[start : start + together]
        answers = [each["completion_ids"] for each in some]
        for at, row in enumerate(some):
            row["KL_completion_ids"] = answers[at - 1]
    return _dataset(rows)


def interleaved(pairs: int, together: int) -> list[tuple[int, bool]]:
    """Both answers of so many pairs, a good and a bad one in turn, with the two to one question far from each other:
    as few as may be stand one behind the other in a circle of `together`.

    >>> interleaved(4, 2)
    [(0, True), (2, False), (1, True), (3, False), (2, True), (0, False), (3, True), (1, False)]
    """

    def arranged(shift: int) -> list[tuple[int, bool]]:
        return [each for at in range(pairs) for each in ((at, True), ((at + shift) % pairs, False))]

    def neighbours(rows: list[tuple[int, bool]]) -> int:
        circles = [rows[start : start + together] for start in range(0, len(rows), together)]
        return sum(each[at][0] == each[at - 1][0] for each in circles for at in range(len(each)))

    half = pairs // 2
    return min((arranged(shift) for shift in (half, half + 1, half + 2)), key=neighbours)


def _dataset(rows: Sequence[Mapping[str, object]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows) if rows else None


_MANY, _SHARE_TOLD = 20, 0.8
"""Pairs from which on, and the share of them told apart by the answers alone, at which that is said."""


def answers_alone_note(pairs: Sequence[tuple[str, str]]) -> str | None:
    """A note where the better answers can be told without their questions; None where they cannot.

    Where the same few answers recur, as names of classes do, one may be the better nearly wherever it stands: a model
    that gives it to everybody is right by these pairs, and wrong. So are pairs of a model's own mistakes alone: an
    answer that it gives too seldom is always the better one there. `pairs`: (better, worse).
    """
    share = share_told_by_answers(pairs)
    if len(pairs) < _MANY or share < _SHARE_TOLD:
        return None
    wins, stands = _counts(pairs)
    often = max(wins, key=lambda each: (2 * wins[each] - stands[each], each))
    return (
        f"{share:.0%} of {len(pairs)} training pairs are told apart by their answers alone: {often[:60]!r} is the "
        f"better one in {wins[often]} of the {stands[often]} where it stands. A model that says it whatever is asked "
        "is right by such pairs. Let each answer be the better one as often as the worse one: pair the right answer "
        "with each of the others, not with a model's mistakes alone."
    )


def share_told_by_answers(pairs: Sequence[tuple[str, str]]) -> float:
    """The share in which the better answer wins the larger part of the other pairs that it stands in; equal parts count
    a half. Each pair is judged by the others alone, so answers that stand once tell nothing.

    >>> told = share_told_by_answers
    >>> told([("a", "b")] * 3), told([("a", "b"), ("b", "a")] * 3), told([("a", "b"), ("c", "d")])
    (1.0, 0.0, 0.5)
    """
    wins, stands = _counts(pairs)

    def part(answer: str, won: int) -> float:
        """Laplace's estimate, without one pair."""
        return (wins[answer] - won + 1) / (stands[answer] + 1)

    told = 0.0
    for better, worse in pairs:
        good, bad = part(better, 1), part(worse, 0)
        told += 1.0 if good > bad else 0.5 if good == bad else 0.0
    return told / len(pairs) if pairs else 0.5


def _counts(pairs: Sequence[tuple[str, str]]) -> tuple[Counter[str], Counter[str]]:
    """By answer: pairs in which it is the better, and all in which it stands."""
    wins = Counter(better for better, _ in pairs)
    return wins, wins + Counter(worse for _, worse in pairs)
