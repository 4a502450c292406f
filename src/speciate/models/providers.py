"""Who serves public models through an OpenAI-compatible chat API, and where."""

from __future__ import annotations

from typing import NamedTuple

from speciate.errors import Code, SpeciateError, unknown
from speciate.models.endpoints import LONGEST_MODEL, Endpoint
from speciate.models.model_card import SERVED, ModelCard

API = "api:"


class Provider(NamedTuple):
    """`secret`: the name of its stored key, unless another is given."""

    base_url: str
    secret: str


PROVIDERS: dict[str, Provider] = {
    "anthropic": Provider("https://api.anthropic.com/v1", "anthropic"),
    "deepseek": Provider("https://api.deepseek.com/v1", "deepseek"),
    "fireworks": Provider("https://api.fireworks.ai/inference/v1", "fireworks"),
    "google": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "google"),
    "groq": Provider("https://api.groq.com/openai/v1", "groq"),
    "huggingface": Provider("https://router.huggingface.co/v1", "huggingface"),
    "mistral": Provider("https://api.mistral.ai/v1", "mistral"),
    "openai": Provider("https://api.openai.com/v1", "openai"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "openrouter"),
    "together": Provider("https://api.together.xyz/v1", "together"),
    "xai": Provider("https://api.x.ai/v1", "xai"),
}


def card(provider_and_model: str) -> ModelCard:
    """The card without a network: where the model is served. Raises what `endpoint` raises."""
    found = endpoint(provider_and_model)
    return ModelCard(name=provider_and_model.removeprefix(API), id=found.identity, method=SERVED, endpoint=found)


def endpoint(provider_and_model: str) -> Endpoint:
    """The endpoint of `openai/gpt-5-mini`, with `api:` before it or without.

    Raises NOT_FOUND with the known providers, INVALID without a model (or one longer than any).
    """
    name, _, model = provider_and_model.removeprefix(API).partition("/")
    if name not in PROVIDERS:
        raise unknown(
            "provider", name, PROVIDERS,
            f"Known are {', '.join(PROVIDERS)}; any other OpenAI-compatible one: "
            "register_model(name=..., endpoint={'base_url': ..., 'model': ..., 'secret': ...}).",
        )  # fmt: skip
    if not 0 < len(model) <= LONGEST_MODEL:
        raise SpeciateError(
            Code.INVALID,
            f"{provider_and_model!r} names no model that could be.",
            f"Write it as '{API}{name}/MODEL', as {name} calls the model.",
        )
    provider = PROVIDERS[name]
    return Endpoint(base_url=provider.base_url, model=model, secret=provider.secret)
