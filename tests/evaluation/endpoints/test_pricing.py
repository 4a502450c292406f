from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation.endpoints import prompts
from speciate.evaluation.endpoints.chat_client import Request
from speciate.evaluation.endpoints.pricing import Usage, at_most, estimate, price_of
from speciate.models.endpoints import Endpoint
from speciate.models.providers import PROVIDERS, endpoint

LOCAL = "http://127.0.0.1:8000/v1"


def test_the_endpoints_own_prices_come_first() -> None:
    own = endpoint("api:openai/gpt-4o-mini").model_copy(update={"usd_per_1m_input": 1.0, "usd_per_1m_output": 3.0})
    price = price_of(own)
    assert price is not None
    assert price.usd(Usage(1_000_000, 2_000_000, cached=500_000)) == 7.0


def test_a_price_of_nothing_is_a_price() -> None:
    price = price_of(Endpoint(base_url=LOCAL, model="m", usd_per_1m_input=0, usd_per_1m_output=0))
    assert price is not None
    assert price.usd(Usage(1000, 1000)) == 0


def test_published_prices_are_found_by_host_and_model() -> None:
    """gpt-4o-mini, checked by hand: $0.15 and $0.60 for a million, $0.075 where it was cached."""
    price = price_of(endpoint("api:openai/gpt-4o-mini"))
    assert price is not None
    assert price.source.startswith("genai-prices ")
    assert price.usd(Usage(1_000_000, 1_000_000)) == pytest.approx(0.75)
    assert price.usd(Usage(1_000_000, 0, cached=400_000)) == pytest.approx(0.12)


@pytest.mark.parametrize(
    "unknown",
    [
        Endpoint(base_url=LOCAL, model="gpt-4o-mini"),
        Endpoint(base_url="https://models.example/v1", model="gpt-4o-mini"),
        Endpoint(base_url="https://api.openai.com/v1", model="nobody-knows-it"),
    ],
)
def test_what_is_not_known_is_none_and_never_zero(unknown: Endpoint) -> None:
    assert price_of(unknown) is None
    assert estimate(price_of(unknown), 1000, 10) is None


def test_without_the_extra_published_prices_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert price_of(endpoint("api:openai/gpt-4o-mini")) is None


def test_one_price_alone_is_refused() -> None:
    with pytest.raises(SpeciateError, match="only one price is set"):
        price_of(Endpoint(base_url=LOCAL, model="m", usd_per_1m_input=1))


def test_an_estimate_takes_four_characters_for_a_token() -> None:
    price = price_of(Endpoint(base_url=LOCAL, model="m", usd_per_1m_input=1, usd_per_1m_output=10))
    assert estimate(price, 4_000_000, 100_000) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-4-5"), ("deepseek", "deepseek-chat"), ("google", "gemini-2.5-flash"),
        ("groq", "llama-3.3-70b-versatile"), ("mistral", "mistral-small-latest"), ("openai", "gpt-4o-mini"),
        ("openrouter", "openai/gpt-4o-mini"), ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("xai", "grok-3-mini"),
    ],
)  # fmt: skip
def test_the_providers_addresses_are_those_that_prices_are_published_for(provider: str, model: str) -> None:
    assert provider in PROVIDERS
    assert price_of(endpoint(f"api:{provider}/{model}")) is not None


# The upper bound


@given(st.text(), st.integers(1, 5000))
def test_no_text_takes_more_tokens_than_the_bound(text: str, most: int) -> None:
    """As tokenizers count that fall back to bytes: none makes more than a token of each."""
    bound = at_most(Request([{"role": "user", "content": text}], most))
    assert bound.input >= len(text.encode("utf-8", "surrogatepass"))
    assert bound.output == most


def test_the_bound_counts_images_sound_shots_and_the_schema() -> None:
    def of(request: Request) -> Usage:
        return at_most(request)

    def asked(modality: str, media: object) -> Request:
        form = prompts.prompt_form(prompts.Prompt(), "classification", modality, labels=("a", "b"))
        return prompts.request(form, Example("x", media, None, "x", "test", {}))

    text = of(asked("text", "x"))
    image = of(asked("image", np.zeros((1024, 1024, 3), np.uint8)))
    assert 25_501 <= image.input - text.input <= 27_000
    sound = of(asked("audio", np.zeros(16_000 * 60, np.float32)))
    assert 6000 <= sound.audio <= 6010
    assert sound.input >= sound.audio
    plain = asked("text", "x")
    without = of(plain._replace(answer_schema=None))
    assert text.input - without.input == len(json.dumps(plain.answer_schema)) - 2
