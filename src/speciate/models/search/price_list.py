"""Models behind inference APIs as LiteLLM's table lists them: which of them look at images or listen, and what an
image, a page or a minute of sound costs. The table is a file of JSON in the package; nothing of the package is run.

Prices of tokens are in the table, too; where genai-prices knows a model, its price counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from speciate.models.search.sources import Entry, PackageSource
from speciate.vocabulary import TASKS

_TABLE = "model_prices_and_context_window_backup.json"
_PROVIDERS = {
    "openai": "openai", "anthropic": "anthropic", "gemini": "google", "mistral": "mistral", "groq": "groq",
    "xai": "xai", "deepseek": "deepseek", "fireworks_ai": "fireworks", "together_ai": "together",
    "openrouter": "openrouter", "deepgram": "deepgram", "assemblyai": "assemblyai", "elevenlabs": "elevenlabs",
    "black_forest_labs": "black-forest-labs", "recraft": "recraft", "stability": "stability", "cohere": "cohere",
}  # fmt: skip
"""LiteLLM's name of a provider -> ours. Clouds that sell the models of others under many names are left out."""
_KINDS = {
    "chat": "text-generation", "responses": "text-generation", "completion": "text-generation",
    "audio_transcription": "automatic-speech-recognition", "ocr": "image-text-to-text",
    "image_generation": "text-to-image", "embedding": "feature-extraction",
}  # fmt: skip
"""LiteLLM's mode -> our task, where there is one."""
_HEARS, _SEES = ("audio_transcription",), ("ocr", "image_edit")


class PriceList(PackageSource):
    name, package = "litellm", "litellm"
    what = "models behind inference APIs: what they read, and the price of an image or a minute"

    def entries(self) -> Iterator[Entry]:
        for name, said in sorted(_table().items()):
            try:
                entry = _entry(name, said)
            except ValidationError:
                continue
            if entry is not None:
                yield entry


def _table() -> Mapping[str, Mapping[str, Any]]:
    listed = [file for file in distribution("litellm").files or [] if file.name == _TABLE]
    if not listed:
        return {}
    found = json.loads(Path(str(listed[0].locate())).read_text("utf-8"))
    return {name: each for name, each in found.items() if isinstance(each, dict)}


def _entry(name: str, said: Mapping[str, Any]) -> Entry | None:
    """None for a provider that is not ours, and for a row that is about one size or quality of images alone."""
    provider = _PROVIDERS.get(str(said.get("litellm_provider")))
    model = name.removeprefix(f"{said.get('litellm_provider')}/")
    if provider is None or "-x-" in model or model.startswith(("ft:", "streaming/")):
        return None
    mode, writes = str(said.get("mode")), _KINDS.get(str(said.get("mode")))
    sees = said.get("supports_vision") is True or mode in _SEES
    tasks = [writes] if writes in TASKS else []
    if sees and writes == "text-generation":
        tasks.append("image-text-to-text")
    hears = said.get("supports_audio_input") is True or mode in _HEARS
    reads = {"text": mode not in _HEARS, "image": sees, "audio": hears, "video": said.get("supports_video_input")}
    return Entry(
        ref=f"api:{provider}/{model}",
        what=f"{model} {provider} {mode.replace('_', ' ')}{' reads images, vision' if sees else ''}",
        access="api",
        tasks=tuple(tasks),
        modalities=tuple(medium for medium, known in reads.items() if known),
        usd_per_1m_input=_usd(said, "input_cost_per_token", 1e6),
        usd_per_1m_output=_usd(said, "output_cost_per_token", 1e6),
        usd_per_image=_per_image(said),
        usd_per_minute=_usd(said, "input_cost_per_second", 60) or _usd(said, "output_cost_per_second", 60),
        context_tokens=_whole(said.get("max_input_tokens")),
    )


def _per_image(said: Mapping[str, Any]) -> float | None:
    """US dollars for an image that it makes, else for one that it reads, else for a page."""
    for name in ("output_cost_per_image", "input_cost_per_image", "ocr_cost_per_page"):
        if found := _usd(said, name, 1):
            return found
    return None


def _usd(said: Mapping[str, Any], name: str, times: float) -> float | None:
    found = said.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not (math.isfinite(found) and found > 0):
        return None  # a price of 0 stands for one that is not known, too
    return round(float(found) * times, 9)


def _whole(found: object) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


PRICE_LIST = PriceList()
