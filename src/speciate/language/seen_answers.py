"""Texts that a model writes about pictures: batched, padded on the left, greedy unless asked otherwise.

As generation.py does it of texts, with pixels beside the tokens: questions of like size are answered together, the
largest first; what is drawn is a function of the seed, of the question and of its pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from speciate.language import looks
from speciate.language.generation import Sampling, Written, answer, ends, settings
from speciate.language.looks import Picture


class Shown(NamedTuple):
    """A question as the processor takes it."""

    text: str
    pictures: tuple[Picture, ...]

    @property
    def size(self) -> tuple[int, int]:
        return sum(each.shape[0] * each.shape[1] for each in self.pictures), len(self.text)


def write(
    model: Any,
    processor: Any,
    asked: Sequence[Shown],
    sampling: Sampling,
    *,
    longest: int,
    between: Callable[[int], None] = lambda done: None,
) -> list[Written]:
    """One answer for each question, in their order. `longest`: tokens that the model can see, those of pictures among
    them; a question that leaves no room raises ValueError. `between(done)` is called after each batch."""
    found: list[Written | None] = [None] * len(asked)
    size = sampling.batch_size if sampling.greedy else 1
    order = sorted(range(len(asked)), key=lambda place: asked[place].size, reverse=True)
    done = 0
    for start in range(0, len(order), size):
        places = order[start : start + size]
        answers = _batch(model, processor, [asked[place] for place in places], sampling, longest)
        for place, one in zip(places, answers, strict=True):
            found[place] = one
        done += len(places)
        between(done)
    return [one for one in found if one is not None]


def _batch(model: Any, processor: Any, asked: Sequence[Shown], sampling: Sampling, longest: int) -> list[Written]:
    """A question that leaves little room does not cut the answers to others: it is asked apart from them."""
    import torch

    device, tokenizer = next(model.parameters()).device, processor.tokenizer
    given = looks.encode(processor, [each.text for each in asked], [each.pictures for each in asked])
    lengths = given["attention_mask"].sum(1).tolist()
    width = given["input_ids"].shape[1]
    if width >= longest:
        raise ValueError(f"a question of {width:,} tokens with its pictures, where the model can see {longest:,}")
    rooms = [min(sampling.max_new_tokens, longest - length) for length in lengths]
    if len(set(rooms)) > 1:
        apart = {room: [each for each, own in zip(asked, rooms, strict=True) if own == room] for room in set(rooms)}
        found = {room: iter(_batch(model, processor, some, sampling, longest)) for room, some in apart.items()}
        return [next(found[room]) for room in rooms]
    if not sampling.greedy:
        torch.manual_seed(_seed(sampling.seed, asked[0]))
    with torch.inference_mode():
        out = model.generate(
            **{name: each.to(device) for name, each in given.items()},
            generation_config=settings(model, tokenizer, sampling, rooms[0]),
            tokenizer=tokenizer if sampling.stop else None,
        )  # fmt: skip
    over = ends(model, tokenizer)
    return [
        answer(tokenizer, row.tolist(), over, sampling.stop, length)
        for row, length in zip(out[:, width:], lengths, strict=True)
    ]


def _seed(seed: int, asked: Shown) -> int:
    said = hashlib.sha256(f"{seed} {asked.text}".encode())
    for each in asked.pictures:
        said.update(repr(each.shape).encode() + each.tobytes())
    return int.from_bytes(said.digest()[:7], "big")
