"""An evaluation of a use case as a board: its leaders with their intervals, and quality over cost."""

from __future__ import annotations

from typing import NamedTuple

from speciate.evaluation.decisions import told_by_its_search
from speciate.evaluation.pages.inline_charts import Place, Whisker, whisker_scale
from speciate.evaluation.pages.svg_charts import Scale
from speciate.evaluation.reports.report import Report, Row, find_report, pareto
from speciate.promotion import aliases
from speciate.refs import dataset_ref
from speciate.serving import deployments
from speciate.use_cases import UseCase
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_MOST_ROWS = 14
_EVALUATIONS = """
SELECT id, created, dataset, EXISTS (
    FROM decisions
    WHERE decisions.evaluation = evaluations.id AND decisions.use_case = evaluations.use_case
    AND coalesce(decisions.evidence ->> 'suite', 'core') = 'core'
) AS decided
FROM evaluations WHERE use_case = ? ORDER BY decided DESC, created DESC, id LIMIT ?
"""
_LEAST_USD = 0.001
"""Per 1,000 examples. If all cost less, time tells models apart better than money."""


class Evaluated(NamedTuple):
    """An evaluation of a use case."""

    id: str
    created: float
    dataset: str
    decided: bool
    """Whether a decision on the core suite rests on it."""

    def is_on(self, suite: str | None) -> bool:
        """Whether it judged these data; of a name without a version, any version."""
        if suite is None:
            return True
        judged, wanted = dataset_ref(self.dataset), dataset_ref(suite)
        return judged.name == wanted.name and wanted.version in (None, judged.version)


def evaluations_of(database: Database, use_case: str, most: int) -> list[Evaluated]:
    """Those that decided first, then the newest: one on other rows, asked for beside, says nothing of the gates. Of a
    search that looked twice the one whose verdict it told comes first."""
    found = [Evaluated(*row) for row in database.read(_EVALUATIONS, [use_case, most])]
    told = told_by_its_search(database, found[0].id) if found else None
    return sorted(found, key=lambda each: each.id != told)


class LeaderLine(NamedTuple):
    row: Row
    role: str
    whisker: Whisker
    serves: str | None = None
    """production, canary, or deployed where it answers and neither alias is at it; of an evaluation without a use case
    behind the name of one."""


class Board(NamedTuple):
    """An evaluation as a page draws it."""

    id: str
    report: Report
    lines: tuple[LeaderLine, ...]
    scale: Scale
    places: tuple[Place, ...]
    across: str
    left_out: int


def read_board(workspace: Workspace, evaluation: str, target: float | None) -> Board:
    """The first rows of the leaderboard, and with them whatever serves now."""
    report = find_report(workspace.database, evaluation)
    serves = _serving(workspace, report.use_case)
    rows = [row for place, row in enumerate(report.leaderboard) if place < _MOST_ROWS or row.model in serves]
    whiskers = [Whisker(row.value, row.interval) for row in rows]
    lines = tuple(
        LeaderLine(row, role_of(report, row.model), whisker, serves.get(row.model))
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
        evaluation, report, lines, whisker_scale(whiskers, target), places if len(places) > 1 else (),
        "$ per 1,000" if cost else "p95 latency, ms", len(report.leaderboard) - len(rows),
    )  # fmt: skip


def _serving(workspace: Workspace, use_case: str | None) -> dict[str, str]:
    """Model -> where it serves now."""
    every = aliases.serving(workspace.database)
    if use_case is None:
        return {each.model: f"{owner}@{alias}" for (owner, alias), each in every.items()}
    deployed = deployments.deployment_of(workspace.folders, use_case)
    return {
        **({deployed.serving: "deployed"} if deployed and deployed.serving else {}),
        **{each.model: alias for (owner, alias), each in every.items() if owner == use_case},
    }


def role_of(report: Report, model: str) -> str:
    if model == report.candidate:
        return "candidate"
    return "baseline" if model == report.baseline else "other"


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
