"""Models as documents."""

from __future__ import annotations

from speciate.production.dossier import dossier
from speciate.server.surface import App, resource


@resource("speciate://models/{name}/{version}", mime="text/markdown")
def model(app: App, name: str, version: str) -> str:
    """The card of a model version (v3): what made it, how good it was found, its licence and its limits."""
    return dossier(app.workspace, f"{name}@{version}").card
