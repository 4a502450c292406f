"""A text in answer to an example: the example is a question, or a conversation that the answer continues.

Conversations are those of modalities/messages.py: if no column has the answer, the last turn of the assistant is the
target; of a mixed row, the last turn in its text. A model for it is a language model (language_predictor.py) or a
vision-language model (vision_language_predictor.py), without a head of ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NoReturn, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.messages import USER, Conversation, Message, conversation, format_messages, split_last_answer
from speciate.modalities.multimodal import PartName, Parts, present_parts
from speciate.models.language.vision_language import ImagePrompt, shrink
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms


class Generation(DirectSupervision, BaseModel):
    """Knows nothing of the training targets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["generation"] = "generation"

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the text of the cell, a number or a Boolean as Python writes it; for an empty cell the last turn of
        the conversation, if that is the assistant's."""
        if isinstance(cell, bytes | list | dict):
            raise ValueError(f"{str(cell)[:40]!r} is no text")
        text = "" if cell is None else str(cell)
        if text.strip():
            return TaskExample(example, text)
        if isinstance(example.media, dict):  # a mixed row
            split = split_answer(example.media)
            return None if split is None else TaskExample(example._replace(media=split[0]), split[1])
        if not isinstance(example.media, str):
            return None
        turns = split_last_answer(conversation(example.media))
        if turns is None or not turns[1].strip():
            return None
        return TaskExample(example._replace(media=format_messages(turns[0])), turns[1])

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls()

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The most frequent text, the first by name among equals."""
        counts = Counter(targets)
        prediction = Prediction(max(sorted(counts), key=lambda text: counts[text]), None, None)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> list[Any]:
        return list(targets)

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: the texts themselves."""
        return [Prediction(text, None, None) for text in scores]

    def head(self, width: int) -> NoReturn:
        raise TypeError("a language model has its own head")

    def loss(self, head: Any, states: Any, targets: Any) -> NoReturn:
        raise TypeError("a language model has its own loss")

    def scores(self, head: Any, states: Any) -> NoReturn:
        raise TypeError("a language model has its own scores")


PROMPT_PARTS = ("image", "text")
"""Modalities of the parts in a prompt."""


def look(media: Any, parts: Collection[str] = (), side: int | None = None) -> ImagePrompt:
    """The prompt of an example: its images in the order of their names, and its question.

    An example is an image, or a mixed row of images and texts. A single text is the question, or a conversation; of
    several texts each follows its name. Parts of other modalities are left out.

    `parts`: NAME.MODALITY of the parts to show; empty: all images and texts. `side`: see `shrink`. ValueError for an
    example without an image or with an invalid conversation.
    """
    if isinstance(media, np.ndarray):
        return ImagePrompt((Message(USER, ""),), (shrink(media, side),))
    if not isinstance(media, Mapping):
        raise ValueError("the example has no image")
    there = [(part, medium) for part, medium in present_parts(media) if not parts or str(part) in parts]
    images = [medium for part, medium in sorted(there, key=_natural_order) if part.modality == "image"]
    if not images:
        raise ValueError("the example has no image")
    texts = [(part, medium) for part, medium in there if part.modality == "text"]
    return ImagePrompt(_question(texts), tuple(shrink(each, side) for each in images))


def parts_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """NAME.MODALITY of all parts that mixed rows have, and that can be shown; () of images alone."""
    named = {name for each in examples if isinstance(each.media, Mapping) for name in each.media}
    return tuple(sorted(name for name in named if name.rpartition(".")[2] in PROMPT_PARTS))


def split_answer(media: Mapping[str, Any]) -> tuple[Parts, str] | None:
    """Split a row whose one text is a conversation that ends in the assistant's turn into the row without that turn,
    and it. None for other rows. ValueError for a text that is meant to be a conversation and is none."""
    texts = [part for part, _ in present_parts(media) if part.modality == "text"]
    turns = split_last_answer(conversation(media[str(texts[0])])) if len(texts) == 1 else None
    if turns is None or not turns[1].strip():
        return None
    return {**media, str(texts[0]): format_messages(turns[0])}, turns[1]


def _natural_order(named: tuple[PartName, Any]) -> list[Any]:
    """`image_2` before `image_10`."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", named[0].own)]


def _question(texts: Sequence[tuple[PartName, str]]) -> Conversation:
    if not texts:
        return (Message(USER, ""),)
    if len(texts) == 1:
        return conversation(texts[0][1])
    turns = [(part, conversation(text)) for part, text in texts]
    if long := next((part.own for part, each in turns if len(each) > 1), None):
        raise ValueError(f"the part {long!r} is a conversation, and there are other texts beside it")
    return (Message(USER, "\n\n".join(f"{part.own}: {each[0].content}" for part, each in turns)),)
