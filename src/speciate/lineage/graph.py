"""The lineage graph: data, jobs, models, evaluations, decisions, moves of aliases, answers. Pure.

Edges go from an origin to its results. So `upstream` of an answer is everything that it rests on, and `downstream` of a
dataset version is everything that it may have spoiled.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from speciate.models.model_card import ModelCard

Kind = Literal[
    "dataset", "model", "base", "job", "code", "evaluation", "decision", "move", "approval", "person", "actor",
    "answer", "answers",
]  # fmt: skip
_COMMON = 12
"""Facts that a node shows at most."""
_LONGEST = 120
"""Characters of a name or a fact in a text."""


class Node(NamedTuple):
    id: str
    """`KIND:NAME`"""
    kind: Kind
    name: str
    facts: Mapping[str, Any]
    """Facts that are shown, by name."""


class Edge(NamedTuple):
    source: str
    target: str
    how: str


class Graph(NamedTuple):
    nodes: dict[str, Node]
    edges: tuple[Edge, ...]

    def upstream(self, ids: Iterable[str]) -> Graph:
        """These nodes and all that they came from."""
        return self._reached(ids, forward=False)

    def downstream(self, ids: Iterable[str]) -> Graph:
        """These nodes and all that came from them."""
        return self._reached(ids, forward=True)

    def of_kind(self, *kinds: Kind) -> list[Node]:
        return [node for node in self.nodes.values() if node.kind in kinds]

    def _reached(self, ids: Iterable[str], *, forward: bool) -> Graph:
        steps: dict[str, list[str]] = {}
        for edge in self.edges:
            here, there = (edge.source, edge.target) if forward else (edge.target, edge.source)
            steps.setdefault(here, []).append(there)
        left, found = [each for each in ids if each in self.nodes], set[str]()
        while left:
            each = left.pop()
            if each not in found:
                found.add(each)
                left += steps.get(each, [])
        return self.within(found)

    def nearest(self, start: Sequence[str], most: int) -> Graph:
        """The `most` nodes that are nearest to the start, in rings around it."""
        beside: dict[str, set[str]] = {}
        for edge in self.edges:
            beside.setdefault(edge.source, set()).add(edge.target)
            beside.setdefault(edge.target, set()).add(edge.source)
        ring = [each for each in start if each in self.nodes] or sorted(self.nodes)[:1]
        found = dict.fromkeys(ring)
        while ring and len(found) < most:
            ring = sorted({other for each in ring for other in beside.get(each, ()) if other not in found})
            found |= dict.fromkeys(ring)
        return self.within(set(list(found)[:most]))

    def within(self, ids: Collection[str]) -> Graph:
        kept = {name: node for name, node in self.nodes.items() if name in ids}
        return Graph(kept, tuple(edge for edge in self.edges if edge.source in kept and edge.target in kept))


class DatasetFact(NamedTuple):
    ref: str
    parents: tuple[str, ...]
    job: str | None
    op: str


class EvaluationFact(NamedTuple):
    id: str
    dataset: str
    models: tuple[str, ...]
    job: str | None


class DecisionFact(NamedTuple):
    id: str
    use_case: str
    evaluation: str
    candidate: str
    verdict: str


class Move(NamedTuple):
    """A row of the audit that lets a version serve."""

    seq: int
    at: float
    actor: str
    action: str
    use_case: str
    model: str
    evidence: Mapping[str, Any]


class ApprovalFact(NamedTuple):
    """A person's answer to the question whether a version may be promoted."""

    id: str
    state: str
    by: str | None
    decision: str | None
    """Id of the decision that the person was shown."""


class AnswerCount(NamedTuple):
    """All answers of a version in the log of a use case."""

    use_case: str
    model: str
    total: int


class AnswerFact(NamedTuple):
    id: str
    use_case: str
    model: str
    at: float


class Facts(NamedTuple):
    cards: Sequence[ModelCard] = ()
    data: Sequence[DatasetFact] = ()
    evaluations: Sequence[EvaluationFact] = ()
    decisions: Sequence[DecisionFact] = ()
    moves: Sequence[Move] = ()
    approvals: Sequence[ApprovalFact] = ()
    answers: Sequence[AnswerCount] = ()
    answer: AnswerFact | None = None


def build_graph(facts: Facts) -> Graph:
    """The graph of all facts. A thing that is named but not known gets a node without facts: it was deleted, or lies
    elsewhere."""
    made = _GraphBuilder()
    for data in facts.data:
        made.node("dataset", data.ref, op=data.op)
        for parent in data.parents:
            made.edge(made.named("dataset", parent.partition(":")[0]), f"dataset:{data.ref}", data.op)
        if data.job:
            made.edge(made.named("job", data.job), f"dataset:{data.ref}", "made")
    for card in facts.cards:
        _model(made, card)
    for each in facts.evaluations:
        made.node("evaluation", each.id, dataset=each.dataset)
        made.edge(made.named("dataset", each.dataset.partition(":")[0]), f"evaluation:{each.id}", "asked")
        for model in each.models:
            if "@v" in model:
                made.edge(made.named("model", model), f"evaluation:{each.id}", "judged")
    for decided in facts.decisions:
        made.node("decision", decided.id, verdict=decided.verdict, candidate=decided.candidate)
        made.edge(made.named("evaluation", decided.evaluation), f"decision:{decided.id}", "gave")
    for approval in facts.approvals:
        made.node("approval", approval.id, state=approval.state)
        if approval.by:
            made.edge(made.named("person", approval.by), f"approval:{approval.id}", approval.state)
        if approval.decision:
            made.edge(made.named("decision", approval.decision), f"approval:{approval.id}", "was shown for")
    approvals = {(each.decision, each.by): each.id for each in facts.approvals if each.state == "approved"}
    for move in facts.moves:
        _move(made, move, approvals)
    for counted in facts.answers:
        name = f"{counted.use_case}/{counted.model}"
        made.node("answers", name, count=counted.total)
        made.edge(made.named("model", counted.model), f"answers:{name}", "answered")
    if facts.answer:
        _answer(made, facts.answer, facts.moves)
    return made.graph()


