"""The options of other tools' arguments."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.server import option_catalog
from speciate.server.option_catalog import Kind
from speciate.server.tool_api import App, Result, tool


class OptionView(Result):
    name: str
    what: str
    parameters: dict[str, Any]
    needs: tuple[str, ...]


class Options(Result):
    options: tuple[OptionView, ...]


@tool(read_only=True)
def list_options(
    app: App,
    kind: Kind,
    name: str | None = None,
    task: Annotated[str | None, Field(description="Only options that suit this task.")] = None,
) -> Options:
    """List the tasks, metrics, methods and other options, with parameters. For datasets, call describe_dataset."""
    found = option_catalog.list_options(kind, name, task)
    return Options(options=tuple(OptionView(**option._asdict()) for option in found))
