"""The facts of the lineage graph, read from the catalog and the logs: all of them, or those around one node."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

from speciate.governance import audit
from speciate.lineage.graph import (
    AnswerCount,
    ApprovalFact,
    DatasetFact,
    DecisionFact,
    EvaluationFact,
    Facts,
    Move,
    build_graph,
)
from speciate.models.model_card import ModelCard
from speciate.predictions import reading
from speciate.predictions.log_files import all_logs
from speciate.workspace.database import Database, Row
from speciate.workspace.workspace import Workspace

_CARDS = "SELECT card, job FROM model_versions WHERE {} ORDER BY created, name, version"
_DATA = "SELECT name, version, parents, operation, job FROM dataset_versions WHERE {} ORDER BY created, name, version"
_EVALUATIONS = "SELECT id, dataset, models, job FROM evaluations WHERE {} ORDER BY created"
_DECISIONS = "SELECT id, use_case, evaluation, candidate, verdict FROM decisions WHERE {} ORDER BY created"
_MOVES = """
SELECT seq, stamp, actor, action, use_case, after, evidence FROM audit WHERE after IS NOT NULL AND ({}) ORDER BY seq
"""
_APPROVALS = """
SELECT id, state, decided_by, arguments ->> 'decision' FROM approvals WHERE action = 'promote' AND ({}) ORDER BY created
"""
_ONE_OF = "list_contains(?::VARCHAR[], {})"
_NAMES_ONE_OF = "len(list_filter(?::VARCHAR[], lambda wanted: contains({}, wanted))) > 0"
"""A subquery in its place is joined to every row, and costs twice as much."""
_REF = "name || '@v' || version"
_SERVING = ("promote", "rollback", audit.CANARY)
_FEW = 16
"""Nodes whose results are searched for by name. Beyond that one reading of everything is cheaper."""


def read_facts(workspace: Workspace) -> Facts:
    """All but single answers, which are counted."""
    return _read_catalog(workspace.database)._replace(answers=count_answers(workspace))


def read_around(database: Database, start: str, known: Facts, *, forward: bool) -> Facts:
    """`known`, with all that the catalog says of what the node `start` came from or, `forward`, of what came of it."""
    asked = set[str]()
    while True:
        graph = build_graph(known)
        reached = graph.downstream([start]) if forward else graph.upstream([start])
        new = {start, *reached.nodes} - asked
        if not new:
            return known
        if forward and len(new) > _FEW:
            return _read_catalog(database)._replace(answers=known.answers, answer=known.answer)
        asked |= new
        known = _joined(known, _facts_about(database, new, forward=forward))


def moves_to(database: Database, model: str) -> list[Move]:
    """The moves of aliases to this version."""
    return _moves(database, {_ONE_OF.format("after"): [model]})


def count_answers(workspace: Workspace) -> list[AnswerCount]:
    found = []
    for folder in all_logs(workspace.folders):
        days = workspace.settings.log.of(folder.use_case).retention_days
        counts = reading.count_by_model(folder, since=reading.retention_start(workspace.clock.now(), days))
        found += [AnswerCount(folder.use_case, model, count) for model, count in counts.items()]
    return found


def _read_catalog(database: Database) -> Facts:
    return Facts(
        cards=_cards(database),
        data=_data(database),
        evaluations=_evaluations(database),
        decisions=_decisions(database),
        moves=_moves(database),
        approvals=_approvals(database),
    )


def _facts_about(database: Database, nodes: Iterable[str], *, forward: bool) -> Facts:
    """What the catalog says of these nodes themselves; `forward` also what names one of them as its origin. What only
    mentions a name is here as well: `build_graph` looks at the fields."""
    names = defaultdict[str, list[str]](list)
    for node in nodes:
        kind, _, name = node.partition(":")
        names[kind].append(name)
    results = names if forward else defaultdict[str, list[str]](list)
    quoted = [json.dumps(name, ensure_ascii=False) for name in (*results["model"], *results["base"])]
    versions = [f'"{name}' for name in results["dataset"]]  # with a split or without
    return Facts(
        cards=_cards(database, {
            _ONE_OF.format(_REF): names["model"], _ONE_OF.format("job"): names["job"],
            _NAMES_ONE_OF.format("card"): [*quoted, *versions],
        }),
        data=_data(database, {
            _ONE_OF.format(_REF): names["dataset"], _ONE_OF.format("job"): results["job"],
            _NAMES_ONE_OF.format("parents"): versions,
        }),
        evaluations=_evaluations(database, {
            _ONE_OF.format("id"): names["evaluation"], _NAMES_ONE_OF.format("models"): results["model"],
            _NAMES_ONE_OF.format("dataset"): results["dataset"],
        }),
        decisions=_decisions(database, {
            _ONE_OF.format("id"): names["decision"], _ONE_OF.format("evaluation"): results["evaluation"],
        }),
        moves=_moves(database, {
            _ONE_OF.format("use_case || '#' || seq"): names["move"], _ONE_OF.format("after"): results["model"],
            _NAMES_ONE_OF.format("evidence"): results["decision"],
        }),
        approvals=_approvals(database, {
            _ONE_OF.format("id"): names["approval"], _ONE_OF.format("(arguments ->> 'decision')"): names["decision"],
        }),
    )  # fmt: skip


def _joined(known: Facts, more: Facts) -> Facts:
    """Cards from the oldest on, as `build_graph` takes the last word on a job from the newest."""
    cards = sorted([*known.cards, *more.cards], key=lambda card: (card.created, card.name, card.version))
    return Facts(
        cards, [*known.data, *more.data], [*known.evaluations, *more.evaluations], [*known.decisions, *more.decisions],
        [*known.moves, *more.moves], [*known.approvals, *more.approvals], known.answers, known.answer,
    )  # fmt: skip


_Conditions = dict[str, list[str]]
"""SQL with one parameter -> its values. A row is wanted where any of them holds; one without values holds nowhere."""


def _read(database: Database, sql: str, conditions: _Conditions | None) -> list[Row]:
    """`conditions` None: every row."""
    if conditions is None:
        return database.read(sql.format("true"))
    asked = {condition: values for condition, values in conditions.items() if values}
    return database.read(sql.format(" OR ".join(asked)), list(asked.values())) if asked else []


def _cards(database: Database, conditions: _Conditions | None = None) -> list[ModelCard]:
    cards = [(ModelCard.model_validate_json(text), job) for text, job in _read(database, _CARDS, conditions)]
    return [card.model_copy(update={"job": card.job or job}) for card, job in cards]


def _data(database: Database, conditions: _Conditions | None = None) -> list[DatasetFact]:
    return [
        DatasetFact(f"{name}@v{number}", tuple(json.loads(parents)), job, str(json.loads(operation).get("op", "made")))
        for name, number, parents, operation, job in _read(database, _DATA, conditions)
    ]


def _evaluations(database: Database, conditions: _Conditions | None = None) -> list[EvaluationFact]:
    return [
        EvaluationFact(name, dataset, tuple(models.split(",")), job)
        for name, dataset, models, job in _read(database, _EVALUATIONS, conditions)
    ]


def _decisions(database: Database, conditions: _Conditions | None = None) -> list[DecisionFact]:
    return [DecisionFact(*row) for row in _read(database, _DECISIONS, conditions)]


def _moves(database: Database, conditions: _Conditions | None = None) -> list[Move]:
    return [
        Move(seq, at, actor, action, use_case, model, json.loads(evidence))
        for seq, at, actor, action, use_case, model, evidence in _read(database, _MOVES, conditions)
        if action in _SERVING
    ]


def _approvals(database: Database, conditions: _Conditions | None = None) -> list[ApprovalFact]:
    return [ApprovalFact(*row) for row in _read(database, _APPROVALS, conditions)]
