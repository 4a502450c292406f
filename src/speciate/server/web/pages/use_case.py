"""One use case: what it wants, how its models compare, what waits, what runs, what happened; and its production."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.evaluation.reports.describe_evaluation import Inspection
from speciate.evaluation.reports.report import Decision
from speciate.governance import approval_keys, approvals, audit
from speciate.loop.use_case_board import evaluations_of, read_board, wants
from speciate.loop.watch import report as watches
from speciate.predictions.label_queue import summarize_log
from speciate.promotion import aliases
from speciate.resources.monitoring import drift
from speciate.server.web.pages.data import cells_of
from speciate.server.web.visit import Visit, field
from speciate.serving import deployments
from speciate.serving.traffic import read_traffic
from speciate.tools.jobs import list_jobs
from speciate.tools.promotion import rollback_model
from speciate.tools.status import get_status
from speciate.workspace.workspace import Workspace

_SERVED = """
SELECT DISTINCT after FROM audit
WHERE use_case = ? AND action IN ('promote', 'rollback') AND after IS NOT NULL ORDER BY after
"""
_ABOUT_RULES = ("unseen", "license", "offline", "consent")
"""Gates that say whether a model may serve, and nothing of how good it is."""
_TRAIL, _JOBS, _TILES, _EVALUATIONS = 8, 6, 8, 12


def use_case(visit: Visit) -> Mapping[str, object]:
    name = visit.path["name"]
    case = use_cases.get(visit.database, name)
    [status] = get_status(visit.app, name).use_cases
    evaluations = evaluations_of(visit.database, name, _EVALUATIONS)
    pending = [
        each for each in approvals.list_approvals(visit.database, visit.now, approvals.PENDING)
        if each.arguments.get("use_case") == name or each.arguments.get("name") == name
    ]  # fmt: skip
    board = (
        read_board(visit.app.workspace, evaluations[0].id, case.objective.target, with_earlier=True)
        if evaluations else None
    )  # fmt: skip
    return {
        "title": name,
        "case": case,
        "wants": wants(case),
        "status": status,
        "alias": aliases.read(visit.database, name),
        "board": board,
        "reasons": _telling_reasons(board.report.decision) if board and board.report.decision else (),
        "evaluations": evaluations,
        "pending": pending,
        "trail_rows": trail_of(visit, name, _TRAIL),
        "jobs": list_jobs(visit.app, use_case=name, limit=_JOBS).jobs,
        "traffic": read_traffic(visit.app.workspace.folders, name, visit.now),
    }


def _telling_reasons(decision: Decision) -> list[str]:
    """The first reason that has figures of the candidate, and how it does beside a free method."""
    quality = [gate.reason for gate in decision.gates if gate.gate.rule not in _ABOUT_RULES]
    beside = [gate.reason for gate in decision.gates if gate.gate.rule == "free_method"]
    failed = [gate.reason for gate in decision.gates if gate.outcome != "pass"]
    return list(dict.fromkeys([*(failed or quality or decision.reasons)[:1], *beside]))


def trail_of(visit: Visit, name: str, most: int) -> list[tuple[audit.Row, Mapping[str, object]]]:
    return [(row, approval_keys.evidence_of(row)) for row in audit.newest(visit.database, name, most)]


def differences(visit: Visit) -> Mapping[str, object]:
    """Where candidate and baseline of the evaluation on the page differ: asked for apart, for the sandbox is asked."""
    name = visit.path["name"]
    shown = evaluations_of(visit.database, name, 1)
    if not shown:
        return {"page": None, "title": name}
    found = Inspection(visit.app.workspace, visit.app.pool, shown[0].id, None)
    show = visit.one_of("show", ("differ", "both_wrong", "all"), "differ")
    page = found.ask("answer_rows:judged_page", show=show, count=_TILES)
    return {
        "title": name, "page": page, "evaluation": shown[0].id, "show": show, "candidate": found.candidate,
        "baseline": found.baseline, "manifest": found.manifest, "name": name,
        "cells": cells_of(visit, found.manifest, [each["id"] for each in page["examples"]]),
    }  # fmt: skip


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
        "traffic": read_traffic(visit.app.workspace.folders, name, visit.now),
        "log": _if_there(summarize_log, visit, name),
        "watch": _watch(visit, name),
        "trail_rows": trail_of(visit, name, 30),
        "drift": drift(visit.app, name).newest,
    }


T = TypeVar("T")


def _if_there(find: Callable[[Workspace, str], T], visit: Visit, name: str) -> T | None:
    try:
        return find(visit.app.workspace, name)
    except SpeciateError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise


class WatchPage(NamedTuple):
    report: watches.WatchReport
    why: Sequence[watches.TickDocument]


def _watch(visit: Visit, name: str) -> WatchPage | None:
    found = _if_there(watches.report, visit, name)
    return found and WatchPage(found, watches.why(visit.app.workspace, name, 30.0)[-40:][::-1])


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
