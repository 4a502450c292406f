"""Evaluations as resources. They never change."""

from __future__ import annotations

from speciate.evaluation.pages.contents import gather
from speciate.evaluation.pages.page import page
from speciate.evaluation.report import Report, find
from speciate.server.surface import App, resource


@resource("speciate://evaluations/{id}")
def evaluation(app: App, id: str) -> Report:  # noqa: A002 - the address's word
    """The whole report of one evaluation: leaderboard, comparisons and decision."""
    return find(app.workspace.database, id)


@resource("speciate://evaluations/{id}/page", mime="text/html")
def evaluation_page(app: App, id: str) -> str:  # noqa: A002 - the address's word
    """One evaluation for people, as one HTML file without scripts."""
    return page(gather(app.workspace, app.pool, id))
