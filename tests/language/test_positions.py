"""Padding on the left changes nothing of what a model says, whichever way it knows places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from speciate.language import bases
from speciate.training.language.distillation.cutting import cut
from tests.language.world import tiny_model, tiny_tokenizer


def gpt2(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def said(model: Any, ids: list[int], padding: int, **more: Any) -> torch.Tensor:
    """Logits after the last token."""
    padded = torch.tensor([[0] * padding + ids])
    mask = torch.tensor([[0] * padding + [1] * len(ids)])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=padded, attention_mask=mask, **more).logits[0, -1]
    return found


@pytest.mark.parametrize("kind", ["gpt2", "cut from gpt2", "rotary"])
def test_a_padded_question_is_read_as_it_is_alone(tmp_path: Path, kind: str) -> None:
    folder = Path(tiny_model(tmp_path / "m").removeprefix("path:")) if kind == "rotary" else gpt2(tmp_path / "m")
    model: Any = bases.load_model(folder)
    model.config.use_cache = False
    if kind == "cut from gpt2":
        model = cut(model, 1, "it").model
    ids = [5, 6, 7, 8, 9]
    alone = said(model, ids, 0)
    assert torch.allclose(said(model, ids, 7), alone, atol=1e-4)
    if kind != "rotary":
        shifted = torch.arange(12)[None]
        assert not torch.allclose(said(model, ids, 7, position_ids=shifted), alone, atol=1e-3), "whoever tells is heard"


def test_a_model_with_a_table_of_places_writes_the_same_from_a_padded_question(tmp_path: Path) -> None:
    model: Any = bases.load_model(gpt2(tmp_path / "m"))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), ids], -1)
    mask = (torch.arange(11)[None] >= 6).long()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert model.generate(padded, attention_mask=mask, **options)[0, 11:].tolist() == alone[0, 5:].tolist()
