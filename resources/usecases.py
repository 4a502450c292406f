"""Use cases as resources."""

from __future__ import annotations

from speciate import usecases
from speciate.server.surface import App, resource
from speciate.usecases import UseCase


@resource("speciate://use-cases/{name}")
def use_case(app: App, name: str) -> UseCase:
    """The newest version of one use case: objective, limits, incumbent and gates."""
    return usecases.get(app.workspace.database, name)
