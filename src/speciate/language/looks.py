"""What a model that sees is asked: a conversation with pictures in it, as text, as tokens, and as batches.

Pictures are decoded already. A template is told only where they stand, and the processor is handed their pixels:
nothing is read from a path or an address that a conversation names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.language.forms import IGNORED, Lesson
from speciate.modalities.messages import ASSISTANT, PICTURE, USER, Conversation, Message, with_system

Picture = npt.NDArray[np.uint8]
"""(H, W, 3)."""
_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""What a processor says of each token."""
_MARKS = ("image_token", "video_token", "audio_token", "boi_token")
"""Attributes of a processor with tokens that stand for something else than text."""


class Look(NamedTuple):
    """A question about pictures, which are shown in the order of their marks."""

    said: Conversation
    pictures: tuple[Picture, ...]


class Seen(NamedTuple):
    """A lesson whose pixels are made when they are needed. `text`: the conversation as the processor takes it."""

    tokens: Lesson
    kinds: dict[str, list[int]]
    """What else the processor says of each token."""
    text: str
    pictures: tuple[Picture, ...]


def marked(said: Conversation, count: int) -> Conversation:
    """With a mark for each picture: where none is, all stand before the first words of a user. ValueError where there
    are other marks than pictures."""
    there = sum(each.content.count(PICTURE) for each in said)
    if there == count:
        return said
    if there:
        raise ValueError(f"{there} places for pictures ({PICTURE}) and {count} pictures")
    first = next((place for place, each in enumerate(said) if each.role == USER), None)
    if first is None:
        return (Message(USER, PICTURE * count), *said)
    return tuple(
        each._replace(content=PICTURE * count + each.content) if place == first else each
        for place, each in enumerate(said)
    )


def asked(processor: Any, look: Look, system: str | None) -> str:
    """The text after which the model is to write its answer. ValueError where it cannot be asked."""
    return _rendered(processor, _whole(processor, look, system), asks=True)


def lesson(processor: Any, look: Look, answer: str, system: str | None, *, every_turn: bool = False) -> Seen:
    """The question with its answer. Learned are the last turn of the assistant, or each of them; never a picture.

    An answer's tokens are those of its text alone, as they are when the model is asked. ValueError where the template
    rewrites earlier turns, or the model cannot be trained on this.
    """
    said = (*_whole(processor, look, system), Message(ASSISTANT, answer))
    if PICTURE in answer or _mark_in(processor, answer):
        raise ValueError("the answer holds a picture, and this model writes text")
    text = _rendered(processor, said)
    turns = [place for place, each in enumerate(said) if each.role == ASSISTANT]
    ids, labels, kinds, at, shown = list[int](), list[int](), dict[str, list[int]](), 0, 0
    for place in turns if every_turn else turns[-1:]:
        before, until = _edges(processor, said, place, text)
        count = sum(each.content.count(PICTURE) for each in said[:place]) - shown
        context = _tokens(processor, text[at:before], look.pictures[shown : shown + count], begins=at == 0)
        own, behind = _answer(processor, text[before:until])
        behind = behind if place < len(said) - 1 else []  # never written by a model
        before_it = context.pop("input_ids")
        for name, values in context.items():
            known = kinds.setdefault(name, [])
            known += [*([0] * (len(ids) - len(known))), *values]  # not said of texts without a picture by some
        ids += [*before_it, *own, *behind]
        labels += [*([IGNORED] * len(before_it)), *own, *([IGNORED] * len(behind))]
        at, shown = until, shown + count
    kinds = {name: [*known, *([0] * (len(ids) - len(known)))] for name, known in kinds.items()}
    return Seen(Lesson(ids, labels), kinds, text, look.pictures)


def batch(processor: Any, found: Sequence[Seen]) -> dict[str, Any]:
    """Tensors as the model takes them, padded on the right: (B, T) of tokens and labels, and the pixels in whatever
    shape this processor gives them."""
    import torch

    tensors = encode(processor, [each.text for each in found], [each.pictures for each in found])
    pixels = {name: value for name, value in tensors.items() if name not in _OF_TOKENS}
    width = max(len(each.tokens.ids) for each in found)

    def filled(rows: Sequence[Sequence[int]], blank: int) -> Any:
        return torch.tensor([[*row, *[blank] * (width - len(row))] for row in rows])

    names = sorted({name for each in found for name in each.kinds})
    return pixels | {
        "input_ids": filled([each.tokens.ids for each in found], processor.tokenizer.pad_token_id),
        "attention_mask": filled([[1] * len(each.tokens.ids) for each in found], 0),
        "labels": filled([each.tokens.labels for each in found], IGNORED),
        **{name: filled([each.kinds.get(name, []) for each in found], 0) for name in names},
    }


