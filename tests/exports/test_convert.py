"""An export becomes a version only with its own evidence; then it is an ordinary model."""

from __future__ import annotations

import importlib.util
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions, evaluate, run_evaluation
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.reports.report import Decision
from speciate.exports import convert, convert_worker, export_gates
from speciate.exports.convert import ConvertSpec
from speciate.jobs.engine import Engine
from speciate.jobs.folder import write_whole
from speciate.jobs.job import Job, State
from speciate.jobs.pool import Pool
from speciate.jobs.process_identity import signal_group
from speciate.jobs.run import Run
from speciate.lineage.model_report import model_report
from speciate.models import registry, sealed
from speciate.models.backbones import architectures
from speciate.models.model_card import ModelCard
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec, export_objections
from speciate.refs import JobId
from speciate.serving.predict import Input, predict
from speciate.settings import Settings
from speciate.tasks.families.classification import Classification
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.tools.exports import export_model
from speciate.training.planning import base_models
from speciate.workspace.workspace import Workspace
from tests.promotion import world
from tests.server.apps import make_app
from tests.training.world import define, make_dataset, run_folder, thirds, train_now

pytest.importorskip("torch")
ENGINES = ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
needs_engines = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ENGINES), reason="pip install 'speciate[exports]'"
)


def waves(workspace: Workspace, count: int = 120, splits: tuple[str, ...] = ("train", "validation", "test")) -> None:
    labels = ["slow" if i % 4 < 2 else "fast" for i in range(count)]
    rng = np.random.default_rng(0)
    series = [
        (np.sin(np.arange(32) * (0.3 if label == "slow" else 0.8)) + 0.1 * rng.normal(size=32)).tolist()
        for label in labels
    ]
    make_dataset(
        workspace, "waves", "time-series", {"y": series}, labels=labels, splits=thirds(count, splits), inputs=["y"]
    )  # fmt: skip


def parent(workspace: Workspace, tmp_path: Path, **facts: Any) -> ModelCard:
    """A registered network with random weights: an export only has to compute the same."""
    import torch

    torch.manual_seed(1)
    series = [np.random.default_rng(place).normal(size=(1, 32)).astype(np.float32) for place in range(8)]
    backbone = architectures.build("new:mlp", series, 0)
    task_head = Classification(labels=("fast", "slow"))
    made = NetworkPredictor("time-series-classification", task_head, backbone, task_head.head(backbone.width))
    identity = made.save(tmp_path / "made")
    card = ModelCard(
        name="own", id=identity, task=made.task, modality="time-series", method="full", base_model="new:mlp",
        labels=task_head.labels, dataset="waves@v1", inputs=("y",), license="Apache-2.0",
        parameters=made.parameters, **facts,
    )  # fmt: skip
    return workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, tmp_path / "made"))


def job(kind: str) -> Job:
    return Job(id=JobId("job-c"), kind=kind, spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)


def converted(workspace: Workspace, name: str = "job-c", **spec: Any) -> dict[str, Any]:
    """Plan, run and commit; the job's result."""
    folder = run_folder(workspace, name, convert.plan(ConvertSpec(**spec), workspace).payload_json())
    write_whole(folder.outputs / "result.json", json.dumps(convert_worker.run(Run(folder))))
    collected = convert.KIND.collect(folder)
    return workspace.database.transact(lambda tx: convert.KIND.commit(tx, job("convert"), collected))


def evaluated(workspace: Workspace, model: str) -> None:
    spec = EvaluateSpec(models=(model,), dataset="waves", latency=False)
    folder = run_folder(workspace, "job-v", evaluate.plan(spec, workspace).payload_json())
    write_whole(folder.outputs / "result.json", json.dumps(run_evaluation.run(Run(folder))))
    collected = evaluate.KIND.collect(folder)
    workspace.database.transact(lambda tx: evaluate.KIND.commit(tx, job("evaluate"), collected))


def decide(workspace: Workspace, name: str, model: str) -> None:
    """A decision of the use case in the catalog, as evaluation would write it."""
    made = Decision(id=name, verdict="promote", reasons=(), candidate=model, baseline="constant:")
    workspace.database.transact(
        lambda tx: decisions.store(tx, made, use_case="waves", version=1, evaluation="evaluation-1")
    )


def promoted(workspace: Workspace, model: str, decision: str | None = None) -> dict[str, Any]:
    spec = PromoteSpec(use_case="waves", model=model, actor="ada", decision=decision)
    settings = Settings.model_validate({"policy": "auto"})
    return workspace.database.transact(lambda tx: promote.act(tx, spec, world.JOB, settings))


