"""Reads from the catalog and the logs what `lineage` makes a graph of.

From an answer back to all that it rests on; and from data or a model on to the answers that may be wrong because of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.datasets import versions
from speciate.errors import Code, SpeciateError, unknown
from speciate.jobs.pool import Pool
from speciate.models import registry
from speciate.models.card import Card
from speciate.predictions import identity, reading
from speciate.predictions.folder import all_logs
from speciate.production import audit, lineage, logged
from speciate.production.lineage import Answers, Approved, Data, Decided, Evaluated, Facts, Graph, Move
from speciate.refs import dataset_ref, model_ref
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_CARDS = "SELECT card, job FROM model_versions ORDER BY created, name, version"
_DATA = "SELECT name, version, parents, operation, job FROM dataset_versions ORDER BY created, name, version"
_EVALUATIONS = "SELECT id, dataset, models, job FROM evaluations ORDER BY created"
_DECISIONS = "SELECT id, use_case, evaluation, candidate, verdict FROM decisions ORDER BY created"
_MOVES = "SELECT seq, stamp, actor, action, use_case, after, evidence FROM audit WHERE after IS NOT NULL ORDER BY seq"
_SERVING = ("promote", "rollback", audit.CANARY)
_APPROVALS = """
SELECT id, state, decided_by, arguments ->> 'decision' FROM approvals WHERE action = 'promote' ORDER BY created
"""
_SURVEY, _SURVEY_SECONDS = "speciate.datasets.purge:survey", 40.0
_MANIFESTS = "SELECT manifest FROM dataset_versions ORDER BY name, version"
_SHOWN = 100


class Traced(NamedTuple):
    """`graph`: what `start` rests on, or what came of it."""

    start: tuple[str, ...]
    graph: Graph
    forward: bool

    @property
    def text(self) -> str:
        ends = {edge.target if self.forward else edge.source for edge in self.graph.edges}
        own = [each for each in self.start if each not in ends] or list(self.start)
        return "\n".join(lineage.text(self.graph, each, forward=self.forward) for each in own)


class Reach(NamedTuple):
    """What something may have spoiled."""

    traced: Traced
    models: tuple[str, ...]
    answers: dict[str, int]
    """`USE_CASE/name@v3` -> how many answers that are still logged."""
    ids: tuple[str, ...]
    """Of the newest of them."""


def everything(workspace: Workspace) -> Facts:
    """All but single answers, which are counted."""
    return _catalogued(workspace)._replace(answers=_counted(workspace))


def _catalogued(workspace: Workspace) -> Facts:
    """All that the catalog knows: no log is read."""
    database = workspace.database
    return Facts(
        cards=_cards(database),
        data=[
            Data(f"{name}@v{number}", tuple(json.loads(parents)), job, str(json.loads(operation).get("op", "made")))
            for name, number, parents, operation, job in database.read(_DATA)
        ],
        evaluations=[
            Evaluated(name, dataset, tuple(models.split(",")), job)
            for name, dataset, models, job in database.read(_EVALUATIONS)
        ],
        decisions=[Decided(*row) for row in database.read(_DECISIONS)],
        moves=[
            Move(seq, at, actor, action, use_case, model, json.loads(evidence))
            for seq, at, actor, action, use_case, model, evidence in database.read(_MOVES)
            if action in _SERVING
        ],
        approvals=[Approved(*row) for row in database.read(_APPROVALS)],
    )


def _cards(database: Database) -> list[Card]:
    cards = [(Card.model_validate_json(text), job) for text, job in database.read(_CARDS)]
    return [card.model_copy(update={"job": card.job or job}) for card, job in cards]


def _counted(workspace: Workspace) -> list[Answers]:
    found = []
    for folder in all_logs(workspace.folders):
        days = workspace.settings.log.of(folder.use_case).retention_days
        counts = reading.counts(folder, since=reading.since_of(workspace.clock.now(), days))
        found += [Answers(folder.use_case, model, count) for model, count in counts.items()]
    return found


def of_answer(workspace: Workspace, prediction: str) -> Traced:
    """Everything that an answer rests on. Raises INVALID or NOT_FOUND with what is known of the id."""
    use_case, answer = logged.find(workspace, prediction)
    start = f"answer:{answer.id}"
    told = lineage.Answer(answer.id, use_case, answer.model, answer.at)
    graph = lineage.build(_catalogued(workspace)._replace(answer=told))
    return Traced((start,), graph.upstream([start]), forward=False)


def of_model(workspace: Workspace, ref: str) -> Traced:
    """What a version came from, and what was made, decided and answered by it. `ref`: `name@v3`, or a base model."""
    graph = lineage.build(everything(workspace))
    start = f"model:{ref}" if f"model:{ref}" in graph.nodes else f"base:{ref}"
    around = {*graph.upstream([start]).nodes, *graph.downstream([start]).nodes}
    return Traced((start,), graph.within(around), forward=False)


def reach(workspace: Workspace, pool: Pool, ref: str, *, example: str | None = None, group: str | None = None) -> Reach:
    """What came of a dataset (`name`: all versions, `name@v3`), of a single example or group of it, of a model version
    or of a base model.

    An example reaches only models whose training read it. Raises NOT_FOUND for what is not there.
    """
    graph = lineage.build(everything(workspace))
    if example is not None or group is not None:
        holding = _holding(workspace, pool, ref, example, group)
        # what was made of such a version may have lost the example: only those that hold it themselves count
        made = {
            edge.target for edge in graph.edges if edge.source in holding and not edge.target.startswith("dataset:")
        }
        graph = graph.within({*holding, *graph.downstream(each for each in made if _learns(each)).nodes})
        start = tuple(sorted(holding))
    else:
        start = _starts(workspace, graph, ref)
        graph = graph.downstream(start)
    models = tuple(node.name for node in graph.of_kind("model"))
    answers = {node.name: int(node.facts.get("count", 0)) for node in graph.of_kind("answers")}
    return Reach(Traced(start, graph, forward=True), models, answers, tuple(_ids(workspace, models)))


def _learns(name: str) -> bool:
    return name.startswith(("job:", "model:"))


def _starts(workspace: Workspace, graph: Graph, ref: str) -> tuple[str, ...]:
    exact = [f"{kind}:{ref}" for kind in ("dataset", "model", "base") if f"{kind}:{ref}" in graph.nodes]
    if exact:
        return tuple(exact)
    names = versions.names(workspace.database)
    if ref.partition("@")[0].partition(":")[0] in names:
        wanted = dataset_ref(ref)
        if wanted.version is None and wanted.tag is None:
            own = [node.id for node in graph.of_kind("dataset") if node.name.partition("@")[0] == wanted.name]
            return tuple(own)
        return (f"dataset:{versions.resolve(workspace.database, wanted).ref}",)
    if ref.partition("@")[0] in registry.names(workspace.database):
        return (f"model:{registry.resolve(workspace.database, workspace.folders, model_ref(ref)).ref}",)
    known = [*names, *registry.names(workspace.database), *(node.name for node in graph.of_kind("base"))]
    raise unknown("dataset, model or base model", ref, known, "Call describe_dataset() for the datasets.")


def _holding(workspace: Workspace, pool: Pool, ref: str, example: str | None, group: str | None) -> set[str]:
    """The versions, of any dataset, in whose training part an example or the same one lies."""
    name = dataset_ref(ref).name
    if name not in versions.names(workspace.database):
        raise unknown("dataset", name, versions.names(workspace.database), "Call describe_dataset() for all.")
    manifests = [json.loads(text) for (text,) in workspace.database.read(_MANIFESTS)]
    target = {"dataset": name, "group": group, "example": example}
    payload = {"root": str(workspace.folders.root), "versions": manifests, "target": target}
    found: dict[str, Any] = pool.ask(_SURVEY, payload, timeout=_SURVEY_SECONDS)
    if not found["versions"]:
        what = f"group {group!r}" if group is not None else f"example {example!r}"
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No version of {name!r} holds the {what}.",
            f"Call query_dataset(dataset={name!r}, sql='SELECT id, group_key FROM examples').",
        )
    return {f"dataset:{each}" for each, _, learned in found["versions"] if learned}


def _ids(workspace: Workspace, models: Sequence[str]) -> list[str]:
    """The newest answers of these versions that are logged."""
    found: list[str] = []
    for folder in all_logs(workspace.folders) if models else ():
        days = workspace.settings.log.of(folder.use_case).retention_days
        since = reading.since_of(workspace.clock.now(), days)
        found += reading.answers(folder, since=since, columns=["id"], models=models)["id"].to_pylist()
    return sorted(found, reverse=True)[:_SHOWN]


def elsewhere(ref: str, base: str | None) -> Traced:
    """Of a model that is not of this workspace."""
    nodes = {f"base:{name}": lineage.Node(f"base:{name}", "base", name, {}) for name in (ref, base) if name}
    edges = (lineage.Edge(f"base:{base}", f"base:{ref}", "was the base of"),) if base else ()
    return Traced((f"base:{ref}",), Graph(nodes, edges), forward=False)


def model_of(workspace: Workspace, prediction: str) -> str:
    """The version that gave an answer. Raises INVALID or NOT_FOUND."""
    return logged.find(workspace, prediction)[1].model


def is_answer(ref: str) -> bool:
    return identity.parse(ref) is not None
