"""How like an image and a text are, by a published model of both (CLIP, SigLIP and their kin): the cosine of their
vectors, as CLIPScore has it (Hessel et al. 2021) without its factor and without cutting at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speciate.models.published.adapters.images import Pixels, as_image
from speciate.models.published.published_model import PublishedModel

ADAPTER = "zero-shot-image"
_TOGETHER, _SENTENCE_TOKENS = 16, 64


def cosines(model: PublishedModel, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
    """One for each pair."""
    found: list[float] = []
    for start in range(0, len(images), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        found += _cosines(model, images[part], texts[part])
    return found


def _cosines(model: PublishedModel, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
    import torch

    positions = int(getattr(getattr(model.config, "text_config", model.config), "max_position_embeddings", 64))
    options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": positions}
    if "siglip" in model.head.model_type:  # which was trained on sentences of one length
        options |= {"padding": "max_length", "max_length": min(_SENTENCE_TOKENS, positions)}
    tokens = model.tokenizer(list(texts), return_tensors="pt", **options)
    seen = model.processor(images=[as_image(each) for each in images], return_tensors="pt")
    with torch.inference_mode():
        made: Any = model.module(**seen, **tokens)
    vectors = [torch.nn.functional.normalize(each.float(), dim=-1) for each in (made.image_embeds, made.text_embeds)]
    return [float(each) for each in (vectors[0] * vectors[1]).sum(-1)]
