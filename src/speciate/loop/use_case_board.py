"""An evaluation of a use case as a board: its leaders with their intervals, and quality over cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from speciate.evaluation.decisions import told_by_its_search
from speciate.evaluation.pages.inline_charts import Place, Whisker, whisker_scale
from speciate.evaluation.pages.svg_charts import Scale
from speciate.evaluation.reports.report import Report, Row, find_report, learning_split, pareto
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
_MEASURED = """
SELECT
    id, dataset, json_extract_string(report, '$.leaderboard[*].model'),
    json_extract_string(report, '$.leaderboard[*].value')
FROM evaluations WHERE use_case = ? AND report ->> '$.metric' = ? AND id <> ? ORDER BY created DESC, id
"""
_MOST_EARLIER = 4

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
    earlier: str | None = None
    """The evaluation that measured it, where that is another one on the same rows."""


class Best(NamedTuple):
    """What an evaluation on other rows found."""

    evaluation: str
    dataset: str
    model: str
    value: float


class Board(NamedTuple):
    """An evaluation as a page draws it."""

    id: str
    report: Report
    lines: tuple[LeaderLine, ...]
    scale: Scale
    places: tuple[Place, ...]
    across: str
    left_out: int
    best_elsewhere: Best | None = None
    """Better than all of these, on other rows: the numbers do not compare, and the model is not forgotten."""


def read_board(workspace: Workspace, evaluation: str, target: float | None, *, with_earlier: bool = False) -> Board:
    """The first rows of the leaderboard, and with them whatever serves now. `with_earlier`: also the best models of the
    use case's other evaluations, which a newer and worse run must not make anybody forget."""
    report = find_report(workspace.database, evaluation)
    serves = _serving(workspace, report.use_case)
    earlier, elsewhere = _measured_before(workspace.database, evaluation, report) if with_earlier else ({}, None)
    leaders = [*report.leaderboard, *(row for row, _ in earlier.values())]
    leaders = _by_value(leaders, report) if earlier else leaders
    rows = [row for place, row in enumerate(leaders) if place < _MOST_ROWS or row.model in serves]
    whiskers = [Whisker(row.value, row.interval) for row in rows]
    places_of = {model: where for model, (_, where) in earlier.items()}
    lines = tuple(
        LeaderLine(row, role_of(report, row.model), whisker, serves.get(row.model), places_of.get(row.model))
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
        "$ per 1,000" if cost else "p95 latency, ms", len(leaders) - len(rows), elsewhere,
    )  # fmt: skip


def _by_value(rows: Sequence[Row], report: Report) -> list[Row]:
    sign = 1.0 if report.better == "lower" else -1.0
    return sorted(rows, key=lambda row: math.inf if row.value is None else sign * row.value)


def _measured_before(
    database: Database, evaluation: str, report: Report
) -> tuple[dict[str, tuple[Row, str]], Best | None]:
    """Model -> row and evaluation of the best registered ones that others measured on the same rows, each as it was
    measured last; and the best on other test rows, where it is better than all of them."""
    sign = 1.0 if report.better == "higher" else -1.0
    known, same, other = {row.model for row in report.leaderboard}, list[Best](), list[Best]()
    for name, dataset, models, values in database.read(_MEASURED, [report.use_case, report.metric, evaluation]):
        for model, value in zip(models, values, strict=True):
            if value is None or "@v" not in model or (dataset == report.dataset and model in known):
                continue
            if dataset != report.dataset and learning_split(dataset.partition(":")[2]):
                continue  # of rows that models learn from or are chosen by, a value says less
            (same if dataset == report.dataset else other).append(Best(name, dataset, model, float(value)))
            if dataset == report.dataset:
                known.add(model)
    chosen = sorted(same, key=lambda each: -sign * each.value)[:_MOST_EARLIER]
    found = dict[str, tuple[Row, str]]()
    for each in chosen:
        rows = find_report(database, each.evaluation).leaderboard
        found[each.model] = next(row for row in rows if row.model == each.model), each.evaluation
    shown = [sign * row.value for row in report.leaderboard if row.value is not None]
    shown += [sign * each.value for each in chosen]
    best = max(other, key=lambda each: sign * each.value, default=None)
    return found, best if best and sign * best.value > max(shown, default=-math.inf) else None


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
