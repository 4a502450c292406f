"""One use case: what it wants, how its models compare, what waits, what runs, what happened; and its production."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.evaluation.pages.svg_charts import Scale
from speciate.evaluation.reports.describe_evaluation import Inspection, against_baseline
from speciate.evaluation.reports.report import Report, Row, find_report, pareto
from speciate.governance import approval_keys, approvals, audit
from speciate.loop.watch import report as watches
from speciate.predictions.label_queue import summarize_log
from speciate.promotion import aliases
from speciate.resources.monitoring import drift
from speciate.server.web import charts
from speciate.server.web.charts import Line, Place, Whisker
from speciate.server.web.visit import Visit, field
from speciate.serving import deployments
from speciate.serving.deployment_folder import deployment_folder
from speciate.serving.hourly_tallies import HourTally, read_hours
from speciate.tools.jobs import list_jobs
from speciate.tools.promotion import rollback_model
from speciate.tools.status import get_status
from speciate.use_cases import UseCase

_EVALUATIONS = "SELECT id, created FROM evaluations WHERE use_case = ? ORDER BY created DESC LIMIT 12"
_SERVED = """
SELECT DISTINCT after FROM audit
WHERE use_case = ? AND action IN ('promote', 'rollback') AND after IS NOT NULL ORDER BY after
"""
_TRAIL, _JOBS, _TILES = 8, 6, 8
_DAY = 86_400.0
_MOST_ROWS = 14
_LEAST_USD = 0.001
"""Per 1,000 examples. If all cost less, time tells models apart better than money."""


class LeaderLine(NamedTuple):
    row: Row
    role: str
    whisker: Whisker
    href: str | None


class Board(NamedTuple):
    """The newest evaluation of a use case as the page draws it."""

    id: str
    report: Report
    lines: tuple[LeaderLine, ...]
    scale: Scale
    places: tuple[Place, ...]
    across: str
    left_out: int


def use_case(visit: Visit) -> Mapping[str, object]:
    name = visit.path["name"]
    case = use_cases.get(visit.database, name)
    [status] = get_status(visit.app, name).use_cases
    evaluations = visit.database.read(_EVALUATIONS, [name])
    pending = [
        each for each in approvals.list_approvals(visit.database, visit.now, approvals.PENDING)
        if each.arguments.get("use_case") == name or each.arguments.get("name") == name
    ]  # fmt: skip
    return {
        "title": name,
        "case": case,
        "wants": wants(case),
        "status": status,
        "alias": aliases.read(visit.database, name),
        "board": board(visit, evaluations[0][0], case.objective.target) if evaluations else None,
        "evaluations": evaluations,
        "pending": pending,
        "trail_rows": trail_of(visit, name, _TRAIL),
        "jobs": list_jobs(visit.app, use_case=name, limit=_JOBS).jobs,
        "traffic": traffic(visit, name),
    }


def trail_of(visit: Visit, name: str, most: int) -> list[tuple[audit.Row, Mapping[str, object]]]:
    return [(row, approval_keys.evidence_of(row)) for row in audit.newest(visit.database, name, most)]


def board(visit: Visit, evaluation: str, target: float | None) -> Board:
    report = find_report(visit.database, evaluation)
    rows = report.leaderboard[:_MOST_ROWS]
    whiskers = [Whisker(row.value, row.interval) for row in rows]
    lines = tuple(
        LeaderLine(row, role_of(report, row.model), whisker, model_path(row.model))
        for row, whisker in zip(rows, whiskers, strict=True)
    )
    dominated = set(pareto(report).dominated)
    by_cost = [row for row in rows if row.usd_per_1k is not None and row.value is not None]
    by_time = [row for row in rows if row.p95_ms is not None and row.value is not None]
    cost = len(by_cost) > 1 and max(row.usd_per_1k or 0.0 for row in by_cost) >= _LEAST_USD
    places = tuple(
        Place(row.model, float((row.usd_per_1k if cost else row.p95_ms) or 0.0), float(row.value or 0.0),
              role_of(report, row.model), row.model in dominated)
        for row in (by_cost if cost else by_time)
    )  # fmt: skip
    return Board(
        evaluation, report, lines, charts.whisker_scale(whiskers, target), places if len(places) > 1 else (),
        "$ per 1,000" if cost else "p95 latency, ms", len(report.leaderboard) - len(rows),
    )  # fmt: skip


def role_of(report: Report, model: str) -> str:
    if model == report.candidate:
        return "candidate"
    return "baseline" if model == report.baseline else "other"


def model_path(model: str) -> str | None:
    """The page of a registered version; None where it is not registered."""
    name, at, version = model.partition("@v")
    plain = at and version.isdigit() and ":" not in name and "+" not in name and "/" not in name
    return f"/models/{name}/v{version}" if plain else None


def differences(visit: Visit) -> Mapping[str, object]:
    """Where candidate and baseline of the newest evaluation differ: asked for apart, for the sandbox is asked."""
    name = visit.path["name"]
    newest = visit.database.read(_EVALUATIONS, [name])
    if not newest:
        return {"page": None, "title": name}
    found = Inspection(visit.app.workspace, visit.app.pool, newest[0][0], None)
    show = visit.one_of("show", ("differ", "both_wrong", "all"), "differ")
    page = found.ask("answer_rows:judged_page", show=show, count=_TILES)
    if found.has_thumbnails and found.manifest is not None:
        visit.parts.media.draw(found.manifest, [each["id"] for each in page["examples"]])
    return {
        "title": name, "page": page, "evaluation": newest[0][0], "show": show, "candidate": found.candidate,
        "baseline": found.baseline, "manifest": found.manifest, "pictures": found.has_thumbnails, "name": name,
    }  # fmt: skip


class Traffic(NamedTuple):
    """Of the last day."""

    requests: int
    failed: int
    per_second: float
    mean_ms: float | None
    slow: int
    timed: int
    by_hour: tuple[Line, ...]
    by_model: Mapping[str, int]


def traffic(visit: Visit, name: str) -> Traffic | None:
    """None where no deployment ever served it over HTTP."""
    folder = deployment_folder(visit.app.workspace.folders, name).hours
    if not folder.exists():
        return None
    now = visit.now
    hours = read_hours(folder, now - _DAY, now)
    requests, seconds = sum(each.requests for each in hours), sum(each.seconds for each in hours)
    models: dict[str, int] = {}
    for each in hours:
        models[each.model] = models.get(each.model, 0) + each.requests
    return Traffic(
        requests, sum(each.failed for each in hours), requests / _DAY, 1000 * seconds / requests if requests else None,
        sum(each.slow for each in hours), sum(each.timed for each in hours), _by_hour(hours, now), models,
    )  # fmt: skip


def _by_hour(hours: Sequence[HourTally], now: float) -> tuple[Line, ...]:
    """Requests of each of the last 24 hours, of what is in production and of a canary."""
    last = math.floor(now / 3600)
    lines = []
    for alias, role in (("production", "candidate"), ("canary", "baseline")):
        counts = dict.fromkeys(range(-23, 1), 0)
        for each in hours:
            if each.alias == alias and each.hour - last in counts:
                counts[each.hour - last] += each.requests
        if any(counts.values()):
            lines.append(Line(alias, role, [(float(hour), float(count)) for hour, count in counts.items()]))
    return tuple(lines)


def production(visit: Visit) -> Mapping[str, object]:
    name = visit.path["name"]
    case = use_cases.get(visit.database, name)
    [status] = get_status(visit.app, name).use_cases
    return {
        "title": f"{name} in production",
        "case": case,
        "status": status,
        "alias": aliases.read(visit.database, name),
        "canary": aliases.read(visit.database, name, aliases.CANARY),
        "served": [model for (model,) in visit.database.read(_SERVED, [name])],
        "deployment": deployments.deployment_of(visit.app.workspace.folders, name),
        "traffic": traffic(visit, name),
        "log": _log(visit, name),
        "watch": _watch(visit, name),
        "trail_rows": trail_of(visit, name, 30),
        "drift": _drift(visit, name),
    }


def _log(visit: Visit, name: str) -> object | None:
    try:
        return summarize_log(visit.app.workspace, name)
    except SpeciateError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise


class WatchPage(NamedTuple):
    report: watches.WatchReport
    why: Sequence[watches.TickDocument]


def _watch(visit: Visit, name: str) -> WatchPage | None:
    try:
        found = watches.report(visit.app.workspace, name)
    except SpeciateError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise
    return WatchPage(found, watches.why(visit.app.workspace, name, 30.0)[-40:][::-1])


def _drift(visit: Visit, name: str) -> object | None:
    """What monitoring found in its newest window; None where it has not looked."""
    return drift(visit.app, name).newest


def rollback(visit: Visit) -> str:
    """Serve a version again that served before, or end a canary."""
    name = visit.path["name"]
    expected, reason = field(visit, "expected"), field(visit, "reason")
    to = visit.form.get("to", "").strip() or None
    rollback_model(visit.app, name, reason[:500], expected, to)
    return f"/use-cases/{name}/production"


def switch_watch(visit: Visit) -> str:
    name = visit.path["name"]
    visit.perform("watch switch", use_case=name, enabled=field(visit, "enabled") == "yes")
    return f"/use-cases/{name}/production"


def comparisons_of(report: Report) -> Mapping[str, object]:
    """Each other model against the baseline, by its name."""
    return {each.candidate: each for each in against_baseline(report, report.baseline)}


def wants(case: UseCase) -> list[str]:
    """Target and limits in a few words each."""
    limits, found = case.limits, list[str]()
    if limits.p95_latency_ms is not None:
        found.append(f"p95 at most {limits.p95_latency_ms:g} ms")
    if limits.usd_per_1k is not None:
        found.append(f"at most ${limits.usd_per_1k:g} per 1,000")
    if limits.max_parameters is not None:
        found.append(f"at most {limits.max_parameters:,} parameters")
    if limits.max_memory_mb is not None:
        found.append(f"at most {limits.max_memory_mb:g} MB")
    return [*found, *(["works offline"] if limits.offline else []), *limits.licenses]
