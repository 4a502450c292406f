"""What came from what, both ways: over made-up facts, and over a real chain from data to an answer."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from speciate.datasets import version_rows
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.lineage import chart, facts, trace
from speciate.lineage import graph as lineage
from speciate.lineage.graph import (
    AnswerCount,
    AnswerFact,
    ApprovalFact,
    DatasetFact,
    DecisionFact,
    EvaluationFact,
    Facts,
    Move,
)
from speciate.models.model_card import ModelCard
from speciate.predictions import answer_lookup
from speciate.predictions.feedback import make_feedback
from speciate.predictions.log import AnsweringModel
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.serving import predict, record_feedback
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import define, evaluate_models, make_dataset, train_model
from tests.promotion.world import JOB


def card(name: str, **more: object) -> ModelCard:
    fields = {"name": name, "version": 1, "method": "classical", **more}
    return ModelCard.model_validate(fields)


FACTS = Facts(
    cards=[
        card("a", dataset="d@v1:train", base_model="pkg:minilm", job="job-a",
             recipe={"environment": {"code": "abc", "torch": "2"}}),
        card("b", dataset="d@v2", base_model="a@v1", job="job-b", beside=("old@v1",)),
        card("c", dataset="other@v1", job="job-c"),
    ],
    data=[DatasetFact("d@v1", (), "job-1", "ingest"), DatasetFact("d@v2", ("d@v1",), "job-2", "curate"),
          DatasetFact("other@v1", (), None, "ingest")],
    evaluations=[EvaluationFact("e1", "d@v2:test", ("b@v1", "constant:"), None)],
    decisions=[DecisionFact("dec1", "u", "e1", "b@v1", "promote")],
    moves=[Move(1, 10.0, "ada", "promote", "u", "c@v1", {}),
           Move(2, 20.0, "ada", "promote", "u", "b@v1", {"decision": "dec1", "approved_by": "ada"}),
           Move(3, 90.0, "bob", "rollback", "u", "b@v1", {})],
    approvals=[ApprovalFact("app1", "approved", "ada", "dec1")],
    answers=[AnswerCount("u", "b@v1", 7), AnswerCount("u", "c@v1", 3)],
    answer=AnswerFact("pred-1", "u", "b@v1", 50.0),
)  # fmt: skip


def test_an_answer_leads_back_to_everything_that_it_rests_on() -> None:
    found = lineage.build_graph(FACTS).upstream(["answer:pred-1"])
    assert {
        "model:b@v1", "job:job-b", "dataset:d@v2", "dataset:d@v1", "dataset:old@v1", "model:a@v1", "base:pkg:minilm",
        "code:abc", "evaluation:e1", "decision:dec1", "approval:app1", "person:ada", "move:u#2",
    } <= set(found.nodes)  # fmt: skip
    assert {"model:c@v1", "move:u#3", "move:u#1"}.isdisjoint(found.nodes), "the move in force when it was given alone"
    told = lineage.graph_text(found, "answer:pred-1")
    assert "<- gave: model b@v1" in told
    assert "answer pred-1, use_case u, at 1970-01-01 00:00:50Z" in told
    assert "torch 2" in told


def test_bad_data_lead_on_to_the_answers_that_may_be_wrong() -> None:
    graph = lineage.build_graph(FACTS)
    found = graph.downstream(["dataset:d@v1"])
    assert {node.name for node in found.of_kind("model")} == {"a@v1", "b@v1"}
    assert {node.name: node.facts["count"] for node in found.of_kind("answers")} == {"u/b@v1": 7}
    assert {node.name for node in graph.downstream(["dataset:other@v1"]).of_kind("answers")} == {"u/c@v1"}
    assert {node.name for node in graph.downstream(["base:pkg:minilm"]).of_kind("answers")} == {"u/b@v1"}


def test_a_picture_shows_every_node_and_stays_small() -> None:
    graph = lineage.build_graph(FACTS).upstream(["answer:pred-1"])
    drawn = chart.svg(graph, ["answer:pred-1"])
    ElementTree.fromstring(drawn)
    assert drawn.count("<rect") == len(graph.nodes)
    laid = chart.lay_out(graph, ["answer:pred-1"])
    assert all(a[0] < b[0] for _, points in laid.lines for a, b in pairwise(points))
    assert len({(box.x, box.y) for box in laid.boxes.values()}) == len(graph.nodes)
    spots = {(box.x + 92, box.y + 20) for box in laid.boxes.values()}
    inside = [(x, y) for _, points in laid.lines for (x, y) in points[1:-1]]
    assert not spots & set(inside), "lines pass between the boxes"
    few = chart.lay_out(graph, ["answer:pred-1"], most=4)
    assert (len(few.boxes), few.left_out) == (4, len(graph.nodes) - 4)
    hostile = lineage.build_graph(FACTS._replace(data=[DatasetFact('<script>"x"', (), None, "a & b")]))
    ElementTree.fromstring(chart.svg(hostile, []))


def test_both_directions_over_a_real_chain(workspace: Workspace, tmp_path: Path) -> None:
    data = make_dataset(workspace)
    define(workspace)
    ref = train_model(workspace)
    report = evaluate_models(workspace, models=[ref], use_case="flowering")
    spec = PromoteSpec(use_case="flowering", model=ref, actor="ada")
    done = workspace.database.transact(lambda tx: promote.act(tx, spec, JOB, Settings(policy="auto")))
    assert done["state"] == "applied", done
    items = [{"id": "0", "row": {"a": 1.0}}]
    said = [{"output": "yes", "confidence": 0.9, "error": None}]
    [id_] = predict.log_answers(workspace, "flowering", AnsweringModel(ref, 0, "tabular"), items, said, 1.0)
    assert id_ is not None
    traced = trace.trace_answer(workspace, id_)
    kinds = {node.kind for node in traced.graph.nodes.values()}
    assert {"answer", "model", "job", "dataset", "code", "evaluation", "decision", "move", "actor"} <= kinds
    assert f"dataset:{data.ref}" in traced.graph.nodes
    assert f"evaluation:{report['evaluation']}" in traced.graph.nodes
    assert id_ in traced.text

    pool = Pool(workspace.folders, workspace.settings)
    for named in (data.name, data.ref, ref):
        reached = trace.trace_impact(workspace, pool, named)
        assert reached.models == (ref,)
        assert reached.answers == {f"flowering/{ref}": 1}
        assert reached.ids == (id_,)
    rows = version_rows.read(workspace.folders, data, ["id", "split"]).to_pylist()
    train = next(row["id"] for row in rows if row["split"] == "train")
    test = next(row["id"] for row in rows if row["split"] == "test")
    assert trace.trace_impact(workspace, pool, data.name, example=train).ids == (id_,)
    assert trace.trace_impact(workspace, pool, data.name, example=test).ids == (), "no training read it"
    with pytest.raises(SpeciateError) as raised:
        trace.trace_impact(workspace, pool, data.name, example="nobody")
    assert raised.value.code is Code.NOT_FOUND
    with pytest.raises(SpeciateError):
        trace.trace_impact(workspace, pool, "nothing")
    recorded = record_feedback.add_feedback(workspace, make_feedback(prediction=id_, label="no", source="human"))
    assert recorded.answer.model == ref
    png = pool.ask_for_file(
        "speciate.lineage.chart:draw", chart.payload(traced.graph, traced.start),
        lambda path, _: path.read_bytes(),
    )  # fmt: skip
    assert png.startswith(b"\x89PNG")
    pool.close()
    answer_lookup.logs_of(workspace).close()


def test_words_of_others_make_no_line_and_no_escape_of_their_own() -> None:
    move = Move(1, 5.0, "claude\x1b[2J\nmove reviews#9, actor ada", "promote", "reviews", "m@v1", {})
    told = trace.Trace(
        ("answer:p",),
        lineage.build_graph(Facts(moves=[move], answer=AnswerFact("p", "reviews", "m@v1", 6.0))),
        forward=False,
    ).text
    assert "\x1b" not in told
    assert [line.strip() for line in told.splitlines() if "reviews#9" in line] != ["move reviews#9, actor ada"]
    assert all("reviews#9" not in line or "claude" in line for line in told.splitlines())


def test_one_answer_is_traced_without_counting_all_others(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "count_answers", lambda workspace: pytest.fail("no log is to be read as a whole"))
    monkeypatch.setattr(
        trace.answer_lookup, "find_answer", lambda workspace, name: ("reviews", AnswerFact(name, "reviews", "m@v1", 1))
    )
    assert trace.trace_answer(workspace, "p").text.startswith("answer p, use_case reviews")


# Traces that read a part of the catalog


def fill(tx: Transaction, draw: random.Random, count: int = 12) -> list[str]:
    """A catalog in which things are made of those before them, some of which are gone. Returns the names of models."""
    data, models, bases = ["gone@v1"], ["gone-model@v1"], ["pkg:minilm", "hf:org/net", 'path:/a "b"/c', "new:bert"]
    for at in range(count):
        name, job = f"d{at}", draw.choice([None, f"job-{draw.randrange(count)}"])
        parents = [draw.choice(data) + draw.choice(["", ":train"]) for _ in range(draw.randrange(3))]
        tx.execute(
            "INSERT INTO dataset_versions VALUES (?, 1, '', '', '{}', ?, '{\"op\": \"split\"}', '', ?, ?)",
            [name, json.dumps(parents), job, at],
        )
        data.append(f"{name}@v1")
        made = card(
            f"m{at}", dataset=draw.choice([None, f"{draw.choice(data)}:train"]), job=draw.choice([None, f"job-{at}"]),
            base_model=draw.choice([None, *bases, *models]), parents=tuple(draw.sample(models, draw.randrange(2))),
            teachers=tuple(draw.sample(models, draw.randrange(2))), beside=tuple(draw.sample(data, draw.randrange(2))),
            seconds=float(at), created=float(at), recipe={"says": draw.choice(models), "environment": {"code": "abc"}},
        )  # fmt: skip
        tx.execute(
            "INSERT INTO model_versions VALUES (?, 1, '', ?, ?, ?)", [made.name, made.model_dump_json(), made.job, at]
        )
        models.append(made.ref)
        judged = ",".join([*draw.sample(models, min(2, len(models))), "constant:"])
        tx.execute(
            "INSERT INTO evaluations VALUES (?, 'u', ?, ?, '', NULL, ?)",
            [f"e{at}", draw.choice(data) + ":test", judged, at],
        )
        tx.execute(
            "INSERT INTO decisions VALUES (?, 'u', 1, ?, ?, '', 'promote', '', ?)",
            [f"dec{at}", f"e{draw.randrange(at + 1)}", made.ref, at],
        )
        decision = f"dec{draw.randrange(at + 1)}"
        tx.execute(
            "INSERT INTO approvals VALUES (?, 'promote', ?, '', '', ?, ?, 0, ?, 0)",
            [f"app{at}", json.dumps({"decision": decision}), draw.choice(["approved", "denied"]), at, "ada"],
        )
        evidence = draw.choice([{}, {"decision": decision}, {"decision": decision, "approved_by": "ada"}])
        action = draw.choice(["promote", "rollback", "policy"])
        tx.execute(
            "INSERT INTO audit VALUES (?, ?, 'bob', ?, ?, NULL, ?, ?, '', '')",
            [1000 + at, at, action, draw.choice("uv"), draw.choice(models), json.dumps(evidence)],
        )
    return [*models, *bases, "nobody@v1", "nobody"]


@pytest.mark.parametrize("most", [3, 16])
@pytest.mark.parametrize("seed", range(3))
def test_a_trace_that_reads_a_part_of_the_catalog_is_that_of_the_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, seed: int, most: int
) -> None:
    pool = cast(Pool, None)  # which only a trace of an example asks
    monkeypatch.setattr(facts, "_FEW", most)
    names = workspace.database.transact(lambda tx: fill(tx, random.Random(seed)))
    everything = facts.read_facts(workspace)
    for name in names:
        whole, start = lineage.build_graph(everything), f"{'model' if '@v' in name else 'base'}:{name}"
        whole = whole.within({*whole.upstream([start]).nodes, *whole.downstream([start]).nodes})
        found = trace.trace_model(workspace, name).graph
        assert (found.nodes, set(found.edges)) == (whole.nodes, set(whole.edges)), name
    for name in (node.name for node in lineage.build_graph(everything).of_kind("dataset", "model", "base")):
        whole = lineage.build_graph(everything)
        whole = whole.downstream([f"{kind}:{name}" for kind in ("dataset", "model", "base")])
        found = trace.trace_impact(workspace, pool, name).traced.graph
        assert (found.nodes, set(found.edges)) == (whole.nodes, set(whole.edges)), name
    for use_case, model in ((use_case, name) for use_case in "uv" for name in names if name.startswith("m")):
        answer = AnswerFact("p", use_case, model, 8.5)
        monkeypatch.setattr(trace.answer_lookup, "find_answer", lambda *_, told=(use_case, answer): told)
        whole = lineage.build_graph(everything._replace(answer=answer)).upstream(["answer:p"])
        found = trace.trace_answer(workspace, "p").graph
        assert (found.nodes, set(found.edges)) == (whole.nodes, set(whole.edges)), (use_case, model)


def test_a_trace_of_a_model_reads_no_card_of_another(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(tx: Transaction) -> None:
        for at in range(60):
            made = card(f"m{at}", base_model="m1@v1" if at == 7 else "pkg:minilm", dataset="d@v1", recipe={"by": "m1"})
            tx.execute("INSERT INTO model_versions VALUES (?, 1, '', ?, NULL, 0)", [made.name, made.model_dump_json()])

    workspace.database.transact(register)
    read, cards = list[str](), facts._cards
    monkeypatch.setattr(facts, "_cards", lambda *asked: [read.append(each.name) or each for each in cards(*asked)])
    assert {"model:m1@v1", "model:m7@v1"} <= set(trace.trace_model(workspace, "m1@v1").graph.nodes)
    assert set(read) == {"m1", "m7"}
