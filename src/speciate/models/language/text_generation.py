"""Text generation: batched, padded on the left, greedy by default, the same for the same seed.

Prompts of similar length are answered together, the longest first, so that a batch that is too big fails at once. A
sampled answer is a function of the seed and of the prompt, not of its place: other prompts in the batch change only the
last bits of sums, through padding. Left out: vLLM and other servers; an endpoint stands for them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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


Watch = Callable[[Mapping[int, str]], Collection[int]]
"""Hears what was written since it was called last: place of a prompt -> text, which may be empty. Returns the places of
the answers that nobody wants any more: they end as they are."""


class PromptTooLong(ValueError):
    """The prompt leaves no room for an answer; the text says how long it is, and how much the model can see."""


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
    watch: Watch | None = None,
) -> list[GeneratedText]:
    """One answer for each prompt, in their order. `longest`: tokens of the context; a prompt that leaves no room raises
    PromptTooLong, before anything is written. `between(done)` is called after each batch, `watch` after each token."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    for each in ids:
        if len(each) >= longest:
            raise PromptTooLong(f"a question of {len(each):,} tokens, where the model can see {longest:,}")
    found: list[GeneratedText | None] = [None] * len(prompts)
    size = sampling.batch_size if sampling.greedy else 1
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
    done = 0
    for room, places in _batches([min(sampling.max_new_tokens, longest - len(each)) for each in ids], order, size):
        batch = [ids[place] for place in places]
        seed = prompt_seed(f"{sampling.seed} {batch[0]}".encode())
        writing = _Writing(tokenizer, places, _ends(model, tokenizer), sampling.stop, watch) if watch else None
        inputs = _padded(batch, tokenizer.pad_token_id)
        answers = generate_batch(model, tokenizer, inputs, sampling, room, seed, writing)
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
    writing: _Writing | None = None,
) -> list[GeneratedText]:
    """Answers of at most `room` tokens to prompts (B, T) as the model takes them, padded on the left. `seed` counts if
    answers are sampled. `writing`: hears each token."""
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
            **({} if writing is None else {"streamer": writing, "stopping_criteria": [writing.unwanted]}),
        )  # fmt: skip
    ends = _ends(model, tokenizer)
    rows = out[:, width:].tolist()
    if writing is not None:
        rows = [each.tokens for each in writing.answers]  # without what pads an answer that ended before the others
        rows = [[*row, min(ends)] if each.ended else row for row, each in zip(rows, writing.answers, strict=True)]
    answers = [_decode(tokenizer, row, ends, sampling.stop, length) for row, length in zip(rows, lengths, strict=True)]
    if writing is not None:
        writing.finish([each.text for each in answers])
    return answers


_CLEANED = 4
"""Characters that a tokenizer's clean-up may still take away before what comes next, such as a space before a comma."""


class _Answer:
    """An answer that is being written."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.sent = ""
        self.ended = self.stopped = self.unwanted = False
        """`ended`: by a token that ends a text; `stopped`: by a stop text."""


class _Writing:
    """Hears the tokens of a batch as they are generated, and passes their text on to `watch`; a streamer of
    transformers. Text is held back while later tokens may change it: half a character, what may be the beginning of a
    stop text, and what the tokenizer cleans up. So all that was passed on is the beginning of the answer."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        places: Sequence[int],
        ends: frozenset[int],
        stop: Sequence[str],
        watch: Watch,
    ) -> None:
        self._tokenizer, self._places, self._ends, self._stop, self._watch = tokenizer, places, ends, stop, watch
        cleaned = _CLEANED if getattr(tokenizer, "clean_up_tokenization_spaces", False) else 0
        self._held = max([cleaned, *(len(word) - 1 for word in stop)])
        self._heard_prompt = False
        self.answers = [_Answer() for _ in places]

    def put(self, tokens: torch.Tensor) -> None:
        """(B, T) the prompts at first, then (B,) one token for each."""
        if not self._heard_prompt:
            self._heard_prompt = True
            return
        for answer, token in zip(self.answers, tokens.tolist(), strict=True):
            if answer.ended or answer.stopped or answer.unwanted:
                continue  # what comes now is padding
            if token in self._ends:
                answer.ended = True
            else:
                answer.tokens.append(token)
        self._pass_on([self._certain(answer) for answer in self.answers])

    def end(self) -> None:
        """Part of a streamer; `finish` knows the whole answers."""

    def finish(self, texts: Sequence[str]) -> None:
        """Pass on what was held back."""
        self._pass_on(texts)

    def unwanted(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """(B,) a stopping criterion of transformers."""
        return ids.new_tensor([answer.unwanted for answer in self.answers]).bool()

    def _certain(self, answer: _Answer) -> str:
        """The beginning of its text that no later token can change."""
        text = str(self._tokenizer.decode(answer.tokens, skip_special_tokens=True))
        places = [place for word in self._stop if (place := text.find(word)) >= 0]
        if places:
            answer.stopped = True
            return text[: min(places)]
        return text[: max(0, len(text) - self._held)].rstrip("\ufffd")

    def _pass_on(self, texts: Sequence[str]) -> None:
        new: dict[int, str] = {}
        for place, answer, text in zip(self._places, self.answers, texts, strict=True):
            if answer.unwanted:
                continue
            new[place] = text[len(answer.sent) :] if text.startswith(answer.sent) else ""
            answer.sent += new[place]
        gone = self._watch(new) if new else ()
        for place, answer in zip(self._places, self.answers, strict=True):
            answer.unwanted = answer.unwanted or place in gone


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
