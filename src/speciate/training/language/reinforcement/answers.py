"""Greedy answers to held-out questions of a model that learns from rewards: by itself, or in its environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from speciate.language import bases
from speciate.language.generation import Sampling, Written, write
from speciate.training.language.reinforcement import rewarding
from speciate.training.language.reinforcement.environment import Host

_TOGETHER = 16
"""Questions that are played together."""


class Answers(NamedTuple):
    written: list[Written]
    worth: list[float | None]
    """What their environments say of each; empty where there are none, or they say nothing."""


def alone(trainer: Any, texts: Sequence[str], most: int, between: Callable[[int], None]) -> Answers:
    """`most`: tokens of an answer. `between` is called between batches, with how many are answered."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    training, cached = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        written = write(
            model, trainer.processing_class, texts, Sampling(max_new_tokens=most), longest=bases.longest(model),
            between=between,
        )  # fmt: skip
    finally:
        model.train(training)
        model.config.use_cache = cached
    counted = [each._replace(tokens=each.tokens + each.finished) for each in written]  # trl counts the end, too
    return Answers(counted, [])


def in_environments(trainer: Any, rows: Any, host: Host, most: int, between: Callable[[int], None]) -> Answers:
    """As `alone`, of rows as trl takes them: as trl's `_generate_and_score_completions` (1.16) goes about it, but
    greedily."""
    from transformers import GenerationConfig

    make: Any = GenerationConfig
    drawn = trainer.generation_config
    same = {name: getattr(drawn, name) for name in ("max_new_tokens", "eos_token_id", "pad_token_id", "bos_token_id")}
    trainer.generation_config = make(**same, do_sample=False, disable_compile=True)
    training = trainer.accelerator.unwrap_model(trainer.model).training
    trainer.model.eval()
    found = Answers([], [])
    try:
        for start in range(0, len(rows), _TOGETHER):
            between(start)
            places = range(start, min(len(rows), start + _TOGETHER))
            some = _played(trainer, [dict(rows[place]) for place in places], host, most)
            found.written.extend(some.written)
            found.worth.extend(some.worth)
    finally:
        trainer.generation_config = drawn
        trainer.model.train(training)
        trainer._metrics["eval"].clear()
    return found


def _played(trainer: Any, rows: list[dict[str, Any]], host: Host, most: int) -> Answers:
    """An environment for each row, with its tools where trl looks for them."""
    pool = trainer._environment_pool[None]
    pool += [host.kind() for _ in range(len(rows) - len(pool))]
    trainer.environments = pool[: len(rows)]
    trainer._batch_environments = [None] * len(rows)
    names = [each.name for each in host.described.tools]
    trainer._sync_tool_dicts = [{name: getattr(each, name) for name in names} for each in trainer.environments]
    trainer._async_tool_dicts = [{} for _ in rows]
    prompts = []
    for each, row in zip(trainer.environments, rows, strict=True):
        said, prompt = each.reset(**row), row["prompt"]
        last = prompt[-1] | {"content": prompt[-1]["content"] + (said or "")}
        prompts.append([*prompt[:-1], last])
    found = trainer._generate(prompts)
    written = [
        Written(rewarding.said(completion), len(ids), len(ids) < most, len(asked))
        for asked, ids, completion in zip(found[0], found[1], found[3], strict=True)
    ]
    return Answers(written, [each._reward() for each in trainer.environments] if host.described.rewards else [])
