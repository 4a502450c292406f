"""The first page: what waits for a person, every use case, what runs, and how deliveries go."""

from __future__ import annotations

from collections.abc import Mapping

from speciate.datasets import versions
from speciate.governance import approvals
from speciate.loop.ledger import ledger
from speciate.server.web.visit import Visit
from speciate.tools.jobs import list_jobs
from speciate.tools.status import status_view

_RECENT = 6


def home(visit: Visit) -> Mapping[str, object]:
    status, book = status_view(visit.app, sees_settings=visit.may("INSPECT")), ledger(visit.app.workspace)
    recent = list_jobs(visit.app, limit=40).jobs
    running = [job for job in recent if job.state in ("running", "starting", "queued", "waiting")]
    return {
        "title": "Use cases",
        "empty": not (status.use_cases or recent or versions.names(visit.database)),
        "status": status,
        "ledger": book,
        "lines": {line.use_case: line for line in book.lines},
        "pending": approvals.list_approvals(visit.database, visit.now, approvals.PENDING),
        "running": running[:_RECENT],
        "recent": [job for job in recent if job not in running][:_RECENT],
    }


def badge(visit: Visit) -> Mapping[str, object]:
    """How many approvals wait, which every page shows beside its name."""
    return {}
