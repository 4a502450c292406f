"""Runs: the list, one with its curves and log, and its control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import ENDED
from speciate.server.job_view import job_view, read_curves
from speciate.server.web.charts import Line
from speciate.server.web.visit import Visit, field
from speciate.tools.jobs import StateName, control_job, list_jobs

_PAGE = 50
_LOG_LINES = 200
_CONTROLS = {
    "running": ("pause", "cancel"), "starting": ("cancel",), "queued": ("pause", "cancel"), "waiting": ("cancel",),
    "paused": ("resume", "cancel"), "failed": ("retry",), "dead": ("retry",), "cancelled": ("retry",),
}  # fmt: skip
_HELD = ("held_value", "held_loss", "held_out")
_NOT_DRAWN = ("step", "epoch", "seconds", "at", "time", "examples", "tokens")


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
        "charts": draw(curves) if curves else [],
        "share": _share(view.progress),
    }


def _share(progress: Any) -> float | None:
    if progress is None or not progress.total:
        return None
    return min(1.0, float(progress.done / progress.total))


def draw(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Line], str]]:
    """A chart of the losses, and one of what was measured on held-out examples: title, lines, the newest values."""
    names = dict.fromkeys(name for line in lines for name in line if name not in _NOT_DRAWN)
    numeric = [name for name in names if any(_is_number(line.get(name)) for line in lines)]
    losses = [name for name in numeric if "loss" in name]
    others = [name for name in numeric if name in ("held_value", "value", "accuracy", "reward", "reward_mean")]
    charts = []
    for title, chosen in (("Loss", losses[:3]), ("On held-out examples", others[:2])):
        drawn, newest = list[Line](), list[str]()
        for place, name in enumerate(chosen):
            points = [
                (float(line.get("step", at)), float(line[name]))
                for at, line in enumerate(lines)
                if _is_number(line.get(name))
            ]
            if not points:
                continue
            role = "baseline" if name in _HELD or place == 1 else "candidate" if place == 0 else "other"
            best = min(points, key=lambda p: p[1]) if "loss" in name else max(points, key=lambda p: p[1])
            newest.append(f"{name.replace('_', ' ')} {points[-1][1]:.4g}, best {best[1]:.4g} at {best[0]:.0f}")
            if len(points) > 60 and role == "candidate":
                drawn.append(Line(name, role, points, thin=True))
                points = _smooth(points)
            drawn.append(Line(name, role, points))
        if drawn:
            charts.append((title, drawn, " · ".join(newest)))
    return charts


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean, which is what eyes follow in a noisy curve."""
    level, found = points[0][1], []
    for at, value in points:
        level = 0.85 * level + 0.15 * value
        found.append((at, level))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
