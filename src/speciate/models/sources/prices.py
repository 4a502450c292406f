"""Models behind inference APIs, with the prices that the package genai-prices collects: what its providers charged on
the day of its release. Ours are called `api:PROVIDER/MODEL` where we know how to reach them; others are listed, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from speciate.models import providers
from speciate.models.sources.contract import Entry, Packaged

_OURS = {"x-ai": "xai", "huggingface_together": "huggingface"}
"""Its name of a provider -> ours, where they differ."""


class Prices(Packaged):
    name, what, package = "prices", "models behind inference APIs, with prices", "genai-prices"

    def entries(self) -> Iterator[Entry]:
        from genai_prices.data import providers as known

        for provider in sorted(known, key=lambda each: each.id):
            ours = _OURS.get(provider.id, provider.id)
            for model in sorted(provider.models, key=lambda each: each.id):
                price = _usual(model.prices)
                yield Entry(
                    ref=f"api:{ours}/{model.id}",
                    what=f"{model.name or ''} {model.id} {provider.name} {' '.join((model.description or '').split())}",
                    access="api",
                    tasks=("text-generation",) if _writes(price) else (),
                    modalities=("text",),
                    usd_per_1m_input=_usd(price, "input_mtok"),
                    usd_per_1m_output=_usd(price, "output_mtok"),
                    context_tokens=model.context_window,
                )


def reachable(ref: str) -> bool:
    """Whether an `api:` ref names a provider that we know how to ask."""
    return ref.removeprefix(providers.API).partition("/")[0] in providers.PROVIDERS


def _usual(prices: Any) -> Any:
    """Of several, which hold under conditions, the last: it is the one without."""
    return prices[-1].prices if isinstance(prices, list) else prices


def _writes(price: Any) -> bool:
    return getattr(price, "output_mtok", None) is not None


def _usd(price: Any, name: str) -> float | None:
    """The base price where it rises with length."""
    found = getattr(price, name, None)
    found = getattr(found, "base", found)
    return None if found is None else float(found)


SOURCE = Prices()
