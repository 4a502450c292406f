"""The examples of a training as tokens, with what is to be learned of each; and what is wrong with them, said before a
step is made.

Whatever makes the training fail or mean nothing is refused; the rest becomes notes of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.language import checks, forms
from speciate.language.checks import Cut
from speciate.language.forms import IGNORED, Form, Learn, Lesson
from speciate.modalities.messages import PICTURE, Conversation, conversation, readable
from speciate.tasks.writing import form_of
from speciate.training.language import tested
from speciate.training.language.specs import LanguageParameters
from speciate.training.study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 60


class Turn(NamedTuple):
    """A question with its answer, of one example."""

    example: Example
    asked: Conversation
    answer: str


class Lessons(NamedTuple):
    train: list[Lesson]
    held: list[Lesson]


class Exercise(NamedTuple):
    """What is learned, with the conversation that it answers."""

    asked: Conversation
    lesson: Lesson


def turns(study: Study, examples: Sequence[Example]) -> list[Turn]:
    """INVALID for an example that is meant to be a conversation and is none."""
    found = []
    for example, truth in zip(examples, study.truths(examples), strict=True):
        try:
            found.append(Turn(example, conversation(str(example.media)), str(truth)))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"The example {example.id} of {study.payload.dataset} cannot be learned; untrusted says why.",
                f"Look at it with preview_dataset(dataset={study.payload.dataset!r}, ids=[{example.id!r}]).",
                str(error),
            ) from error
    return found


def form(
    study: Study, tokenizer: PreTrainedTokenizerBase, parameters: LanguageParameters, said: Sequence[Conversation]
) -> Form:
    """How the model is asked from now on: as asked for, else as the base model was, else by its template."""
    base, what = study.payload.base_folder, str(study.payload.spec.base_model)
    before = form_of(Path(base)) if base else None
    system = parameters.system if parameters.system is not None else before.system if before else None
    if parameters.template != "auto":
        chosen = Form(system=system) if parameters.template == "chat" else forms.plain_form(tokenizer, system)
    else:
        chosen = (before or forms.usual_form(tokenizer)).model_copy(update={"system": system})
        if parameters.chat_template is not None:
            chosen = chosen.model_copy(update={"template": "chat"})
        if chosen.template == "plain" and any(len(each) > 1 for each in said):
            raise forms.no_template(what)
        if chosen.template == "plain":
            study.notes.append(f"{what} has no chat template: it is asked with the plain text of each question.")
    forms.check(tokenizer, chosen, what)
    return chosen


def lessons(
    study: Study, tokenizer: PreTrainedTokenizerBase, asked: Form, parameters: LanguageParameters, learn: Learn,
    longest: int, said: Sequence[Turn] | None = None,
) -> Lessons:  # fmt: skip
    """Of both splits. `longest`: tokens that the model can see. `said`: learned in place of the training split."""
    train, held = exercises(study, tokenizer, asked, parameters, learn, longest, said)
    return Lessons([each.lesson for each in train], [each.lesson for each in held])


def exercises(
    study: Study, tokenizer: PreTrainedTokenizerBase, asked: Form, parameters: LanguageParameters, learn: Learn,
    longest: int, said: Sequence[Turn] | None = None,
) -> tuple[list[Exercise], list[Exercise]]:  # fmt: skip
    """As `lessons`, each with its question."""
    limit = min(parameters.max_length, longest)
    if limit < parameters.max_length:
        study.notes.append(f"Examples are cut at {limit:,} tokens, which is all that the base model can see.")
    train = turns(study, study.train) if said is None else list(said)
    held = turns(study, study.validation)
    _check(study, train, held)
    return (
        _tokenized(study, tokenizer, train, asked, learn, (limit, longest), "training"),
        _tokenized(study, tokenizer, held, asked, learn, (limit, longest), "validation"),
    )


def rows(found: Sequence[Lesson]) -> Any:
    """As trl's trainers take tokens: a `datasets.Dataset` in memory."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [each.ids for each in found], "labels": [each.labels for each in found]})


