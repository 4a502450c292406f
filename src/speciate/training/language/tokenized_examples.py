"""The examples of a training as token ids with labels; and their defects, reported before the first step.

Whatever makes the training fail or mean nothing is refused; the rest becomes notes of the report. The test split is
only looked for in the training split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.modalities.messages import IMAGE_MARK, Conversation, conversation, format_readable
from speciate.models.language import chat_templates, example_checks
from speciate.models.language.chat_templates import IGNORED, ChatFormat, Learn, TokenizedExample
from speciate.models.language.example_checks import Truncation
from speciate.tasks.example_targets import evaluation_examples
from speciate.tasks.language_predictor import saved_form
from speciate.tasks.task import TaskExample
from speciate.training.language_hyperparameters import LanguageParameters
from speciate.training.training_context import TrainingContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_CHARACTERS_SHOWN = 60


class Turn(NamedTuple):
    """A question with its answer, of one example."""

    example: Example
    prompt: Conversation
    answer: str


class TokenizedSplits(NamedTuple):
    train: list[TokenizedExample]
    held: list[TokenizedExample]


class TokenizedTurn(NamedTuple):
    """What is learned, with the conversation that it answers."""

    prompt: Conversation
    example: TokenizedExample


def find_turns(context: TrainingContext, examples: Sequence[Example]) -> list[Turn]:
    """INVALID for an example that is meant to be a conversation and is none."""
    found = []
    for example, label in zip(examples, context.labels(examples), strict=True):
        try:
            found.append(Turn(example, conversation(str(example.media)), str(label)))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"The example {example.id} of {context.payload.dataset} cannot be learned; untrusted says why.",
                f"Look at it with preview_dataset(dataset={context.payload.dataset!r}, ids=[{example.id!r}]).",
                str(error),
            ) from error
    return found


def choose_prompt_form(
    context: TrainingContext,
    tokenizer: PreTrainedTokenizerBase,
    parameters: LanguageParameters,
    said: Sequence[Conversation],
) -> ChatFormat:
    """How the model is asked from now on: as asked for, else as the base model was, else by its template."""
    base, what = context.payload.base_folder, str(context.payload.spec.base_model)
    before = saved_form(Path(base)) if base else None
    system = parameters.system if parameters.system is not None else before.system if before else None
    if parameters.template != "auto":
        chosen = (
            ChatFormat(system=system)
            if parameters.template == "chat"
            else chat_templates.plain_format(tokenizer, system)
        )
    else:
        chosen = (before or chat_templates.usual_format(tokenizer)).model_copy(update={"system": system})
        if parameters.chat_template is not None:
            chosen = chosen.model_copy(update={"template": "chat"})
        if chosen.template == "plain" and any(len(each) > 1 for each in said):
            raise chat_templates.no_template(what)
        if chosen.template == "plain":
            context.notes.append(f"{what} has no chat template: it is asked with the plain text of each question.")
    chat_templates.check(tokenizer, chosen, what)
    return chosen


def tokenize_splits(
    context: TrainingContext,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    parameters: LanguageParameters,
    learn: Learn,
    longest: int,
    said: Sequence[Turn] | None = None,
) -> TokenizedSplits:
    """Tokenize both splits. `longest`: tokens that the model can see. `said`: learned in place of the training
    split."""
    train, held = tokenize_turns(context, tokenizer, chat_format, parameters, learn, longest, said)
    return TokenizedSplits([each.example for each in train], [each.example for each in held])


def tokenize_turns(
    context: TrainingContext,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    parameters: LanguageParameters,
    learn: Learn,
    longest: int,
    said: Sequence[Turn] | None = None,
) -> tuple[list[TokenizedTurn], list[TokenizedTurn]]:
    """As `tokenize_splits`, each with its prompt."""
    limit = min(parameters.max_length, longest)
    if limit < parameters.max_length:
        context.notes.append(f"Examples are cut at {limit:,} tokens, which is all that the base model can see.")
    train = find_turns(context, context.train) if said is None else list(said)
    held = find_turns(context, context.validation)
    _check_turns(context, train, held)
    return (
        _tokenize(context, tokenizer, train, chat_format, learn, (limit, longest), "training"),
        _tokenize(context, tokenizer, held, chat_format, learn, (limit, longest), "validation"),
    )


def token_rows(found: Sequence[TokenizedExample]) -> Any:
    """The examples as trl's trainers take tokens: a `datasets.Dataset` in memory."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [each.ids for each in found], "labels": [each.labels for each in found]})


