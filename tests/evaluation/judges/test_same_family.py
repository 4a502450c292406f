from __future__ import annotations

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.judges import same_family
from speciate.models.endpoints import Endpoint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt-5-mini", "openai/gpt-oss-120b"), ("o3", "chatgpt-4o-latest"), ("meta-llama/Llama-3.1-8B", "llama3-70b"),
        ("Qwen/Qwen3-8B", "QwQ-32B"), ("mistral-large", "Mixtral-8x7B"), ("google/gemma-3-27b", "gemini-3-pro"),
        ("house-model-1", "house-model-2"), ("deepseek-r1-distill-qwen-7b", "qwen2.5-7b"),
    ],
)  # fmt: skip
def test_names_of_one_family_meet(one: str, other: str) -> None:
    assert same_family.families(one) & same_family.families(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt-5", "claude-sonnet-5"), ("llama-3.3-70b-instruct", "qwen3-8b-instruct"), ("grok-4", "o3"),
        ("ours", "gpt-5"), ("mistral-small", "phi-4"), ("olmo-2", "oracle"),
    ],
)  # fmt: skip
def test_names_of_other_families_do_not(one: str, other: str) -> None:
    assert not same_family.families(one) & same_family.families(other)


def test_the_base_of_a_trained_model_and_the_members_of_an_ensemble_count() -> None:
    judge = Endpoint(base_url="https://judges.example/v1", model="qwen3-max")
    trained = EvaluatedModel(name="ours@v1", source="model", identity="m", base_model="hf:Qwen/Qwen3-0.6B")
    other = EvaluatedModel(name="theirs@v1", source="model", identity="n", base_model="hf:HuggingFaceTB/SmolLM2-135M")
    same_family.check_same_family("judge", judge, [other])
    with pytest.raises(SpeciateError, match=r"ours@v1: both are of the family 'qwen'"):
        same_family.check_same_family("judge", judge, [trained])
    together = EvaluatedModel(name="ensemble:", source="ensemble", identity="e", members=(other, trained))
    with pytest.raises(SpeciateError, match="qwen"):
        same_family.check_same_family("judge", judge, [together])


def test_a_model_does_not_judge_itself_under_another_name() -> None:
    endpoint = Endpoint(base_url="https://judges.example/v1", model="x")
    itself = EvaluatedModel(name="itself@v1", source="endpoint", identity="i", endpoint=endpoint)
    with pytest.raises(SpeciateError, match="the same model"):
        same_family.check_same_family("judge", endpoint.model_copy(update={"secret": "another"}), [itself])