@pytest.fixture
def pool(workspace: Workspace) -> Iterator[Pool]:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    yield pool
    pool.close()


def test_a_model_without_a_network_is_refused_before_there_is_a_job(workspace: Workspace) -> None:
    texts = [f"{'a fine film' if i % 4 < 2 else 'an awful bore'} {i}" for i in range(40)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(40)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(40), inputs=["text"])
    few = {"candidates": ["logistic"]}
    made = train_now(workspace, name="words", dataset="films", method="classical", hyperparameters=few)
    with pytest.raises(SpeciateError, match=r"no network: its answers come from documents.*'full' or 'lora'") as caught:
        convert.plan(ConvertSpec(model=str(made["model"]), format="onnx"), workspace)
    assert caught.value.code is Code.INVALID
    assert "format='safetensors'" in caught.value.recovery


def test_a_folder_has_a_path_and_a_version_has_none(workspace: Workspace, tmp_path: Path) -> None:
    app = make_app(workspace)
    for wrong in (
        {},
        {"format": "openvino", "path": str(tmp_path / "x")},
        {"path": str(tmp_path / "x"), "quantize": "int8"},
    ):
        with pytest.raises(SpeciateError) as caught:
            export_model(app, "own", **wrong)
        assert caught.value.code is Code.INVALID
        assert "format='onnx' or 'openvino'" in caught.value.recovery


@needs_engines
def test_without_examples_to_evaluate_on_nothing_is_exported(workspace: Workspace, tmp_path: Path) -> None:
    waves(workspace, splits=("test", "test", "test"))
    parent(workspace, tmp_path)
    with pytest.raises(SpeciateError, match="no examples to evaluate the export on"):
        convert.plan(ConvertSpec(model="own", format="onnx"), workspace)


@needs_engines
def test_without_a_validation_split_training_examples_judge_and_the_plan_says_so(
    workspace: Workspace, tmp_path: Path
) -> None:
    waves(workspace, splits=("train", "test"))
    parent(workspace, tmp_path)
    plan = convert.plan(ConvertSpec(model="own", format="onnx"), workspace)
    assert plan.resolved["judged_on"] == "waves@v1:train", "never the test split"
    assert "no validation split" in plan.resolved["remark"]
    assert plan.payload_json()["judged_on"] == "training"


@needs_engines
def test_the_plan_names_the_export_and_the_split_that_it_is_evaluated_on(workspace: Workspace, tmp_path: Path) -> None:
    waves(workspace)
    parent(workspace, tmp_path)
    plan = convert.plan(ConvertSpec(model="own", format="openvino", quantize="int8"), workspace)
    assert plan.resolved == {
        "model": "own@v1", "format": "openvino", "quantize": "int8", "name": "own-openvino-int8",
        "judged_on": "waves@v1:validation", "metric": "accuracy",
    }  # fmt: skip
    assert plan.payload_json()["judging"]["split"] == "validation", "the test split is not looked at"


def test_an_export_whose_record_lacks_a_gate_may_not_be_promoted() -> None:
    gates = [{"name": name, "outcome": "pass"} for name in ("reload", "parity", "latency", "size")]
    card = ModelCard(name="x", version=2, method="export", recipe={"export": {"parent": "own@v1", "gates": gates}})
    assert "gates held: metric" in export_objections(card)[0]
    gates.append({"name": "metric", "outcome": "inconclusive"})
    assert export_objections(card), "an inconclusive gate is no pass"
    gates[-1] = {"name": "metric", "outcome": "pass"}
    assert export_objections(card) == []
    assert export_objections(ModelCard(name="x", version=2, method="full")) == []


