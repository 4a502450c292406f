"""Traces in the lineage graph of a workspace: from an answer back to all that it rests on, and from data or a model on
to the answers that may be wrong because of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from speciate.datasets import versions
from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.jobs.pool import Pool
from speciate.lineage import facts
from speciate.lineage.graph import AnswerFact, Edge, Facts, Graph, Node, build_graph, graph_text
from speciate.models import registry
from speciate.predictions import answer_lookup, prediction_ids, reading
from speciate.predictions.log_files import all_logs
from speciate.refs import dataset_ref, model_ref
from speciate.workspace.workspace import Workspace

_SURVEY, _SURVEY_SECONDS = "speciate.privacy.purge_datasets:survey", 40.0
_MANIFESTS = "SELECT manifest FROM dataset_versions ORDER BY name, version"
_SHOWN = 100


class Trace(NamedTuple):
    """`graph`: what `start` rests on, or what came of it."""

    start: tuple[str, ...]
    graph: Graph
    forward: bool

    @property
    def text(self) -> str:
        ends = {edge.target if self.forward else edge.source for edge in self.graph.edges}
        own = [each for each in self.start if each not in ends] or list(self.start)
        return "\n".join(graph_text(self.graph, each, forward=self.forward) for each in own)


class Impact(NamedTuple):
    """What something may have spoiled."""

    traced: Trace
    models: tuple[str, ...]
    answers: dict[str, int]
    """`USE_CASE/name@v3` -> how many answers that are still logged."""
    ids: tuple[str, ...]
    """Ids of the newest of those answers."""


def trace_answer(workspace: Workspace, prediction: str) -> Trace:
    """Everything that an answer rests on. Raises INVALID or NOT_FOUND with the reason."""
    use_case, answer = answer_lookup.find_answer(workspace, prediction)
    start, database = f"answer:{answer.id}", workspace.database
    told = AnswerFact(answer.id, use_case, answer.model, answer.at)
    known = Facts(moves=facts.moves_to(database, answer.model), answer=told)
    graph = build_graph(facts.read_around(database, start, known, forward=False))
    return Trace((start,), graph.upstream([start]), forward=False)


def trace_model(workspace: Workspace, ref: str) -> Trace:
    """What a version came from, and what was made, decided and answered by it. `ref`: `name@v3`, or a base model."""
    start, known = f"{'model' if '@v' in ref else 'base'}:{ref}", Facts(answers=facts.count_answers(workspace))
    for forward in (False, True):
        known = facts.read_around(workspace.database, start, known, forward=forward)
    graph = build_graph(known)
    around = {*graph.upstream([start]).nodes, *graph.downstream([start]).nodes}
    return Trace((start,), graph.within(around), forward=False)


def trace_impact(
    workspace: Workspace, pool: Pool, ref: str, *, example: str | None = None, group: str | None = None
) -> Impact:
    """What came of a dataset (`name`: all versions, `name@v3`), of a single example or group of it, of a model version
    or of a base model.

    An example reaches only models whose training read it. Raises NOT_FOUND for what is not there.
    """
    if example is not None or group is not None:
        traced = _trace_example(workspace, pool, ref, example, group)
    else:
        traced = _trace_forward(workspace, ref)
    models = tuple(node.name for node in traced.graph.of_kind("model"))
    answers = {node.name: int(node.facts.get("count", 0)) for node in traced.graph.of_kind("answers")}
    return Impact(traced, models, answers, tuple(_recent_answers(workspace, models)))


def _trace_forward(workspace: Workspace, ref: str) -> Trace:
    exact, known = [f"{kind}:{ref}" for kind in ("dataset", "model", "base")], Facts()
    for each in exact:
        known = facts.read_around(workspace.database, each, known, forward=True)
    graph = build_graph(known._replace(answers=facts.count_answers(workspace)))
    start = tuple(each for each in exact if each in graph.nodes)
    if not start:
        graph = build_graph(facts.read_facts(workspace))
        start = _start_nodes(workspace, graph, ref)
    return Trace(start, graph.downstream(start), forward=True)


def _trace_example(workspace: Workspace, pool: Pool, ref: str, example: str | None, group: str | None) -> Trace:
    graph = build_graph(facts.read_facts(workspace))
    holding = _versions_with_example(workspace, pool, ref, example, group)
    # what was made of such a version may have lost the example: only those that hold it themselves count
    made = {edge.target for edge in graph.edges if edge.source in holding and not edge.target.startswith("dataset:")}
    graph = graph.within({*holding, *graph.downstream(each for each in made if _is_job_or_model(each)).nodes})
    return Trace(tuple(sorted(holding)), graph, forward=True)


def _is_job_or_model(name: str) -> bool:
    return name.startswith(("job:", "model:"))


def _start_nodes(workspace: Workspace, graph: Graph, ref: str) -> tuple[str, ...]:
    """Where a trace of a name without a version begins, or of one with a tag or an alias."""
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
    raise unknown("dataset, model or base model", ref, known, next=[Call("describe_dataset", {}, "for the datasets")])


def _versions_with_example(
    workspace: Workspace, pool: Pool, ref: str, example: str | None, group: str | None
) -> set[str]:
    """The versions, of any dataset, in whose training part an example or the same one lies."""
    name = dataset_ref(ref).name
    if name not in versions.names(workspace.database):
        raise unknown(
            "dataset", name, versions.names(workspace.database), next=[Call("describe_dataset", {}, "for all")]
        )
    manifests = [json.loads(text) for (text,) in workspace.database.read(_MANIFESTS)]
    target = {"dataset": name, "group": group, "example": example}
    payload = {"root": str(workspace.folders.root), "versions": manifests, "target": target}
    found = pool.ask(_SURVEY, payload, timeout=_SURVEY_SECONDS)
    if not found["versions"]:
        what = f"group {group!r}" if group is not None else f"example {example!r}"
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No version of {name!r} holds the {what}.",
            next=[Call("query_dataset", {"dataset": name, "sql": "SELECT id, group_key FROM examples"})],
        )
    return {f"dataset:{each}" for each, _, learned in found["versions"] if learned}


def _recent_answers(workspace: Workspace, models: Sequence[str]) -> list[str]:
    """The newest answers of these versions that are logged."""
    found: list[str] = []
    for folder in all_logs(workspace.folders) if models else ():
        days = workspace.settings.log.of(folder.use_case).retention_days
        since = reading.retention_start(workspace.clock.now(), days)
        found += reading.answers(folder, since=since, columns=["id"], models=models)["id"].to_pylist()
    return sorted(found, reverse=True)[:_SHOWN]


def trace_foreign_model(ref: str, base: str | None) -> Trace:
    """The trace of a model that is not of this workspace."""
    nodes = {f"base:{name}": Node(f"base:{name}", "base", name, {}) for name in (ref, base) if name}
    edges = (Edge(f"base:{base}", f"base:{ref}", "was the base of"),) if base else ()
    return Trace((f"base:{ref}",), Graph(nodes, edges), forward=False)


def model_of_answer(workspace: Workspace, prediction: str) -> str:
    """The version that gave an answer. Raises INVALID or NOT_FOUND."""
    return answer_lookup.find_answer(workspace, prediction)[1].model


def is_answer(ref: str) -> bool:
    return prediction_ids.parse(ref) is not None
