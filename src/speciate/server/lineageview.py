"""How a graph of lineage is shown in an answer: the nodes nearest to what was asked about."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from speciate.production.origins import Traced
from speciate.server.surface import Result

_SHOWN = 40


class LineageNode(Result):
    id: str = Field(description="KIND:NAME")
    facts: dict[str, Any] | None = None


class LineageView(Result):
    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str, str], ...] = Field(description="From, to, how.")
    not_shown: int | None = None

    @classmethod
    def of(cls, traced: Traced) -> LineageView:
        shown = traced.graph.nearest(traced.start, _SHOWN)
        return cls(
            nodes=tuple(LineageNode(id=node.id, facts=node.facts or None) for node in shown.nodes.values()),
            edges=tuple((edge.source, edge.target, edge.how) for edge in shown.edges),
            not_shown=len(traced.graph.nodes) - len(shown.nodes) or None,
        )
