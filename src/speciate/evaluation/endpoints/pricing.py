"""What answers cost in USD: calls by the endpoint's own prices, else by those published (genai-prices, offline); this
machine by the core-hour.

What is not known stays None and is never counted as 0.
"""

from __future__ import annotations

import json
from typing import NamedTuple, Protocol

from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints.chat_client import Part, Request
from speciate.models.endpoints import Endpoint
from speciate.settings import Settings

CHARACTERS_PER_TOKEN = 4.0
"""Mean length of a token of English prose, for estimates only; other languages and code have fewer."""
_IMAGE_TOKENS = 26_000
"""More than any known endpoint counts for an image of 1024 x 1024: gpt-4o-mini takes 25,501."""
_AUDIO_TOKENS_PER_SECOND = 100
_AUDIO_BYTES_PER_SECOND = 32_000  # 16 kHz, 16 bits
_FRAME_TOKENS = 256
_MESSAGE_TOKENS = 32


class Usage(NamedTuple):
    """Tokens. `cached`: how many of `input` were read from the endpoint's cache; `audio`: how many are of audio."""

    input: int
    output: int
    cached: int = 0
    audio: int = 0


class Price(Protocol):
    @property
    def source(self) -> str:
        """Where it is known from."""
        ...

    def usd(self, usage: Usage) -> float: ...


class OwnPrice(NamedTuple):
    """The price as the endpoint's owner states it; cached input costs what other input costs."""

    per_1m_input: float
    per_1m_output: float

    @property
    def source(self) -> str:
        return "the endpoint's own prices"

    def usd(self, usage: Usage) -> float:
        return (usage.input * self.per_1m_input + usage.output * self.per_1m_output) / 1e6


class PublishedPrice(NamedTuple):
    """The price in genai-prices' table, found by the endpoint's host and the model's name there."""

    base_url: str
    model: str
    version: str

    @property
    def source(self) -> str:
        return f"genai-prices {self.version}"

    def usd(self, usage: Usage) -> float:
        import genai_prices

        counted = genai_prices.Usage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cached or None,
            input_audio_tokens=usage.audio or None,
        )
        return float(genai_prices.calc_price(counted, self.model, provider_api_url=self.base_url).total_price)


def price_of(endpoint: Endpoint) -> Price | None:
    """None: unknown, as of a local endpoint without prices of its own. INVALID: only one of its two prices is set."""
    own = (endpoint.usd_per_1m_input, endpoint.usd_per_1m_output)
    if own[0] is not None and own[1] is not None:
        return OwnPrice(own[0], own[1])
    if own != (None, None):
        raise SpeciateError(
            Code.INVALID,
            f"Of {endpoint.model!r} at {endpoint.host} only one price is set.",
            "Register it again with both usd_per_1m_input and usd_per_1m_output, or with neither.",
        )
    return None if endpoint.is_local else _published(endpoint)


def estimate(price: Price | None, characters: int, output_tokens: int) -> float | None:
    """About what prompts of so many characters and answers of so many tokens cost; None where prices are unknown."""
    return price.usd(Usage(round(characters / CHARACTERS_PER_TOKEN), output_tokens)) if price else None


def at_most(request: Request) -> Usage:
    """No request takes more: a token of text is at least one byte, and an answer ends at max_tokens.

    What an endpoint thinks without showing it counts as its answer where it honours the cap for that too.
    """
    text, audio = _FRAME_TOKENS + len(json.dumps(request.answer_schema or {})), 0
    for message in request.messages:
        text += _MESSAGE_TOKENS
        content = message["content"]
        parts: list[Part] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            text_tokens, audio_tokens = _of_part(part)
            text, audio = text + text_tokens, audio + audio_tokens
    return Usage(text + audio, request.max_tokens, audio=audio)


def _of_part(part: Part) -> tuple[int, int]:
    """Tokens of text or images, and of audio."""
    if part["type"] == "text":
        return len(part["text"].encode("utf-8", "surrogatepass")), 0
    if part["type"] == "image_url":
        return _IMAGE_TOKENS, 0
    audio = len(part["input_audio"]["data"]) * 3 / 4
    return 0, round(audio / _AUDIO_BYTES_PER_SECOND * _AUDIO_TOKENS_PER_SECOND) + 1


def _published(endpoint: Endpoint) -> PublishedPrice | None:
    try:
        import genai_prices
    except ImportError:
        return None
    price = PublishedPrice(endpoint.base_url, endpoint.model, genai_prices.__version__)
    try:
        price.usd(Usage(1, 1))
    except (LookupError, ValueError):
        return None
    return price


USD_PER_CORE_HOUR = 0.05
"""Where settings say nothing: about the list price of one virtual core with its memory at the large clouds."""
OWN_PRICE = (
    "What runs here costs its processor time: usd_per_hour of settings.toml for all cores, else "
    f"{USD_PER_CORE_HOUR} for an hour of one. Nobody bills it; it makes models comparable."
)


def usd_per_core_hour(settings: Settings) -> float:
    """US dollars for an hour of a core, from `usd_per_hour` of the whole machine where a person set that."""
    return USD_PER_CORE_HOUR if settings.usd_per_hour is None else settings.usd_per_hour / cores()


def usd_for(core_seconds: float, per_core_hour: float = USD_PER_CORE_HOUR) -> float:
    return core_seconds / 3600 * per_core_hour
