"""Inputs and predictions as JSON between the daemon, deployments and the sandboxed processes that answer."""

from __future__ import annotations

from typing import Any, NotRequired, Required, TypedDict

from speciate.modalities.tabular import Row


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


class ItemPrediction(TypedDict):
    id: str
    output: Any
    """As the task has it: a label, a number, or JSON with more in it. None if there is an error."""
    confidence: float | None
    error: str | None
    error_text: NotRequired[str]
    """A decoder's own words, which may quote the input."""
    prediction: NotRequired[str | None]
    """Its id in the log of the use case; None if it could not be written."""


class ModelInputs(TypedDict, total=False):
    """The version that is asked, and how it reads its inputs."""

    model: Required[str]
    """Its folder."""
    modality: Required[str | None]
    inputs: Required[list[str]]
    parts: Required[list[str]]
    ignored_parts: list[str]


class AnswerPayload(ModelInputs):
    items: list[Item]


class AnswerResult(TypedDict):
    predictions: list[ItemPrediction]
    """In the order of the items."""


class DeploymentAnswer(TypedDict):
    """A deployment's answer to POST /predict."""

    predictions: list[ItemPrediction]
    model: str
