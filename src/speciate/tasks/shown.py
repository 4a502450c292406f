"""What of an example a model that sees is shown: its pictures in the order of their names, and its question.

An example is a picture, or a mixed row of pictures and texts. The one text is the question, or a conversation; of
several each stands after its name. Parts of other modalities are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.language.looks import Look, smaller
from speciate.modalities.messages import USER, Conversation, Message, answered, conversation, written
from speciate.modalities.mixed.multimodal import PartName, present

SHOWN = ("image", "text")
"""Modalities of the parts that are shown."""


def look(media: Any, parts: Collection[str] = (), side: int | None = None) -> Look:
    """`parts`: NAME.MODALITY of those that are shown, none: all that can be; `side`: as `smaller` has it. ValueError
    for an example without a picture or with a question that is none."""
    if isinstance(media, np.ndarray):
        return Look((Message(USER, ""),), (smaller(media, side),))
    if not isinstance(media, Mapping):
        raise ValueError("the example has no picture")
    there = [(part, medium) for part, medium in present(media) if not parts or str(part) in parts]
    pictures = [medium for part, medium in sorted(there, key=_place) if part.modality == "image"]
    if not pictures:
        raise ValueError("the example has no picture")
    texts = [(part, medium) for part, medium in there if part.modality == "text"]
    return Look(_question(texts), tuple(smaller(each, side) for each in pictures))


def parts_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """NAME.MODALITY of all parts that mixed rows have, and that can be shown; () of pictures alone."""
    named = {name for each in examples if isinstance(each.media, Mapping) for name in each.media}
    return tuple(sorted(name for name in named if name.rpartition(".")[2] in SHOWN))


def with_its_answer(media: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Of a row whose one text is a conversation that ends in the assistant's turn: the row without that turn, and it.
    ValueError for a text that is meant to be a conversation and is none."""
    texts = [part for part, _ in present(media) if part.modality == "text"]
    turns = answered(conversation(media[str(texts[0])])) if len(texts) == 1 else None
    if turns is None or not turns[1].strip():
        return None
    return {**media, str(texts[0]): written(turns[0])}, turns[1]


def _place(named: tuple[PartName, Any]) -> list[Any]:
    """`image_2` before `image_10`."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", named[0].own)]


def _question(texts: Sequence[tuple[PartName, str]]) -> Conversation:
    if not texts:
        return (Message(USER, ""),)
    if len(texts) == 1:
        return conversation(texts[0][1])
    said = [(part, conversation(text)) for part, text in texts]
    if long := next((part.own for part, each in said if len(each) > 1), None):
        raise ValueError(f"the part {long!r} is a conversation, and there are other texts beside it")
    return (Message(USER, "\n\n".join(f"{part.own}: {each[0].content}" for part, each in said)),)
