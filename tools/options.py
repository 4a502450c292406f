"""The options of other tools' arguments."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.server import option_catalog
from speciate.server.option_catalog import Kind
from speciate.server.tool_api import App, Result, tool

_MANY: tuple[Kind, ...] = ("gym",)
"""Kinds with so many options that a list has their names alone."""


class OptionView(Result):
    name: str
    what: str
    needs: tuple[str, ...] = ()
    parameter_names: tuple[str, ...] | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema; only of an option that was named."""


class Options(Result):
    options: tuple[OptionView, ...]


@tool(read_only=True)
def list_options(
    app: App,
    kind: Annotated[Kind, Field(description="argument, result: of tools.")],
    name: Annotated[str | None, Field(description="This one, with its parameters.")] = None,
    task: Annotated[str | None, Field(description="Only what suits this task.")] = None,
) -> Options:
    """List the tasks, metrics, methods and other values that arguments take; by name one with its parameters.

    For datasets, call describe_dataset; for models, search_models.
    """
    found = option_catalog.list_options(kind, name, task)
    return Options(
        options=tuple(
            OptionView(
                name=option.name,
                what=option.what,
                needs=option.needs,
                parameter_names=(option.parameter_names or None) if name is None and kind not in _MANY else None,
                parameters=None if name is None else dict(option.parameters),
            )
            for option in found
        )
    )
