"""What can be set of methods of language models where the task is to answer about pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from speciate.training.language.specs import LanguageParameters

SEEING = "image-text-to-text"


class SeeingSftParameters(LanguageParameters):
    """Of `sft` for image-text-to-text: the answers of the examples are learned word by word."""

    learn: Literal["completion", "assistant"] = Field(
        "completion", description="completion: the last answer. assistant: each turn of the assistant."
    )
    eyes: Literal["kept", "learned"] = Field(
        "kept", description="kept: what sees stays as it is. learned: it changes as the rest does."
    )
    side: int | None = Field(
        None, ge=16, le=16_384,
        description="Longest side of a picture in pixels, from now on: larger ones are made smaller.",
    )  # fmt: skip
    max_length: int = Field(
        2048, ge=8, le=1_000_000,
        description="Longest example in tokens, those of its pictures among them; longer ones are left out, never cut.",
    )  # fmt: skip
    batch_size: int = Field(8, ge=1, le=4096, description="Examples in each step of the optimizer.")
    template: Literal["auto", "chat"] = Field("auto", description="The chat template of the processor, always.")
    chat_template: str | None = Field(
        None, max_length=100_000, description="Jinja, in place of the processor's: contents are lists of parts."
    )


SEEING_FORMS: dict[str, type[LanguageParameters]] = {"sft": SeeingSftParameters}
"""The methods that learn it."""
