"""Sentences that zero-shot models are asked with: each label put into each template, as tokens."""

from __future__ import annotations

from typing import Any

from speciate.models.published.adapters.text import fill
from speciate.models.published.published_model import LabelPrompts, PublishedModel

_SENTENCE_TOKENS = 64
"""Tokens of a sentence for SigLIP, which was trained on sentences of that length."""


def sentence_tokens(model: PublishedModel, prompts: LabelPrompts) -> list[dict[str, Any]]:
    """For each template the tokens of all labels, (labels, T) each."""
    audio = model.head.adapter == "zero-shot-audio"
    options: dict[str, Any] = {"padding": True} if audio else {"padding": True, "truncation": True}
    if "siglip" in model.head.model_type:
        options |= {"padding": "max_length", "max_length": min(_SENTENCE_TOKENS, _positions(model))}
    made = []
    for template in prompts.templates:
        words = model.tokenizer([fill(template, label) for label in prompts.labels], return_tensors="pt", **options)
        if audio:
            words.pop("token_type_ids", None)
        made.append(dict(words))
    return made


def _positions(model: PublishedModel) -> int:
    text = getattr(model.config, "text_config", model.config)
    return int(getattr(text, "max_position_embeddings", _SENTENCE_TOKENS))