def _tokenize(
    context: TrainingContext, tokenizer: PreTrainedTokenizerBase, said: Sequence[Turn], chat_format: ChatFormat,
    learn: Learn,
    bounds: tuple[int, int], which: str,
) -> list[TokenizedTurn]:  # fmt: skip
    """`bounds`: tokens at which an example is cut, and such as the base model can see."""
    limit, longest = bounds
    whole = [_tokenize_turn(tokenizer, turn, chat_format, learn) for turn in said]
    short = [TokenizedExample(each.ids[:limit], each.labels[:limit]) for each in whole]
    found = example_checks.truncation([len(each.ids) for each in whole], [each.learned for each in short], limit)
    if found.hopeless and which == "training":
        raise _too_long(found, longest)
    if found.cut:
        lost = f", of {found.lost} nothing of the answer is left and they are excluded" if found.lost else ""
        more = f"max_length={found.enough}" if found.enough <= longest else f"a base model that sees {found.enough}"
        context.notes.append(
            f"{found.cut} of {found.examples} {which} examples are cut at {limit} tokens{lost}; {more} would "
            "hold 95 of 100."
        )
    ends = chat_templates.ends_of(tokenizer)
    stops = any(ends & {label for label in each.labels if label != IGNORED} for each in whole)
    if which == "training" and whole and not stops:
        context.notes.append(
            "The chat template does not end an answer with the tokenizer's end of text, so the model may not learn to "
            "stop: its answers end at max_new_tokens."
        )
    return [TokenizedTurn(turn.prompt, each) for turn, each in zip(said, short, strict=True) if each.learned]


def _tokenize_turn(
    tokenizer: PreTrainedTokenizerBase, turn: Turn, chat_format: ChatFormat, learn: Learn
) -> TokenizedExample:
    try:
        return chat_templates.tokenize_example(tokenizer, turn.prompt, turn.answer, chat_format, learn)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The example {turn.example.id} cannot be written as the model reads it; untrusted says why.",
            "Or take another chat_template.",
            str(error),
            [CallAgain("train_model", {"hyperparameters": {"learn": "completion"}})],
        ) from error


def _too_long(found: Truncation, longest: int) -> SpeciateError:
    """A larger `max_length` is no way out where the base model sees no more."""
    fits = found.enough <= longest
    lacking = f"It takes a base model that sees {found.enough} tokens, which hold 95 of 100; this one sees {longest}. "
    return SpeciateError(
        Code.INVALID,
        f"Of {found.lost} of {found.examples} training examples nothing is left to learn: they are cut at "
        f"{found.limit} tokens, before the answer begins.",
        f"{'' if fits else lacking}Or shorten the questions with curate_dataset.",
        next=[CallAgain("train_model", {"hyperparameters": {"max_length": found.enough}}, ", which holds 95 of 100")]
        if fits
        else [],
    )


def _check_turns(context: TrainingContext, train: Sequence[Turn], held: Sequence[Turn]) -> None:
    """Note one answer for all, the same pair again, and what stands in the test split, too."""
    if (common := example_checks.most_common_answer([each.answer for each in train])) is not None:
        context.notes.append(
            f"{common[1]:.0%} of the training examples have the same answer, {common[0][:_CHARACTERS_SHOWN]!r}: a "
            "model that says "
            "nothing else will look good."
        )
    if seen := sum(any(IMAGE_MARK in message.content for message in each.prompt) for each in train):
        context.notes.append(
            f"{seen} training examples ask about an image ({IMAGE_MARK}), which this model is not shown: mixed rows "
            "with "
            "task='image-text-to-text' bring images."
        )
    if again := example_checks.count_duplicates([(format_readable(each.prompt), each.answer) for each in train]):
        context.notes.append(f"{again} training examples repeat the question and the answer of another one.")
    learned = [_turn_text(each) for each in train]
    for split, there in (("validation", held), ("test", _test_turns(context))):
        if found := example_checks.find_leaks(learned, [_turn_text(each) for each in there]):
            context.notes.append(
                f"{len(found)} of {len(there)} {split} examples stand in the training split as well, or share 13 words "
                f"in a row with it (such as {there[found[0]].example.id}): what is measured on them is too good."
            )


def _test_turns(context: TrainingContext) -> list[Turn]:
    return [
        Turn(each.example, conversation(str(each.example.media)), str(each.target))
        for each in posed_test_examples(context)
    ]


def _turn_text(turn: Turn) -> str:
    return f"{format_readable(turn.prompt)}\n{turn.answer}"


def test_examples(context: TrainingContext) -> list[Example]:
    """The test split of the dataset. It is not learned: it is only looked for in the training split."""
    manifest = context.payload.manifest
    return load_examples(context.folders, manifest, ("test",)) if manifest.splits.get("test") else []


def posed_test_examples(context: TrainingContext) -> list[TaskExample]:
    """Test examples with their references; those without one are excluded."""
    payload = context.payload
    found = test_examples(context)
    return evaluation_examples(found, payload.manifest, payload.target, payload.task, payload.terms) if found else []
