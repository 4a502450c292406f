"""The examples of a training on images and texts, as token ids; and their defects, reported before the first step.

An example that is too long is excluded and never cut: a model that is shown a part of an image's tokens computes
nonsense. Pixels are made of the decoded images when a batch needs them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.modalities.image import IMAGE
from speciate.modalities.messages import format_readable
from speciate.models.language import example_checks, vision_language
from speciate.models.language.causal_lm import ForwardArguments
from speciate.models.language.vision_language import ImageExample, ImagePrompt
from speciate.tasks.families.generation import look, parts_of
from speciate.tasks.vision_language_predictor import ImageSettings, saved_image_settings
from speciate.training.language import tokenized_examples
from speciate.training.language_hyperparameters import VisionSftParameters
from speciate.training.training_context import TrainingContext

_CHARACTERS_SHOWN = 60
_QUESTIONS = ("question", "prompt", "instruction", "query")
"""Columns that people mean as the question about an image."""


class VisionTurn(NamedTuple):
    """A question about images with its answer, of one example."""

    example: Example
    look: ImagePrompt
    answer: str


class VisionSplits(NamedTuple):
    train: list[ImageExample]
    held: list[ImageExample]

    @property
    def digest(self) -> str:
        """SHA-256 of what is learned: tokens and pixels."""
        found = hashlib.sha256()
        for each in (*self.train, *self.held):
            found.update(repr((each.tokens.ids, each.tokens.labels)).encode())
            for image in each.images:
                found.update(_content(image).encode())
        return found.hexdigest()


def choose_image_prompt(context: TrainingContext, processor: Any, parameters: VisionSftParameters) -> ImageSettings:
    """How the model is asked from now on: as asked for, else as the base model was. INVALID where nothing says how."""
    base, what = context.payload.base_folder, str(context.payload.spec.base_model)
    vision_language.check_template(processor, what)
    before = saved_image_settings(Path(base)) if base else None
    parts = parts_of([*context.train, *context.validation])
    there = {name for each in context.train if isinstance(each.media, dict) for name in each.media}
    if unseen := sorted(there - set(parts)):
        context.notes.append(
            f"The parts {', '.join(unseen)} are neither images nor texts: the model is not shown them."
        )
    asking = [name for name in _QUESTIONS if name in context.payload.manifest.columns]
    if asking and context.payload.manifest.modality == "image":
        context.notes.append(
            f"The column {asking[0]!r} is not shown to the model: an example of modality image is its image alone. "
            "create_dataset(modality='multimodal', inputs=[IMAGE, QUESTION]) makes both of them its parts."
        )
    return ImageSettings(
        system=parameters.system if parameters.system is not None else before.system if before else None,
        side=parameters.side or (before.side if before else None),
        parts=parts,
    )


def tokenize_image_splits(
    context: TrainingContext, processor: Any, shown: ImageSettings, parameters: VisionSftParameters, longest: int
) -> VisionSplits:
    """Tokenize both splits. `longest`: tokens that the model can see."""
    limit = min(parameters.max_length, longest)
    train = _find_turns(context, context.train, context.labels(context.train), shown, "training")
    held = _find_turns(context, context.validation, context.labels(context.validation), shown, "validation")
    _check_turns(context, train, held, shown)
    return VisionSplits(
        _tokenize(context, processor, train, shown, parameters, limit, longest, "training"),
        _tokenize(context, processor, held, shown, parameters, limit, longest, "validation"),
    )


class ImageCollator:
    """What trl's trainer takes as its collator: places in these examples become batches."""

    def __init__(self, processor: Any, found: Sequence[ImageExample]) -> None:
        self._processor, self._found = processor, found

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> ForwardArguments:
        return vision_language.collate(self._processor, [self._found[row["place"]] for row in rows])


def _find_turns(
    context: TrainingContext, examples: Sequence[Example], labels: Sequence[Any], shown: ImageSettings, which: str
) -> list[VisionTurn]:  # fmt: skip
    """A turn for each example with an image. INVALID where most of the training examples lack one, and for a question
    that is none."""
    seen = [each for each in examples if _has_picture(each, shown)]
    lacking = len(examples) - len(seen)
    if which == "training" and 2 * lacking > len(examples):
        raise SpeciateError(
            Code.INVALID,
            f"{lacking} of {len(examples)} training examples of {context.payload.dataset} have no image.",
            "Train a language model with task='text-generation' on the texts, or bring the images: "
            f"query_dataset on {context.payload.dataset!r}, column `missing`, tells where they lack.",
        )
    if lacking:
        context.notes.append(f"{lacking} of {len(examples)} {which} examples have no image and are excluded.")
    known = dict(zip([each.id for each in examples], labels, strict=True))
    found = []
    for example in seen:
        try:
            found.append(VisionTurn(example, look(example.media, shown.parts, shown.side), str(known[example.id])))
        except ValueError as error:
            raise _no_question(context, example, error) from error
    return found


def _has_picture(example: Example, shown: ImageSettings) -> bool:
    if not isinstance(example.media, dict):
        return True
    return any(name in shown.parts and medium is not None and name.endswith(".image")
               for name, medium in example.media.items())  # fmt: skip