def _tokenized(
    study: Study, tokenizer: PreTrainedTokenizerBase, said: Sequence[Turn], asked: Form, learn: Learn,
    bounds: tuple[int, int], which: str,
) -> list[Exercise]:  # fmt: skip
    """`bounds`: tokens at which an example is cut, and such as the base model can see."""
    limit, longest = bounds
    whole = [_lesson(tokenizer, turn, asked, learn) for turn in said]
    short = [Lesson(each.ids[:limit], each.labels[:limit]) for each in whole]
    found = checks.cut([len(each.ids) for each in whole], [each.learned for each in short], limit)
    if found.hopeless and which == "training":
        raise _too_long(found, longest)
    if found.cut:
        lost = f", of {found.lost} nothing of the answer is left and they are left out" if found.lost else ""
        more = f"max_length={found.enough}" if found.enough <= longest else f"a base model that sees {found.enough}"
        study.notes.append(
            f"{found.cut} of {found.examples} {which} examples are cut at {limit} tokens{lost}; {more} would "
            "hold 95 of 100."
        )
    ends = forms.ends_of(tokenizer)
    stops = any(ends & {label for label in each.labels if label != IGNORED} for each in whole)
    if which == "training" and whole and not stops:
        study.notes.append(
            "The chat template does not end an answer with the tokenizer's end of text, so the model may not learn to "
            "stop: its answers end at max_new_tokens."
        )
    return [Exercise(turn.asked, each) for turn, each in zip(said, short, strict=True) if each.learned]


def _lesson(tokenizer: PreTrainedTokenizerBase, turn: Turn, asked: Form, learn: Learn) -> Lesson:
    try:
        return forms.lesson(tokenizer, turn.asked, turn.answer, asked, learn)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The example {turn.example.id} cannot be written as the model reads it; untrusted says why.",
            "Call train_model again with hyperparameters={'learn': 'completion'} or another chat_template.",
            str(error),
        ) from error


def _too_long(found: Cut, longest: int) -> SpeciateError:
    """A larger `max_length` is no way out where the base model sees no more."""
    if found.enough <= longest:
        more = f"hyperparameters={{'max_length': {found.enough}}}, which holds 95 of 100"
    else:
        more = f"a base model that sees {found.enough} tokens, which hold 95 of 100; this one sees {longest}"
    return SpeciateError(
        Code.INVALID,
        f"Of {found.lost} of {found.examples} training examples nothing is left to learn: they are cut at "
        f"{found.limit} tokens, before the answer begins.",
        f"Call train_model again with {more}; or shorten the questions with curate_dataset.",
    )


def _check(study: Study, train: Sequence[Turn], held: Sequence[Turn]) -> None:
    """One answer for all, the same pair again, and what stands in the test split, too."""
    if (common := checks.commonest([each.answer for each in train])) is not None:
        study.notes.append(
            f"{common[1]:.0%} of the training examples have the same answer, {common[0][:_SHOWN]!r}: a model that says "
            "nothing else will look good."
        )
    if seen := sum(any(PICTURE in message.content for message in each.asked) for each in train):
        study.notes.append(
            f"{seen} training examples ask about a picture ({PICTURE}), which this model is not shown: mixed rows with "
            "task='image-text-to-text' bring pictures."
        )
    if again := checks.repeated([(readable(each.asked), each.answer) for each in train]):
        study.notes.append(f"{again} training examples repeat the question and the answer of another one.")
    learned = [_whole(each) for each in train]
    for split, there in (("validation", held), ("test", _test(study))):
        if found := checks.leaked(learned, [_whole(each) for each in there]):
            study.notes.append(
                f"{len(found)} of {len(there)} {split} examples stand in the training split as well, or share 13 words "
                f"in a row with it (such as {there[found[0]].example.id}): what is measured on them is too good."
            )


def _test(study: Study) -> list[Turn]:
    return [Turn(each.example, conversation(str(each.example.media)), str(each.truth)) for each in tested.posed(study)]


def _whole(turn: Turn) -> str:
    return f"{readable(turn.asked)}\n{turn.answer}"
