"""What a model that learns from rewards is asked: questions, with what a reward needs beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, closest
from speciate.language import checks, forms
from speciate.language.forms import Form
from speciate.modalities.messages import Conversation, answered, conversation, readable, with_system
from speciate.training.hyperparameters import Parameters
from speciate.training.language import tested
from speciate.training.language.rewards.bound import columns
from speciate.training.language.rewards.specs import RewardSpec, SchemaReward
from speciate.training.language.specs import RewardedParameters
from speciate.training.study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TRUTH: tuple[str, ...] = ("exact", "numeric", "math")
"""Kinds of reward that compare with the true answer."""


class Question(NamedTuple):
    example: Example
    asked: Conversation
    truth: str | None


def check(manifest: Manifest, parameters: Parameters, target: str | None) -> None:
    """INVALID, before there is a job, where a training by reward cannot begin. `target` None: conversations teach."""
    if not isinstance(parameters, RewardedParameters):
        return
    if parameters.batch_size % parameters.generations:
        raise SpeciateError(
            Code.INVALID,
            f"batch_size={parameters.batch_size} answers are no whole number of questions with "
            f"{parameters.generations} answers each (`generations`).",
            "Call train_model again with a batch_size that generations divides, such as "
            f"{parameters.generations * max(1, parameters.batch_size // parameters.generations)}.",
        )
    if parameters.kl_limit is not None and not parameters.beta:
        raise SpeciateError(
            Code.INVALID,
            "kl_limit needs the distance to the base model, which is not measured where beta is 0.",
            "Call train_model again with beta above 0, such as 0.001, or without kl_limit.",
        )
    many, each = manifest.splits.get("train", 0), parameters.batch_size // parameters.generations
    if many < each:
        raise SpeciateError(
            Code.INVALID,
            f"A step asks {each} questions, and {manifest.ref} has {many} training examples.",
            f"Call train_model again with batch_size={max(1, many) * parameters.generations} or less.",
        )
    for column, kind in columns(parameters.rewards).items():
        if column not in manifest.columns:
            raise SpeciateError(
                Code.INVALID,
                f"The reward {kind!r} reads the column {column!r}, which {manifest.ref} does not have; "
                f"{closest(column, manifest.columns)}",
                "Call train_model again with another `column` in the reward, or with a dataset that has it.",
            )
        if column in manifest.inputs:
            raise SpeciateError(
                Code.INVALID,
                f"The reward {kind!r} reads the column {column!r} of {manifest.ref}, which is an input: the model "
                "would see what it is judged by.",
                "Call create_dataset again with inputs that leave it out.",
            )
    lacking = _without_truth(manifest, target)
    needing = [spec.name or spec.kind for spec in parameters.rewards if needs_truth(spec)]
    if needing and lacking:
        raise SpeciateError(
            Code.INVALID,
            f"The reward {needing[0]!r} compares with the true answer, and {manifest.ref} has none: {lacking}.",
            "Name the column with target; or call train_model again with other rewards, such as "
            "hyperparameters={'rewards': [{'kind': 'model', 'model': 'JUDGE@v1'}]}.",
        )


def needs_truth(spec: RewardSpec) -> bool:
    return spec.kind in _TRUTH or (isinstance(spec, SchemaReward) and spec.equal)


def _without_truth(manifest: Manifest, target: str | None) -> str | None:
    """Why no example has one, as far as the manifest tells; None where some may."""
    if target is None or target in manifest.columns:
        return None
    if not any(label.strip() for label in manifest.labels) and not manifest.numeric:
        return "no column is its answer, and it has no labels"
    return None


def questions(study: Study, examples: Sequence[Example]) -> list[Question]:
    """With truths, where there are any. A conversation that ends in an answer asks for that one. INVALID for an example
    that is meant to be a conversation and is none."""
    found = []
    for example in examples:
        truth = study.truth(example)
        try:
            said = conversation(str(example.media))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"The example {example.id} of {study.payload.dataset} cannot be asked; untrusted says why.",
                f"Look at it with preview_dataset(dataset={study.payload.dataset!r}, ids=[{example.id!r}]).",
                str(error),
            ) from error
        turn = answered(said)
        if truth is None and turn is not None:
            said = turn[0]
        found.append(Question(example, said, truth))
    return found


def checked(
    study: Study, parameters: RewardedParameters, train: Sequence[Question], held: Sequence[Question]
) -> list[Question]:
    """The questions to learn from. Says what is wrong with them; INVALID where a reward cannot be had."""
    needing = [spec.name or spec.kind for spec in parameters.rewards if needs_truth(spec)]
    silent = [each for each in train if each.truth is None]
    if needing and len(silent) == len(train):
        raise SpeciateError(
            Code.INVALID,
            f"The reward {needing[0]!r} compares with the true answer, and no training example of "
            f"{study.payload.dataset} has one.",
            "Name the column with target, or call train_model again with other rewards.",
        )
    if needing and silent:
        study.notes.append(f"{len(silent)} training examples without a true answer are left out: a reward needs it.")
        train = [each for each in train if each.truth is not None]
    learned = [readable(each.asked) for each in train]
    for split, there in (("validation", [readable(each.asked) for each in held]), ("test", _test(study))):
        if found := checks.leaked(learned, there):
            study.notes.append(
                f"{len(found)} of {len(there)} {split} questions stand in the training split as well, or share 13 "
                "words in a row with it: what is measured on them is too good."
            )
    return list(train)


def _test(study: Study) -> list[str]:
    """Its questions, as texts."""
    found = []
    for example in tested.examples(study):
        with contextlib.suppress(ValueError):  # a conversation that is none: whoever evaluates on it is told
            said = conversation(str(example.media))
            turn = answered(said)
            found.append(readable(said if turn is None else turn[0]))
    return found


def short_enough(
    study: Study, tokenizer: PreTrainedTokenizerBase, asked: Form, parameters: RewardedParameters, longest: int,
    found: Sequence[Question], which: str,
) -> list[Question]:  # fmt: skip
    """Those that leave room for an answer. INVALID where too few of them do."""
    limit = min(parameters.max_length, longest - parameters.max_new_tokens)
    lengths = [_tokens(tokenizer, each, asked) for each in found]
    kept = [each for each, length in zip(found, lengths, strict=True) if length <= limit]
    each_step = parameters.batch_size // parameters.generations
    if which == "training" and len(kept) < each_step:
        raise SpeciateError(
            Code.INVALID,
            f"{len(kept)} of {len(found)} training questions have at most {max(0, limit)} tokens, and a step asks "
            f"{each_step}: the base model sees {longest} tokens, of which max_new_tokens={parameters.max_new_tokens} "
            "are kept for the answer.",
            "Call train_model again with a smaller max_new_tokens, a larger max_length, a smaller batch_size, or a "
            "base model that sees more.",
        )
    if len(kept) < len(found):
        study.notes.append(
            f"{len(found) - len(kept)} of {len(found)} {which} questions are longer than {limit} tokens and are left "
            "out."
        )
    return kept


def _tokens(tokenizer: PreTrainedTokenizerBase, question: Question, asked: Form) -> int:
    try:
        text = forms.asked(tokenizer, question.asked, asked)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The example {question.example.id} cannot be written as the model reads it; untrusted says why.",
            "Call train_model again with another chat_template.",
            str(error),
        ) from error
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def rows(found: Sequence[Question], asked: Form) -> Any:
    """As trl's trainers take them: `prompt`, and `place`, which question it is."""
    from datasets import Dataset

    prompts: list[Any] = []
    for each in found:
        said = with_system(each.asked, asked.system)
        prompts.append(
            [message.shown() for message in said]
            if asked.template == "chat"
            else "\n\n".join(message.content for message in said)
        )
    return Dataset.from_dict({"prompt": prompts, "place": list(range(len(found)))})
