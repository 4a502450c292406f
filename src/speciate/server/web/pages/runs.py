"""Runs: the list, one with its curves and log, and its control."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal, cast, get_args

from starlette.responses import JSONResponse, Response

from speciate.errors import Code, SpeciateError
from speciate.evaluation.pages.formatting import format_duration, format_number, without_controls
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job
from speciate.server.job_view import (
    JobView,
    Measured,
    job_view,
    log_after,
    outcome,
    read_curves,
    read_more_curves,
    step_of,
)
from speciate.server.web.visit import Visit, field
from speciate.tools.jobs import StateName, control_job, list_jobs
from speciate.training.curve_charts import draw_curves
from speciate.training.curve_measures import measures

_PAGE = 50
_LOG_LINES = 200
_MORE_LINES, _MORE_LOG = 10, 900
"""Lines of curves and bytes of the log that one update brings: 2 kB in all. Of more lines some are left out, and
never the best; the next update brings what is left of the log."""
_MOST_BEHIND = 16_000
"""Bytes of the log that are brought piece by piece. A page that is further behind asks for the last lines anew, or a
log that grows fast would be ahead of it for ever."""
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
    log = engine.folder(job).read_tail(_LOG_LINES)
    view, curves = job_view(engine, job, 0), read_curves(engine, job)
    return {
        "title": f"{view.kind} {view.job}",
        "job": view,
        "row": job,
        "step": step_of(job),
        "spec": job.spec,
        "parent": job.parent,
        "use_case": job.use_case,
        "live": job.state not in ENDED,
        "controls": _CONTROLS.get(view.state, ()),
        "charts": draw_curves(curves.lines, curves.held_sign) if curves else [],
        "measured": curves,
        "measured_step": next((one.step for one in view.children if curves and curves.place.startswith(one.job)), None),
        "measures": ",".join(measures(curves.lines)) if curves else "",
        "log": log.text,
        "log_end": log.end,
        "shape": _shape(job, view),
        "how_far": _how_far(view),
        "share": _share(view.progress),
        "outcome": outcome(engine, job),
    }


def more(visit: Visit, asked_for: str | None) -> Response:
    """What a page of a run that is open draws on: no more than that, however long the run is. `whole`: something else
    changed, too, so the page asks for all of it."""
    engine, job = visit.app.engine, visit.app.engine.get(visit.path["job"])
    view = job_view(engine, job, 0)
    after, place, log_from = visit.count("after"), visit.asked("place") or "", visit.count("log")
    curves = read_more_curves(engine, job, place, after, _MORE_LINES) if place else _none_yet(engine, job)
    known = (visit.asked("measures") or "").split(",")
    if curves is None or visit.asked("shape") != _shape(job, view) or set(measures(curves.lines)) - set(known):
        return JSONResponse({"whole": True})
    size = _size(engine.folder(job).log)
    if size - log_from > _MOST_BEHIND:
        return JSONResponse({"whole": True})
    log = log_after(engine, job, log_from, _MORE_LOG)
    return JSONResponse({
        "how_far": _how_far(view), "share": _share(view.progress), "after": curves.end, "log_end": log.next_after,
        "log": without_controls(log.untrusted["log"]), "again": log_from < log.next_after < size,
        "lines": [{"step": line.get("step"), **measures([line])} for line in curves.lines],
    })  # fmt: skip


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _none_yet(engine: Engine, job: Job) -> Measured | None:
    """No lines for a page that has no curves; None where it could have them by now."""
    return None if read_curves(engine, job) else Measured("", 0, [], None)


def _shape(job: Job, view: JobView) -> str:
    """Changes with all that a page of a run shows, but for how far it is, its curves and its log."""
    children = [(child.job, child.state) for child in view.children]
    shown = [job.state, view.request, view.attempt, view.reason, job.error, view.result, children]
    return sha256(json.dumps(shown, default=str).encode()).hexdigest()[:16]


def _how_far(view: JobView) -> str:
    """`4,000 of 10,000 steps · 3 min left · ran 2 min`."""
    found = [f"ran {format_duration(view.run_seconds)}"]
    if view.eta_seconds is not None and view.state not in ENDED:
        found.insert(0, f"{format_duration(view.eta_seconds)} left")
    if view.progress is not None:
        total = f" of {format_number(view.progress.total, 6)}" if view.progress.total else ""
        found.insert(0, f"{format_number(view.progress.done, 6)}{total} {view.progress.unit}".strip())
    return " · ".join(found) + (f" · attempt {view.attempt}" if view.attempt > 1 else "")


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
    control_job(visit.app, job, asked, int(attempt) if re.fullmatch("[0-9]{1,18}", attempt) else None)
    return f"/runs/{job}"
