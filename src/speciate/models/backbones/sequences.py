"""What backbones over tokens share, text and protein: batches of token ids, and states of tokens, units and wholes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from speciate.models.backbones.contract import Item, States

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "first", "max"]
"""Of all attended tokens, special ones included, as Sentence-BERT does (Reimers & Gurevych 2019); or the first's."""


def item(ids: Sequence[int], special: Sequence[int], units: Sequence[int] | None, filler: int) -> Item:
    """`special` marks tokens that stand for nothing of the medium; `units`: the position of each unit's token."""
    if not ids:  # a text of which the tokenizer knows nothing: attention needs something to look at
        ids, special = [filler], [1]
    made: Item = {"ids": np.asarray(ids, np.int32), "counted": np.asarray(special) == 0}
    return made if units is None else made | {"units": np.asarray(units, np.int32)}


def collate(items: Sequence[Item], filler: int) -> dict[str, torch.Tensor]:
    """`ids` `attended` `counted` (B, T), and with units `units` `there` (B, U); `filler` is the padding token."""
    import torch

    ids = [item["ids"] for item in items]
    batch = {
        "ids": _padded(ids, filler, np.int64),
        "attended": _padded([np.ones(len(each), bool) for each in ids], False, np.bool_),
        "counted": _padded([item["counted"] for item in items], False, np.bool_),
    }
    if "units" in items[0]:
        units = [item["units"] for item in items]
        batch["units"] = _padded(units, 0, np.int64)
        batch["there"] = _padded([np.ones(len(each), bool) for each in units], False, np.bool_)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def states(module: Any, batch: dict[str, torch.Tensor], pooling: Pooling) -> States:
    attended = batch["attended"]
    hidden = module(input_ids=batch["ids"], attention_mask=attended.long()).last_hidden_state.float()  # (B, T, W)
    pooled = _pooled(hidden, attended.unsqueeze(-1), pooling)
    if "units" not in batch:
        return States(hidden, batch["counted"], pooled)
    places = batch["units"].unsqueeze(-1).expand(-1, -1, hidden.shape[-1])  # (B, U, W)
    return States(hidden.gather(1, places), batch["there"], pooled)


def longest(config: Any) -> int | None:
    """Tokens that an architecture has positions for; None where its positions are relative."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    # RoBERTa's and its heirs' positions begin after the padding token's number.
    return int(positions) - (config.pad_token_id + 1 if config.model_type in _OFFSET else 0)


_OFFSET = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "esm"}


def _pooled(hidden: torch.Tensor, attended: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(B, T, W), (B, T, 1) -> (B, W)"""
    match pooling:
        case "first":
            return hidden[:, 0]
        case "max":
            return hidden.masked_fill(~attended, float("-inf")).amax(1)
        case "mean":
            counted = attended.to(hidden.dtype)
            return (hidden * counted).sum(1) / counted.sum(1).clamp(min=1)


def _padded(rows: Sequence[npt.NDArray[Any]], value: int, kind: Any) -> npt.NDArray[Any]:
    padded = np.full((len(rows), max(1, *(len(row) for row in rows), 1)), value, kind)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
