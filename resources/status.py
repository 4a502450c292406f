"""What is going on in the workspace, as a resource."""

from __future__ import annotations

from speciate.loop.status import Status
from speciate.loop.status import status as measure
from speciate.server.surface import App, resource


@resource("speciate://status")
def status(app: App) -> Status:
    """Use cases with their clocks, running jobs, what waits for a person, and disk."""
    return measure(app.workspace)