def _tokenize(
    context: TrainingContext,
    processor: Any,
    said: Sequence[VisionTurn],
    shown: ImageSettings,
    parameters: VisionSftParameters,
    limit: int,
    longest: int,
    which: str,
) -> list[ImageExample]:
    found = [_tokenize_turn(context, processor, turn, shown, parameters) for turn in said]
    lengths = [len(each.tokens.ids) for each in found]
    kept = [each for each in found if len(each.tokens.ids) <= limit]
    enough = example_checks.truncation(lengths, lengths, limit).enough
    if which == "training" and 2 * len(kept) < len(found):
        raise _too_long(len(found) - len(kept), len(found), limit, longest, enough)
    if len(kept) < len(found):
        context.notes.append(
            f"{len(found) - len(kept)} of {len(found)} {which} examples have more than {limit} tokens with their "
            f"images and are excluded, for an image cannot be cut; max_length={enough} would hold 95 of 100, the "
            f"base model sees {longest}."
        )
    end = processor.tokenizer.eos_token_id
    if which == "training" and not any(end in each.tokens.labels for each in kept):
        context.notes.append(
            "The chat template does not end an answer with the tokenizer's end of text, so the model may not learn to "
            "stop: its answers end at max_new_tokens."
        )
    if which == "training":
        context.report["sights"] = {
            "examples": len(kept), "pictures": sum(len(each.images) for each in kept),
            "tokens": {"longest": max(map(len, (each.tokens.ids for each in kept))), "of_100_hold_95": enough,
                       "learned": sum(each.tokens.learned for each in kept)},
        }  # fmt: skip
    return kept


def _tokenize_turn(
    context: TrainingContext, processor: Any, turn: VisionTurn, shown: ImageSettings, parameters: VisionSftParameters
) -> ImageExample:
    try:
        return vision_language.tokenize_example(
            processor, turn.look, turn.answer, shown.system, every_turn=parameters.learn == "assistant"
        )  # fmt: skip
    except ValueError as error:
        raise _no_question(context, turn.example, error) from error


def _no_question(context: TrainingContext, example: Example, error: ValueError) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The example {example.id} of {context.payload.dataset} cannot be learned; untrusted says why.",
        f"Look at it with preview_dataset(dataset={context.payload.dataset!r}, ids=[{example.id!r}]).",
        f"{error}: {error.__cause__}" if error.__cause__ is not None else str(error),
    )


def _too_long(lost: int, count: int, limit: int, longest: int, enough: int) -> SpeciateError:
    fits = enough <= longest
    return SpeciateError(
        Code.INVALID,
        f"{lost} of {count} training examples have more than {limit} tokens with their images, which cannot be cut; "
        f"the base model sees {longest}.",
        "A smaller 'side' in hyperparameters makes images smaller."
        + ("" if fits else f" A base model that sees {enough} tokens holds 95 of 100."),
        next=[CallAgain("train_model", {"hyperparameters": {"max_length": enough}}, ", which holds 95 of 100")]
        if fits
        else [],
    )


def _check_turns(
    context: TrainingContext, train: Sequence[VisionTurn], held: Sequence[VisionTurn], shown: ImageSettings
) -> None:
    """Note one answer for all, the same example again, and what stands in held-out splits, too."""
    if (common := example_checks.most_common_answer([each.answer for each in train])) is not None:
        context.notes.append(
            f"{common[1]:.0%} of the training examples have the same answer, {common[0][:_CHARACTERS_SHOWN]!r}: a "
            "model that says "
            "nothing else will look good."
        )
    questions_of = [_key(each) for each in train]
    answers = [(key, example_checks.normalize(each.answer)) for key, each in zip(questions_of, train, strict=True)]
    if again := len(answers) - len(set(answers)):
        context.notes.append(
            f"{again} training examples repeat the images, the question and the answer of another one."
        )
    several = Counter(key for key, _ in set(answers))
    if torn := sum(count > 1 for count in several.values()):
        context.notes.append(f"{torn} questions about the same images have several answers in the training split.")
    known, seen = set(questions_of), {image for images, _ in questions_of for image in images}
    for split, there in (("validation", held), ("test", _test_turns(context, shown))):
        keys = [_key(each) for each in there]
        if found := [place for place, key in enumerate(keys) if key in known]:
            context.notes.append(
                f"{len(found)} of {len(there)} {split} examples ask the same about the same images as one of the "
                f"training split (such as {there[found[0]].example.id}): what is measured on them is too good."
            )
        if some := [key for key in keys if key not in known and seen & set(key[0])]:
            context.notes.append(
                f"{len(some)} of {len(there)} {split} examples show an image of the training split with another "
                "question: nothing is measured there of images that are new."
            )


def _key(turn: VisionTurn) -> tuple[tuple[str, ...], str]:
    """Content of the images, and the question but for case and spacing."""
    return tuple(map(_content, turn.look.images)), example_checks.normalize(format_readable(turn.look.conversation))


def _content(image: Any) -> str:
    return IMAGE.fingerprint(image)


def _test_turns(context: TrainingContext, shown: ImageSettings) -> list[VisionTurn]:
    found = []
    for each in tokenized_examples.posed_test_examples(context):
        try:
            found.append(VisionTurn(each.example, look(each.example.media, shown.parts, shown.side), str(each.target)))
        except ValueError:
            continue  # whoever evaluates on it is told
    return found
