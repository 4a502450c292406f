"""Runs: the list, one with its curves and log, and its control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import ENDED
from speciate.server.job_view import job_view, read_curves
from speciate.server.web.visit import Visit, field
from speciate.tools.jobs import StateName, control_job, list_jobs
from speciate.training.curve_charts import draw_curves

_PAGE = 50
_LOG_LINES = 200
_CONTROLS = {
    "running": ("pause", "cancel"), "starting": ("cancel",), "queued": ("pause", "cancel"), "waiting": ("cancel",),
    "paused": ("resume", "cancel"), "failed": ("retry",), "dead": ("retry",), "cancelled": ("retry",),
}  # fmt: skip


def listed(visit: Visit) -> Mapping[str, object]:
    states = get_args(StateName)
    state = visit.one_of("state", ("all", *states), "all")
    use_case, kind = visit.asked("use_case"), visit.asked("kind")
    found = list_jobs(
        visit.app, state=None if state == "all" else cast(StateName, state), kind=kind, use_case=use_case, limit=_PAGE,
        cursor=visit.asked("after"),
    )  # fmt: skip
    return {
        "title": "Runs", "jobs": found.jobs, "next": found.next_cursor, "state": state, "use_case": use_case,
        "kind": kind, "states": ("all", "running", "paused", "succeeded", "failed", "cancelled"),
    }  # fmt: skip


def run(visit: Visit) -> Mapping[str, object]:
    engine, name = visit.app.engine, visit.path["job"]
    job = engine.get(name)
    view = job_view(engine, job, _LOG_LINES)
    curves = read_curves(engine, job)
    return {
        "title": f"{view.kind} {view.job}",
        "job": view,
        "row": job,
        "spec": job.spec,
        "parent": job.parent,
        "use_case": job.use_case,
        "live": job.state not in ENDED,
        "controls": _CONTROLS.get(view.state, ()),
        "charts": draw_curves(curves) if curves else [],
        "share": _share(view.progress),
    }


def _share(progress: Any) -> float | None:
    if progress is None or not progress.total:
        return None
    return min(1.0, float(progress.done / progress.total))


def control(visit: Visit) -> str:
    """Pause, cancel, resume or retry, unless another attempt runs by now than was shown."""
    action = field(visit, "action")
    if action not in ("pause", "cancel", "resume", "retry"):
        raise SpeciateError(Code.INVALID, "A run is paused, cancelled, resumed or retried.", "Load the page again.")
    attempt = field(visit, "attempt")
    job = visit.path["job"]
    asked = cast(Literal["pause", "cancel", "resume", "retry"], action)
    control_job(visit.app, job, asked, int(attempt) if attempt.isdigit() else None)
    return f"/runs/{job}"
