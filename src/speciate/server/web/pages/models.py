"""Models: the newest version of each, and one version with its card, lineage and evaluations."""

from __future__ import annotations

from collections.abc import Mapping

from speciate.lineage import trace
from speciate.models import registry
from speciate.promotion import aliases
from speciate.server.web.charts import lineage
from speciate.server.web.visit import Visit
from speciate.tools.models import describe_model

_NEWEST_EVALUATIONS = "SELECT id, use_case, dataset, created FROM evaluations ORDER BY created DESC LIMIT 20"


def listed(visit: Visit) -> Mapping[str, object]:
    behind: dict[str, list[str]] = {}
    for (use_case, name), alias in aliases.serving(visit.database).items():
        behind.setdefault(alias.model, []).append(f"{use_case}@{name}")
    return {
        "title": "Models", "models": registry.newest_of_each(visit.database), "behind": behind,
        "evaluations": visit.database.read(_NEWEST_EVALUATIONS),
    }  # fmt: skip


def model(visit: Visit) -> Mapping[str, object]:
    name, version = visit.path["name"], int(visit.path["version"])
    ref = f"{name}@v{version}"
    found = describe_model(visit.app, ref)
    card = registry.resolve(visit.database, visit.app.workspace.folders, ref).card
    traced = trace.trace_model(visit.app.workspace, ref)
    return {
        "title": ref, "name": name, "version": version, "model": found, "card": card,
        "lineage": traced.text, "graph": lineage(traced.graph, traced.start),
    }  # fmt: skip
