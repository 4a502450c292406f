"""Inputs and predictions as JSON between the daemon, deployments and the sandboxed processes that answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, Required, TypedDict

from speciate.modalities.tabular import Row

UNUSABLE = "This input cannot be used; untrusted.error_text says why."
FREE_COLUMNS = ("time-series", "text")
"""Modalities of which a model of others, that was trained on no columns of ours, takes those of a row as they come:
channels, or lines of one text."""


class Cell(TypedDict, total=False):
    """A part of a mixed row: one of both."""

    value: Any
    data: str


class Item(TypedDict, total=False):
    """One input, in one of the forms `text`, `row`, `data` and `parts`; or why it cannot be used."""

    id: str
    text: str
    row: Row
    data: str
    """A file's bytes, as Base64."""
    mime: str
    parts: dict[str, Cell]
    """NAME.MODALITY -> its cell."""
    error: str
    generation: Mapping[str, Any]
    """For a chat: sampling that differs from the model's own (fields of `Sampling`), often none."""
    stream: bool
    """For a chat: whether the answer leaves while it is written, and ends where its time does."""


class Usage(TypedDict):
    """Tokens of one answer of a chat, as the model counts them."""

    prompt_tokens: int
    completion_tokens: int
    finished: bool
    """It ended by itself or by a stop text; else it was cut at its longest."""


class ItemPrediction(TypedDict):
    id: str
    output: Any
    """As the task has it: a label, a number, or JSON with more in it. None if there is an error."""
    confidence: float | None
    error: str | None
    error_text: NotRequired[str]
    """A decoder's own words, which may quote the input."""
    prediction: NotRequired[str | None]
    """Id of the answer in the log of the use case; None if it could not be written."""
    warnings: NotRequired[list[str]]
    """What is odd in the input beside those that the model learned from; not there where nothing is."""
    usage: NotRequired[Usage]
    """For a chat: how many tokens it took."""
    too_long: NotRequired[bool]
    """For a chat: whether the error is that the prompt leaves no room for an answer."""


class ModelInputs(TypedDict, total=False):
    """The version that is asked, and how it reads its inputs."""

    model: Required[str]
    """Folder of the version."""
    modality: Required[str | None]
    inputs: Required[list[str]]
    parts: Required[list[str]]
    ignored_parts: list[str]


class AnswerPayload(ModelInputs, total=False):
    items: Required[list[Item]]
    seconds: float
    """Seconds after which an answer that leaves while it is written, or whose length its request names, ends as it
    is."""


class AnswerPart(TypedDict):
    """What was written of answers since the part before."""

    texts: list[tuple[int, str]]
    """Place of an item, and text, which may be empty."""


class AnswerWord(TypedDict):
    """What comes back for a part."""

    stop: list[int]
    """Places of items whose answers nobody wants any more."""


class AnswerResult(TypedDict):
    predictions: list[ItemPrediction]
    """Predictions in the order of the items."""


class DeploymentAnswer(TypedDict):
    """A deployment's answer to POST /predict."""

    predictions: list[ItemPrediction]
    model: str


def error_in_full(found: ItemPrediction) -> str | None:
    """Why there is no answer, with the decoder's own words, where no agent reads it. None if there is one."""
    ours, theirs = found["error"], found.get("error_text", "")
    if ours is None:
        return None
    return theirs if theirs and ours == UNUSABLE else f"{ours} {theirs}".strip()