def encode(
    processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Picture]], *, begins: bool = True
) -> dict[str, Any]:
    """What the processor makes of texts with their pictures, padded on the left. `begins`: they are no later part of a
    text, so a tokenizer that begins texts with a token of its own does so unless the template did, as transformers has
    it. ValueError where the processor refuses them, or ties pictures to tokens in a way that is not known here."""
    from PIL import Image

    first = processor.tokenizer.bos_token
    begun = first is not None and any(each.startswith(first) for each in texts)
    shown = [[Image.fromarray(each) for each in some] for some in pictures]
    try:
        found = dict(
            processor(
                text=list(texts), images=shown if any(shown) else None, padding=True, return_tensors="pt",
                add_special_tokens=begins and not begun,
            )
        )  # fmt: skip
    except (ValueError, TypeError, IndexError, StopIteration, RuntimeError) as error:
        raise ValueError("the processor refuses it") from error
    shape = tuple(found["input_ids"].shape)
    strange = [name for name, each in found.items() if name not in _OF_TOKENS and tuple(each.shape[:2]) == shape]
    if any(name.endswith("attention_mask") and name.startswith("cross") for name in found) or strange:
        raise ValueError("its processor ties pictures to tokens by masks, which is not done here")
    return found


def smaller(picture: Picture, side: int | None) -> Picture:
    """Its longest side at most so many pixels; never larger than it was."""
    if side is None or max(picture.shape[:2]) <= side:
        return picture
    from PIL import Image

    made = Image.fromarray(picture)
    made.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(made)


def _whole(processor: Any, look: Look, system: str | None) -> Conversation:
    said = with_system(marked(look.said, len(look.pictures)), system)
    for each in said:
        for text in each.content.split(PICTURE):
            if mark := _mark_in(processor, text):
                raise ValueError(f"the text holds {mark!r}, which stands for a picture")
    return said


def _mark_in(processor: Any, text: str) -> str | None:
    marks = (getattr(processor, name, None) for name in _MARKS)
    return next((mark for mark in marks if isinstance(mark, str) and mark and mark in text), None)


def _rendered(processor: Any, said: Sequence[Message], *, asks: bool = False) -> str:
    from jinja2.exceptions import TemplateError

    shown = [{"role": each.role, "content": _parts(each.content)} for each in said]
    try:
        return str(processor.apply_chat_template(shown, tokenize=False, add_generation_prompt=asks))
    except (TemplateError, TypeError) as error:
        raise ValueError("the chat template refuses it") from error


def _parts(content: str) -> list[dict[str, str]]:
    """As chat templates of such models take a content: pictures and texts in turn."""
    found: list[dict[str, str]] = []
    for place, text in enumerate(content.split(PICTURE)):
        if place:
            found.append({"type": "image"})
        if text:
            found.append({"type": "text", "text": text})
    return found


def _edges(processor: Any, said: Sequence[Message], place: int, text: str) -> tuple[int, int]:
    before = _rendered(processor, said[:place], asks=True)
    until = text if place == len(said) - 1 else _rendered(processor, said[: place + 1])
    if not (text.startswith(before) and text.startswith(until)):
        raise ValueError("the chat template writes earlier turns otherwise once later ones follow")
    return len(before), len(until)


def _tokens(processor: Any, text: str, pictures: Sequence[Picture], *, begins: bool) -> dict[str, list[int]]:
    """What is said of each token of one text."""
    found = encode(processor, [text], [pictures], begins=begins)
    return {
        name: found[name][0].tolist() for name in _OF_TOKENS if name in found and name != "attention_mask"
    }  # fmt: skip


def _answer(processor: Any, text: str) -> tuple[list[int], list[int]]:
    """Up to the end of text, and what a template puts behind it."""
    ids = list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    end = processor.tokenizer.eos_token_id
    length = len(ids) - ids[::-1].index(end) if end in ids else len(ids)
    return ids[:length], ids[length:]
