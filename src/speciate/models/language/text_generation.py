"""Text generation: batched, padded on the left, greedy by default, the same for the same seed.

Prompts of similar length are answered together, the longest first, so that a batch that is too big fails at once. A
sampled answer is a function of the seed and of the prompt, not of its place: other prompts in the batch change only the
last bits of sums, through padding. Left out: vLLM and other servers; an endpoint stands for them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class Sampling(BaseModel):
    """How answers are generated; kept with a model, and part of every record of its answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_new_tokens: int = Field(256, ge=1, le=32_768, description="Longest answer.")
    temperature: float = Field(0.0, ge=0, le=5, description="0: the likeliest token each time (greedy).")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the likeliest tokens that have this share together.")
    top_k: int = Field(0, ge=0, description="Of so many likeliest tokens; 0: of all.")
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    stop: tuple[str, ...] = Field((), max_length=8, description="Texts that end an answer and are not part of it.")
    seed: int = Field(0, ge=0, le=2**32 - 1)
    batch_size: int = Field(16, ge=1, le=1024, description="Prompts answered together.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class GeneratedText(NamedTuple):
    """`finished`: it ended by itself or by a stop text; else it was truncated at the longest answer."""

    text: str
    tokens: int
    finished: bool
    prompt_tokens: int


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    longest: int,
    between: Callable[[int], None] = lambda done: None,
) -> list[GeneratedText]:
    """One answer for each prompt, in their order. `longest`: tokens of the context; a prompt that leaves no room raises
    ValueError. `between(done)` is called after each batch."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    for each in ids:
        if len(each) >= longest:
            raise ValueError(f"a question of {len(each):,} tokens, where the model can see {longest:,}")
    found: list[GeneratedText | None] = [None] * len(prompts)
    size = sampling.batch_size if sampling.greedy else 1
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
    done = 0
    for room, places in _batches([min(sampling.max_new_tokens, longest - len(each)) for each in ids], order, size):
        batch = [ids[place] for place in places]
        seed = prompt_seed(f"{sampling.seed} {batch[0]}".encode())
        answers = generate_batch(model, tokenizer, _padded(batch, tokenizer.pad_token_id), sampling, room, seed)
        for place, one in zip(places, answers, strict=True):
            found[place] = one
        done += len(places)
        between(done)
    return [one for one in found if one is not None]


def generate_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Mapping[str, torch.Tensor],
    sampling: Sampling,
    room: int,
    seed: int,
) -> list[GeneratedText]:
    """Answers of at most `room` tokens to prompts (B, T) as the model takes them, padded on the left. `seed` counts if
    answers are sampled."""
    import torch

    device = next(model.parameters()).device
    width, lengths = inputs["input_ids"].shape[1], inputs["attention_mask"].sum(1).tolist()
    if not sampling.greedy:
        torch.manual_seed(seed)
    with torch.inference_mode():
        out = model.generate(
            **{name: each.to(device) for name, each in inputs.items()},
            generation_config=_settings(model, tokenizer, sampling, room),
            tokenizer=tokenizer if sampling.stop else None,
        )  # fmt: skip
    ends = _ends(model, tokenizer)
    return [
        _decode(tokenizer, row.tolist(), ends, sampling.stop, length)
        for row, length in zip(out[:, width:], lengths, strict=True)
    ]


def prompt_seed(*parts: bytes) -> int:
    """A seed that depends on these bytes alone."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest()[:7], "big")


def _batches(rooms: Sequence[int], order: Sequence[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """Tokens that answers may have, and places of the prompts that are answered together with that room: a prompt that
    leaves little room does not shorten the answers to others."""
    for room, alike in itertools.groupby(order, key=lambda place: rooms[place]):
        places = list(alike)
        for start in range(0, len(places), size):
            yield room, places[start : start + size]


def _padded(ids: Sequence[list[int]], pad: int) -> dict[str, torch.Tensor]:
    import torch

    width = max(len(each) for each in ids)
    return {
        "input_ids": torch.tensor([[pad] * (width - len(each)) + each for each in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in ids]),
    }


def _settings(model: Any, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, room: int) -> Any:
    """Generation settings from `sampling` alone: the model's own generation_config.json does not count."""
    from transformers import GenerationConfig

    make: Any = GenerationConfig
    drawn = {} if sampling.greedy else {
        "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k,
    }  # fmt: skip
    return make(
        max_new_tokens=room, do_sample=not sampling.greedy, repetition_penalty=sampling.repetition_penalty,
        eos_token_id=sorted(_ends(model, tokenizer)), pad_token_id=tokenizer.pad_token_id,
        stop_strings=list(sampling.stop) or None, num_beams=1, **drawn,
    )  # fmt: skip


def _ends(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a text: the tokenizer's, and those that the model's own settings name."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = named if isinstance(named, list | tuple) else [named]
    return frozenset(each for each in (*listed, tokenizer.eos_token_id) if isinstance(each, int))


def _decode(
    tokenizer: PreTrainedTokenizerBase, row: list[int], ends: frozenset[int], stop: Sequence[str], prompt_tokens: int
) -> GeneratedText:
    """`row`: generated tokens; `ends`: tokens that end the text."""
    end = next((place for place, token in enumerate(row) if token in ends), None)
    own = row if end is None else row[:end]
    text = str(tokenizer.decode(own, skip_special_tokens=True))
    places = [place for word in stop if (place := text.find(word)) >= 0]
    if places:
        text = text[: min(places)]
    return GeneratedText(text, len(own), end is not None or bool(places), prompt_tokens)
