"""Texts that a model writes: batched, padded on the left, greedy unless asked otherwise, the same for the same seed.

Questions of like length are answered together, the longest first, so that a batch that is too big fails at once. An
answer's chance is a function of the seed and of the question, not of its place: what is asked beside it changes nothing
but the last bits of sums, which padding moves. Left out: vLLM and other servers, which an endpoint stands for.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Sampling(BaseModel):
    """How answers are drawn; kept with a model and part of every record of what it said."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_new_tokens: int = Field(256, ge=1, le=32_768, description="Longest answer.")
    temperature: float = Field(0.0, ge=0, le=5, description="0: the likeliest token each time (greedy).")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the likeliest tokens that have this share together.")
    top_k: int = Field(0, ge=0, description="Of so many likeliest tokens; 0: of all.")
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    stop: tuple[str, ...] = Field((), max_length=8, description="Texts that end an answer, and are no part of it.")
    seed: int = Field(0, ge=0, le=2**32 - 1)
    batch_size: int = Field(16, ge=1, le=1024, description="Questions answered together.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class GeneratedText(NamedTuple):
    """`finished`: it ended by itself or by a stop text; else it was cut at the longest answer."""

    text: str
    tokens: int
    finished: bool
    asked_tokens: int


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[str],
    sampling: Sampling,
    *,
    longest: int,
    between: Callable[[int], None] = lambda done: None,
) -> list[GeneratedText]:
    """One answer for each text, in their order. `longest`: tokens that the model can see; a question that leaves no
    room raises ValueError. `between(done)` is called after each batch."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked]
    for each in ids:
        if len(each) >= longest:
            raise ValueError(f"a question of {len(each):,} tokens, where the model can see {longest:,}")
    found: list[GeneratedText | None] = [None] * len(asked)
    size = sampling.batch_size if sampling.greedy else 1
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
    done = 0
    for room, places in _batches([min(sampling.max_new_tokens, longest - len(each)) for each in ids], order, size):
        for place, one in zip(
            places, _batch(model, tokenizer, [ids[place] for place in places], sampling, room), strict=True
        ):
            found[place] = one
        done += len(places)
        between(done)
    return [one for one in found if one is not None]


def _batches(rooms: Sequence[int], order: Sequence[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """Places of questions that are answered together, and tokens that each of these answers may have: a question that
    leaves little room does not cut the answers to others."""
    for room, alike in itertools.groupby(order, key=lambda place: rooms[place]):
        places = list(alike)
        for start in range(0, len(places), size):
            yield room, places[start : start + size]


def _batch(
    model: Any, tokenizer: PreTrainedTokenizerBase, ids: Sequence[list[int]], sampling: Sampling, room: int
) -> list[GeneratedText]:
    import torch

    width = max(len(each) for each in ids)
    pad = tokenizer.pad_token_id
    device = next(model.parameters()).device
    padded = torch.tensor([[pad] * (width - len(each)) + each for each in ids], device=device)
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in ids], device=device)
    if not sampling.greedy:
        torch.manual_seed(_seed(sampling.seed, ids[0]))
    with torch.inference_mode():
        out = model.generate(
            input_ids=padded, attention_mask=mask, generation_config=settings(model, tokenizer, sampling, room),
            tokenizer=tokenizer if sampling.stop else None,
        )  # fmt: skip
    over = ends(model, tokenizer)
    return [
        answer(tokenizer, row.tolist(), over, sampling.stop, len(each))
        for row, each in zip(out[:, width:], ids, strict=True)
    ]


def settings(model: Any, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, room: int) -> Any:
    """Ours alone: what a model's own generation_config.json says of sampling does not count."""
    from transformers import GenerationConfig

    make: Any = GenerationConfig

    drawn = {} if sampling.greedy else {
        "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k,
    }  # fmt: skip
    return make(
        max_new_tokens=room, do_sample=not sampling.greedy, repetition_penalty=sampling.repetition_penalty,
        eos_token_id=sorted(ends(model, tokenizer)), pad_token_id=tokenizer.pad_token_id,
        stop_strings=list(sampling.stop) or None, num_beams=1, **drawn,
    )  # fmt: skip


def ends(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a text: the tokenizer's, and those that the model's own settings name beside it."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = named if isinstance(named, list | tuple) else [named]
    return frozenset(each for each in (*listed, tokenizer.eos_token_id) if isinstance(each, int))


def answer(
    tokenizer: PreTrainedTokenizerBase, row: list[int], ends: frozenset[int], stop: Sequence[str], asked: int
) -> GeneratedText:
    """`row`: what a model wrote; `ends`: tokens that end it; `asked`: tokens of the question."""
    end = next((place for place, token in enumerate(row) if token in ends), None)
    own = row if end is None else row[:end]
    text = str(tokenizer.decode(own, skip_special_tokens=True))
    places = [place for word in stop if (place := text.find(word)) >= 0]
    if places:
        text = text[: min(places)]
    return GeneratedText(text, len(own), end is not None or bool(places), asked)


def _seed(seed: int, ids: Sequence[int]) -> int:
    said = hashlib.sha256(f"{seed} {list(ids)}".encode()).digest()
    return int.from_bytes(said[:7], "big")