def _model(made: _GraphBuilder, card: ModelCard) -> None:
    environment = card.recipe.get("environment") or {}
    own = f"model:{card.ref}"
    recipe = hashlib.sha256(json.dumps(card.recipe, sort_keys=True, default=str).encode()).hexdigest()[:16]
    made.node(
        "model", card.ref, method=card.method, sha256=card.id[:16] or None, recipe=recipe if card.recipe else None,
        license=card.license,
    )  # fmt: skip
    via = f"job:{card.job}" if card.job else own
    if card.job:
        made.node("job", card.job, method=card.method, seconds=card.seconds, usd=card.usd or None)
        made.edge(via, own, "made")
    for dataset, how in [(card.dataset, "taught"), *((each, "replayed") for each in card.beside)]:
        if dataset:
            made.edge(made.named("dataset", dataset.partition(":")[0]), via, how)
    origins = [(card.base_model, "was the base of")]
    origins += [(each, "was merged into") for each in card.parents]
    origins += [(each, "was the teacher of") for each in card.teachers]
    for origin, how in origins:
        if origin:
            made.edge(made.named("model" if "@v" in origin else "base", origin), via, how)
    if code := environment.get("code"):
        libraries = [
            (name, value) for name, value in environment.items() if name not in ("code", "processor", "threads")
        ]
        made.node("code", str(code), **dict(libraries[:_COMMON]))
        made.edge(f"code:{code}", via, "ran")


def _move(made: _GraphBuilder, move: Move, approvals: Mapping[tuple[str | None, str | None], str]) -> None:
    """`approvals`: of a decision by a person."""
    name = f"{move.use_case}#{move.seq}"
    made.node("move", name, action=move.action, actor=move.actor, at=move.at, model=move.model)
    made.edge(made.named("model", move.model), f"move:{name}", move.action)
    decision, by = move.evidence.get("decision"), move.evidence.get("approved_by")
    if decision:
        made.edge(made.named("decision", str(decision)), f"move:{name}", "let")
    if by and (approval := approvals.get((str(decision), str(by)))):
        made.edge(f"approval:{approval}", f"move:{name}", "let")
    elif by:
        made.edge(made.named("person", str(by)), f"move:{name}", "approved")
    else:
        made.edge(made.named("actor", move.actor), f"move:{name}", "asked for")


def _answer(made: _GraphBuilder, answer: AnswerFact, moves: Sequence[Move]) -> None:
    made.node("answer", answer.id, use_case=answer.use_case, at=answer.at)
    made.edge(made.named("model", answer.model), f"answer:{answer.id}", "gave")
    if move := move_in_force(moves, answer):
        made.edge(f"move:{move.use_case}#{move.seq}", f"answer:{answer.id}", "put it in production")


def move_in_force(moves: Sequence[Move], answer: AnswerFact) -> Move | None:
    """The move by which the version served when it answered: the last one of it before."""
    own = [each for each in moves if each.use_case == answer.use_case and each.model == answer.model]
    before = [each for each in own if each.at <= answer.at + 1e-3]
    return max(before, key=lambda each: each.seq, default=None)


class _GraphBuilder:
    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._edges: dict[Edge, None] = {}

    def node(self, kind: Kind, name: str, **facts: Any) -> None:
        told = {key: value for key, value in facts.items() if value is not None}
        before = self._nodes.get(f"{kind}:{name}")
        self._nodes[f"{kind}:{name}"] = Node(f"{kind}:{name}", kind, name, {**(before.facts if before else {}), **told})

    def named(self, kind: Kind, name: str) -> str:
        """The node of a thing that others name; it may have no facts of its own."""
        self._nodes.setdefault(f"{kind}:{name}", Node(f"{kind}:{name}", kind, name, {}))
        return f"{kind}:{name}"

    def edge(self, source: str, target: str, how: str) -> None:
        self._edges[Edge(source, target, how)] = None

    def graph(self) -> Graph:
        there = tuple(edge for edge in self._edges if edge.source in self._nodes and edge.target in self._nodes)
        return Graph(self._nodes, there)


def graph_text(graph: Graph, start: str, *, forward: bool = False, depth: int = 12) -> str:
    """As indented lines, from one node on: what it came from, or (`forward`) what came of it. A node that was told
    before is named only."""
    steps: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        here, there = (edge.source, edge.target) if forward else (edge.target, edge.source)
        steps.setdefault(here, []).append((there, edge.how))
    lines: list[str] = []
    told = set[str]()

    def tell(name: str, how: str, level: int) -> None:
        node = graph.nodes[name]
        facts = "" if name in told else "".join(f", {key} {_short(key, value)}" for key, value in node.facts.items())
        arrow = "" if not how else f"<- {how}: " if not forward else f"-> {how}: "
        lines.append(f"{'  ' * level}{arrow}{node.kind} {_single_line(node.name)}{facts}")
        if name not in told and level < depth:
            told.add(name)
            for there, why in sorted(steps.get(name, [])):
                tell(there, why, level + 1)

    if start in graph.nodes:
        tell(start, "", 0)
    return "\n".join(lines)


def _short(key: str, value: Any) -> str:
    if key == "at":
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(value))
    return f"{value:.6g}" if isinstance(value, float) and abs(value) < 1e6 else _single_line(str(value))


def _single_line(text: str) -> str:
    """Names of clients, licences and such are others' words: they make no line of their own, and no escape."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
