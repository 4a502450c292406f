"""The questions that a model under reinforcement learning answers, with what a reward needs beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Conversation, conversation, format_readable, split_last_answer, with_system
from speciate.models.language import chat_templates, example_checks
from speciate.models.language.chat_templates import ChatFormat
from speciate.training.language import tokenized_examples
from speciate.training.language_hyperparameters import ReinforcementParameters
from speciate.training.rewards.reward_spec import RewardSpec, SchemaReward
from speciate.training.training_context import TrainingContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_WITH_REFERENCE: tuple[str, ...] = ("exact", "numeric", "math")
"""Kinds of reward that compare with the true answer."""


class Question(NamedTuple):
    example: Example
    prompt: Conversation
    reference: str | None


def needs_reference(spec: RewardSpec) -> bool:
    return spec.kind in _WITH_REFERENCE or (isinstance(spec, SchemaReward) and spec.equal)


def find_questions(context: TrainingContext, examples: Sequence[Example]) -> list[Question]:
    """The questions of examples, with references where the examples have them.

    A conversation that ends in an answer asks for that answer. INVALID for an example that should be a conversation and
    is none.
    """
    found = []
    for example in examples:
        reference = context.label(example)
        try:
            said = conversation(str(example.media))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"The example {example.id} of {context.payload.dataset} cannot be asked; untrusted says why.",
                f"Look at it with preview_dataset(dataset={context.payload.dataset!r}, ids=[{example.id!r}]).",
                str(error),
            ) from error
        turn = split_last_answer(said)
        if reference is None and turn is not None:
            said = turn[0]
        found.append(Question(example, said, reference))
    return found


def check_questions(
    context: TrainingContext, parameters: ReinforcementParameters, train: Sequence[Question], held: Sequence[Question]
) -> list[Question]:
    """The questions to learn from. Says what is wrong with them; INVALID where a reward cannot be had."""
    needing = [spec.name or spec.kind for spec in parameters.rewards if needs_reference(spec)]
    unlabelled_train = [each for each in train if each.reference is None]
    if needing and len(unlabelled_train) == len(train):
        raise SpeciateError(
            Code.INVALID,
            f"The reward {needing[0]!r} compares with the true answer, and no training example of "
            f"{context.payload.dataset} has one.",
            "Name the column with target, or call train_model again with other rewards.",
        )
    if needing and unlabelled_train:
        context.notes.append(
            f"{len(unlabelled_train)} training examples without a true answer are excluded: a reward needs it."
        )
        train = [each for each in train if each.reference is not None]
    learned = [format_readable(each.prompt) for each in train]
    for split, there in (
        ("validation", [format_readable(each.prompt) for each in held]),
        ("test", _test_questions(context)),
    ):
        if found := example_checks.find_leaks(learned, there):
            context.notes.append(
                f"{len(found)} of {len(there)} {split} questions stand in the training split as well, or share 13 "
                "words in a row with it: what is measured on them is too good."
            )
    return list(train)


def _test_questions(context: TrainingContext) -> list[str]:
    """Questions of the test split, as texts."""
    found = []
    for example in tokenized_examples.test_examples(context):
        with contextlib.suppress(ValueError):  # a conversation that is none: whoever evaluates on it is told
            said = conversation(str(example.media))
            turn = split_last_answer(said)
            found.append(format_readable(said if turn is None else turn[0]))
    return found


def short_enough(
    context: TrainingContext,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    parameters: ReinforcementParameters,
    longest: int,
    found: Sequence[Question],
    which: str,
) -> list[Question]:
    """Questions that leave room for an answer. INVALID where too few of them do."""
    limit = min(parameters.max_length, longest - parameters.max_completion_length)
    lengths = [_count_tokens(tokenizer, each, chat_format) for each in found]
    kept = [each for each, length in zip(found, lengths, strict=True) if length <= limit]
    each_step = parameters.batch_size // parameters.num_generations
    if which == "training" and len(kept) < each_step:
        raise SpeciateError(
            Code.INVALID,
            f"{len(kept)} of {len(found)} training questions have at most {max(0, limit)} tokens, and a step asks "
            f"{each_step}: the base model sees {longest} tokens, of which "
            f"max_completion_length={parameters.max_completion_length} are kept for the answer.",
            "Call train_model again with a smaller max_completion_length, a larger max_length, a smaller batch_size, "
            "or a base model that sees more.",
        )
    if len(kept) < len(found):
        context.notes.append(
            f"{len(found) - len(kept)} of {len(found)} {which} questions are longer than {limit} tokens and are left "
            "out."
        )
    return kept


def _count_tokens(tokenizer: PreTrainedTokenizerBase, question: Question, chat_format: ChatFormat) -> int:
    try:
        text = chat_templates.render_prompt(tokenizer, question.prompt, chat_format)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The example {question.example.id} cannot be written as the model reads it; untrusted says why.",
            "Call train_model again with another chat_template.",
            str(error),
        ) from error
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def question_rows(found: Sequence[Question], chat_format: ChatFormat) -> Any:
    """As trl's trainers take them: `prompt`, and `place`, which question it is."""
    from datasets import Dataset

    prompts: list[Any] = []
    for each in found:
        said = with_system(each.prompt, chat_format.system)
        prompts.append(
            [message.shown() for message in said]
            if chat_format.template == "chat"
            else "\n\n".join(message.content for message in said)
        )
    return Dataset.from_dict({"prompt": prompts, "place": list(range(len(found)))})