@pytest.mark.slow
@needs_engines
@pytest.mark.parametrize(("form", "quantize"), [("onnx", "int8"), ("openvino", "int8"), ("openvino", "none")])
def test_an_export_is_an_ordinary_model(
    workspace: Workspace, tmp_path: Path, pool: Pool, form: str, quantize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export_gates, "_SLOWER", 100.0
    )  # 13,000 weights: a machine that is busy decides how long they take
    waves(workspace)
    define(workspace, "waves", "time-series-classification")
    before = parent(workspace, tmp_path)
    result = converted(workspace, model="own", format=form, quantize=quantize, tolerance=0.2)
    name = convert.name_of("own", form, quantize)  # type: ignore[arg-type]  # of the parameters above
    assert result["model"] == f"{name}@v1"
    version = registry.resolve(workspace.database, workspace.folders, name)
    card = version.card
    assert (card.parents, card.method, card.license, card.dataset) == (
        (before.ref,), "export", "Apache-2.0", "waves@v1",
    )  # fmt: skip
    assert [gate["outcome"] for gate in card.recipe["export"]["gates"]] == ["pass"] * 5
    measured = card.recipe["export"]["measured"]
    assert measured["speed"]["pairs"] >= 20
    assert measured["speed"]["export"]["memory_mb"] > 0
    assert measured["held"]["n"] == 30
    report = model_report(workspace, name)
    assert report.lineage[:2] == ("own@v1", "new:mlp")
    assert "## What its export was measured by" in report.card
    assert report.trust.intact
    with pytest.raises(SpeciateError, match="is an export"):
        base_models.find_base(workspace, f"{name}@v1")
    # It answers in a sandboxed process, with the same preprocessing.
    wave = np.sin(np.arange(32) * 0.3).tolist()
    theirs, ours = (predict(workspace, pool, ref, [Input(row={"y": wave})]) for ref in ("own@v1", f"{name}@v1"))
    assert ours.predictions[0].error is None
    assert ours.predictions[0].output == theirs.predictions[0].output
    assert ours.predictions[0].confidence == pytest.approx(theirs.predictions[0].confidence, abs=0.1)
    # Evaluations accept it, and its parent's decision does not count for it.
    evaluated(workspace, f"{name}@v1")
    assert [(each.metric, each.n) for each in model_report(workspace, name).evaluations] == [("accuracy", 30)]
    decide(workspace, "decision-p", "own@v1")
    assert "No decision of waves" in str(promoted(workspace, f"{name}@v1")["reasons"])
    refused = promoted(workspace, f"{name}@v1", "decision-p")
    assert refused["state"] == "refused"
    assert f"not about {name}@v1" in str(refused["reasons"])
    decide(workspace, "decision-e", f"{name}@v1")
    assert promoted(workspace, f"{name}@v1")["state"] == "applied"
    served = predict(workspace, pool, "waves@production", [Input(row={"y": wave})])
    assert (served.model, served.predictions[0].output) == (f"{name}@v1", ours.predictions[0].output)


@pytest.mark.slow
@needs_engines
def test_an_export_that_fails_a_gate_is_no_version_and_its_figures_are_kept(
    workspace: Workspace, tmp_path: Path
) -> None:
    waves(workspace)
    parent(workspace, tmp_path)
    with pytest.raises(SpeciateError, match=r"metric inconclusive: .*cannot tell whether within 0.001") as caught:
        converted(workspace, model="own", format="onnx", quantize="int8", tolerance=0.001)
    assert caught.value.code is Code.REFUSED
    assert "greater tolerance" in caught.value.recovery
    assert registry.names(workspace.database) == ["own"]
    kept = json.loads((workspace.folders.runs / "job-c.1" / "outputs" / convert_worker.REPORT).read_text())
    assert {gate["name"]: gate["outcome"] for gate in kept["gates"]}["metric"] == "inconclusive"


@pytest.mark.slow
@needs_engines
def test_a_killed_export_begins_anew_and_is_registered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 once the folder is written and sealed, before any gate."""
    workspace = Workspace(tmp_path / "workspace")  # by the real clock, as runs are
    waves(workspace)
    parent(workspace, tmp_path)
    struck = tmp_path / "struck"
    monkeypatch.setenv("SPECIATE_FAULT", f"export_before_gates:block:{struck}")
    monkeypatch.setenv("SPECIATE_TESTING", "1")
    engine = Engine(workspace)
    engine.start()
    try:
        job = engine.submit("convert", {"model": "own", "format": "onnx"})
        deadline = time.monotonic() + 400
        while not struck.exists():
            assert time.monotonic() < deadline, engine.get(job.id)
            time.sleep(0.05)
        first = workspace.folders.runs / str(engine.get(job.id).run_id)
        assert (first / "outputs" / "model" / sealed.MANIFEST).is_file()
        whom = [path.read_text() for name in ("supervisor", "worker") if (path := first / name).exists()]
        assert [signal_group(who, signal.SIGKILL) for who in whom] == [True, True]
        ended = engine.wait(job.id, timeout=400)
        assert ended.state == "succeeded", ended.error
        assert len(list(workspace.folders.runs.glob(f"{job.id}.*"))) == 2
        assert (ended.result or {})["model"] == "own-onnx@v1"
        assert registry.names(workspace.database) == ["own", "own-onnx"]
        version = registry.resolve(workspace.database, workspace.folders, "own-onnx")
        assert sealed.check(version.path) == version.card.id
    finally:
        engine.stop()
        workspace.close()
