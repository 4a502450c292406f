"""Evaluations as resources. They never change."""

from __future__ import annotations

from speciate.evaluation.report import Report, find
from speciate.server.surface import App, resource


@resource("speciate://evaluations/{id}")
def evaluation(app: App, id: str) -> Report:  # noqa: A002 - the address's word
    """The whole report of one evaluation: leaderboard, comparisons and decision."""
    return find(app.workspace.database, id)
