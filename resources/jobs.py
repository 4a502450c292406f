"""Jobs as resources: subscribe to one and hear of each of its changes."""

from __future__ import annotations

from speciate.server.jobview import JobView, LogPiece, log_after, view
from speciate.server.surface import App, resource


@resource("speciate://jobs/{job}")
def job(app: App, job: str) -> JobView:
    """State, progress, result and children of one job."""
    return view(app.engine, app.engine.get(job), log_lines=20)


@resource("speciate://jobs/{job}/log{?after}")
def job_log(app: App, job: str, after: int = 0) -> LogPiece:
    """The log of a job's newest attempt from byte `after` on; `next_after` continues it."""
    return log_after(app.engine, app.engine.get(job), after)
