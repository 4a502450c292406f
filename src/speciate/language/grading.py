"""Models that give a text one number: a language model with a head of one output in place of its words.

transformers' sequence classification reads the number at the last token that is not padding. A folder of a causal
language model gets a fresh head, drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.language.bases import unreadable

_AT_ONCE = 16


class Grader(NamedTuple):
    model: Any
    head: str
    """The name of the module with one output; empty where nothing is fresh."""


def load_grader(folder: Path, seed: int | None = None) -> Grader:
    """In eval mode and float32, on the processor. `seed`: of a fresh head, where the folder has none; without it that
    is INVALID, as are other weights that are missing."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    more = {} if seed is None else {"num_labels": 1}
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed or 0)
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                output_loading_info=True, **more,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(folder, f"with one output, {type(error).__name__}", error) from error
    model, said = loaded
    fresh = sorted({name.rpartition(".")[0] for name in said["missing_keys"]})
    if said["mismatched_keys"] or len(fresh) > (seed is not None):
        raise unreadable(folder, f"its weights lack {', '.join(fresh[:3]) or 'their shape'}")
    model.eval()
    return Grader(model, fresh[0] if fresh else "")


def grade(model: Any, ids: Sequence[Sequence[int]], pad: int | None, longest: int) -> list[float]:
    """A number for each list of tokens, in their order; those of like length are computed together. ValueError for one
    that is longer than the model can see."""
    import torch

    for each in ids:
        if len(each) > longest:
            raise ValueError(f"a text of {len(each):,} tokens, where the model can see {longest:,}")
    padding = pad or 0
    model.config.get_text_config().pad_token_id = padding
    device = next(model.parameters()).device
    found = [0.0] * len(ids)
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        width = len(ids[places[0]])
        tokens = torch.tensor([[*ids[place], *[padding] * (width - len(ids[place]))] for place in places])
        mask = torch.tensor([[1] * len(ids[place]) + [0] * (width - len(ids[place])) for place in places])
        with torch.inference_mode():
            scores = model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits[:, 0].double().cpu()
        for place, score in zip(places, scores.tolist(), strict=True):
            found[place] = float(score)
    return found
