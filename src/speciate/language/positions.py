"""Where each token stands, for models that learned an embedding of each place (GPT-2): a padded question begins at 0.

transformers counts places from the left edge, the padding among them, unless it is told otherwise. Its `generate` does
so; trl's trainers (1.16), which pad questions on the left, do not, so such a model would learn at other places than
those at which it answers. Rotary embeddings know distances alone, to which padding does nothing.
"""

from __future__ import annotations

import inspect
from typing import Any

_TABLES = ("wpe", "position_embeddings", "embed_positions", "position_embedding")
"""How such tables are called."""


def by_mask(model: Any) -> None:
    """From now on a forward pass that is told no places, and keeps none of an earlier one, counts from the first token
    that is not padding."""
    backbone = model.base_model
    if _learned(backbone) and "position_ids" in inspect.signature(backbone.forward).parameters:
        backbone.register_forward_pre_hook(_told, with_kwargs=True)


def _learned(backbone: Any) -> bool:
    """A table of places whose rows are looked up by number; a class of its own (OPT) sees to padding itself."""
    import torch

    return any(
        type(module) is torch.nn.Embedding and name.rpartition(".")[2] in _TABLES
        for name, module in backbone.named_modules()
    )


def _told(backbone: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask = named.get("attention_mask")
    untold = named.get("position_ids") is None and named.get("past_key_values") is None
    if untold and mask is not None and mask.dim() == 2:
        named = named | {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}
    return given, named
