"""Models: the newest version of each, and one version with its card, lineage and evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from speciate.lineage import trace
from speciate.lineage.graph import Node
from speciate.lineage.linked_chart import linked_chart
from speciate.models import registry
from speciate.promotion import aliases
from speciate.server.web.visit import Visit
from speciate.tools.models import describe_model

_VERSIONS = 20
_NEWEST_EVALUATIONS = "SELECT id, use_case, dataset, created FROM evaluations ORDER BY created DESC LIMIT 20"


def listed(visit: Visit) -> Mapping[str, object]:
    behind: dict[str, list[str]] = {}
    for (use_case, name), alias in aliases.serving(visit.database).items():
        behind.setdefault(alias.model, []).append(f"{use_case}@{name}")
    return {
        "title": "Models", "models": registry.newest_of_each(visit.database), "behind": behind,
        "evaluations": visit.database.read(_NEWEST_EVALUATIONS),
    }  # fmt: skip


def newest(visit: Visit) -> str:
    """Where the newest version of a name is."""
    card = registry.resolve(visit.database, visit.app.workspace.folders, visit.path["name"]).card
    return f"/models/{quote(card.name)}/v{card.version}" if card.version else "/models"


def model(visit: Visit) -> Mapping[str, object]:
    name, version = visit.path["name"], int(visit.path["version"])
    ref = f"{name}@v{version}"
    found = describe_model(visit.app, ref)
    card = registry.resolve(visit.database, visit.app.workspace.folders, ref).card
    traced = trace.trace_model(visit.app.workspace, ref)
    return {
        "title": ref, "name": name, "version": version, "model": found, "card": card,
        "members": card.recipe.get("members", ()),
        "versions": registry.versions(visit.database, name)[-_VERSIONS:],
        "lineage": traced.text, "graph": linked_chart(traced.graph, traced.start, page_of),
    }  # fmt: skip


def page_of(node: Node) -> str | None:
    """`name@v3` of data and models, the id of other things; None for what has no page."""
    name, _, version = node.name.partition("@v")
    if node.kind in ("dataset", "model") and version.isdigit() and not {":", "/"} & set(name):
        return f"/{'data' if node.kind == 'dataset' else 'models'}/{quote(name)}/v{version}"
    folder = {"evaluation": "evaluations", "job": "runs", "approval": "approvals"}.get(node.kind)
    identifier = node.id.partition(":")[2]
    return f"/{folder}/{quote(identifier)}" if folder else None
