"""A training at a place: the same model as here, from what was moved there alone; and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.evaluation.endpoints.pricing import usd_for
from speciate.governance import consents
from speciate.jobs.engine import Engine, JobRequest
from speciate.jobs.job import ENDED, Job, State
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.server.mcp.app import offered_tools
from speciate.settings import Capacity, Settings
from speciate.training.cascade.candidates import SpecializeSpec, choose_candidates, search_terms
from speciate.training.networks.training_log import read_metrics
from speciate.training.planning import placing
from speciate.training.planning.placing import find_place
from speciate.training.train_spec import Method, TrainSpec
from speciate.workspace.workspace import Workspace
from tests.jobs.places.cluster import Double, allow, look_often, until
from tests.training.world import define, make_dataset, png, thirds

GOOD, BAD = ("a fine film", "lovely and warm", "great fun"), ("a dull film", "cold and awful", "great bore")


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


@pytest.fixture
def engine(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    look_often(monkeypatch)
    settings = Settings(policy="auto", executors={"lab": double.place(lease_seconds=20, nodes=2, kinds=["measure"])})
    engine = Engine(Workspace(tmp_path / "workspace", settings=settings))
    engine.start()
    yield engine
    engine.stop()
    engine.workspace.close()


def texts(workspace: Workspace) -> None:
    rows = [f"{(GOOD if i % 4 < 2 else BAD)[i % 3]} number {i}" for i in range(120)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(120)]
    make_dataset(workspace, "reviews", "text", {"text": rows}, labels=labels, splits=thirds(120), inputs=["text"])
    allow(workspace, "reviews")


def squares(workspace: Workspace) -> None:
    chance = np.random.default_rng(0)
    dark = [(i // 4) % 2 for i in range(90)]
    images = [png((chance.random((16, 16)) * (90 if each else 250)).astype(np.uint8)) for each in dark]
    labels = ["dark" if each else "bright" for each in dark]
    make_dataset(workspace, "squares", "image", {}, labels=labels, splits=thirds(90), media=images)
    allow(workspace, "squares")


def train(engine: Engine, name: str, place: str, **spec: Any) -> ModelCard:
    job = engine.submit("train", {"name": name, "resources": {"cpu": 1, "place": place}} | spec)
    done = engine.wait(job.id, timeout=240)
    assert done.state is State.SUCCEEDED, (done.reason, done.error, engine.folder(done).log_tail(40))
    assert done.resources.place == (None if place == "here" else place)
    return registry.resolve(engine.workspace.database, engine.workspace.folders, f"{name}@v1").card


def test_the_model_is_the_one_that_is_made_here(engine: Engine, double: Double) -> None:
    texts(engine.workspace)
    spec = {"dataset": "reviews", "method": "classical"}
    assert train(engine, "there", "lab", **spec).id == train(engine, "here", "here", **spec).id
    assert len(double.launches()) == 1
    folder = engine.folder(engine.list(kind="train")[1])
    assert folder.log.exists()
    assert folder.progress() is not None
    again = engine.plan("train", {"like": "there@v1", "name": "again"})
    assert again.resources.place is None, "a recipe says how, and not where"
    planned = engine.plan("train", {**spec, "name": "planned", "resources": {"place": "lab"}})
    assert planned.resolved["place"] == "lab"
    assert all(not Path(name).is_absolute() for name in planned.inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (squares, {"dataset": "squares", "method": "full", "base_model": "new:vit", "hyperparameters": {"epochs": 2}}),
        (texts, {"dataset": "reviews", "method": "probe", "base_model": "pkg:minilm"}),
        (texts, {"dataset": "reviews", "method": "lora", "base_model": "pkg:minilm", "hyperparameters": {"epochs": 1}}),
    ],
    ids=["media, fresh weights", "weights of a package", "lora on them"],
)
def test_each_method_that_goes_finds_all_that_it_reads(engine: Engine, data: Any, spec: dict[str, Any]) -> None:
    data(engine.workspace)
    assert train(engine, "there", "lab", **spec).id == train(engine, "here", "here", **spec).id


def test_what_a_person_did_not_allow_is_refused_where_the_call_names_the_place_and_else_runs_here(
    engine: Engine, double: Double
) -> None:
    texts(engine.workspace)
    consents.disallow(engine.workspace, "reviews", "lab", "grace")
    spec = {"name": "words", "dataset": "reviews", "method": "classical"}
    for ask in (engine.plan, engine.submit):
        with pytest.raises(SpeciateError, match="speciate allow reviews --host lab") as caught:
            ask("train", {**spec, "resources": {"place": "lab"}})
        assert caught.value.code is Code.REFUSED
        assert caught.value.next == (CallAgain("", {"resources": {"place": None, "nodes": None, "gpu": None}}),)
    measured = engine.plan("measure", {"dataset": "reviews", "method": "classical"})
    assert measured.resources.place is None
    assert "speciate allow reviews --host lab" in measured.resolved["runs_here"]
    lab = double.place(kinds=["train"])
    engine.workspace.settings = engine.workspace.settings.model_copy(update={"executors": {"lab": lab}})
    planned = engine.plan("train", spec)
    assert planned.resources.place is None
    assert "speciate allow reviews --host lab" in planned.resolved["runs_here"]
    allow(engine.workspace, "reviews")
    planned = engine.plan("train", spec)
    assert (planned.resources.place, planned.resolved["place"]) == ("lab", "lab")
    assert "runs_here" not in planned.resolved
    assert [each.dataset for each in planned.departures] == ["reviews"]
    done = engine.wait(engine.submit("train", spec).id, timeout=240)
    assert done.resources.place == "lab"
    tuned = {"name": "more", "dataset": "reviews", "method": "classical"}
    make_dataset(engine.workspace, "other", "text", {"text": list("aabb") * 30}, labels=list("xxyy") * 30,
                 splits=thirds(120), inputs=["text"])  # fmt: skip
    assert (
        "speciate allow other --host lab" in engine.plan("train", {**tuned, "dataset": "other"}).resolved["runs_here"]
    )


def losses(engine: Engine, job: Job) -> dict[int, float]:
    """On held-out examples, by step, of the newest attempt."""
    rows = read_metrics(engine.folder(job).path / "metrics.jsonl")
    return {row["step"]: row["held_loss"] for row in rows if row.get("held_loss") is not None}


TWO_NODES: dict[str, Any] = {
    "dataset": "squares", "method": "full", "base_model": "new:vit",
    "hyperparameters": {"epochs": 4, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"},
}  # fmt: skip


@pytest.mark.slow(reason="two trainings with torch, one of them in two processes")
def test_two_nodes_take_the_steps_that_this_machine_takes(engine: Engine, double: Double) -> None:
    squares(engine.workspace)
    train(engine, "there", "lab", **TWO_NODES, resources={"cpu": 1, "place": "lab", "nodes": 2})
    train(engine, "here", "here", **TWO_NODES)
    here, there = engine.list(kind="train")
    assert there.resources.nodes == 2
    assert len(losses(engine, here)) == 4
    two = engine.plan("train", {**TWO_NODES, "name": "x", "resources": {"cpu": 1, "place": "lab", "nodes": 2}})
    assert there.id in two.known_from
    assert two.usd == pytest.approx(
        2 * usd_for(there.result["report"]["cost"]["cpu_seconds"], two.payload.usd_per_core_hour), rel=0.1
    )  # type: ignore[index]
    alone = engine.plan("train", {**TWO_NODES, "name": "x", "resources": {"cpu": 1, "place": "lab"}})
    assert alone.seconds is None, "what two nodes took says nothing about one"
    assert losses(engine, there) == pytest.approx(losses(engine, here), abs=1e-6)
    (words,) = double.jobs.glob("*.words")
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1" in words.read_text()


def processes(run: str) -> dict[str, list[int]]:
    """The live ones of an attempt: `node` and `node 1` as started by the cluster, and their workers."""
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            kinds = {"speciate.jobs.places.node": "node", "speciate.worker": "worker"}
            kind = next((kinds[word] for word in words if word in kinds), None)
            if kind and any(f"/{run}" in word for word in words) and process.status() != psutil.STATUS_ZOMBIE:
                number = " 1" if words[-1] == "1" or words[-1].endswith("/run") else ""
                found.setdefault(kind + number, []).append(process.pid)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "worker 1", "node", "node 1"])
def test_whichever_node_dies_all_end_and_the_next_attempt_goes_on(engine: Engine, double: Double, victim: str) -> None:
    squares(engine.workspace)
    resources = {"cpu": 1, "place": "lab", "nodes": 2}
    job = engine.submit("train", {"name": "there", **TWO_NODES, "resources": resources}).id
    until(lambda: any(double.depot.glob(f"*/runs/{job}.1/team.json")), 400)
    (pid,) = processes(f"{job}.1")[victim]
    os.kill(pid, signal.SIGKILL)
    beside = list[str]()
    while engine.get(job).state not in ENDED:
        if later := processes(f"{job}.2"):
            beside += [f"{kind} beside {sorted(later)}" for kind in processes(f"{job}.1")]
        with contextlib.suppress(TimeoutError):
            engine.wait(job, timeout=0.3)
    done = engine.get(job)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2), (done.reason, done.error)
    assert beside == []
    train(engine, "here", "here", **TWO_NODES)
    here, there = engine.list(kind="train")
    assert losses(engine, there) == pytest.approx(losses(engine, here), abs=1e-6)


def steps_told(engine: Engine, run: str) -> list[float]:
    try:
        lines = (engine.workspace.folders.runs / run / "progress.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [done for line in lines if (done := json.loads(line)["done"])]


@pytest.mark.slow(reason="a checkpoint is due after a minute of training")
def test_a_node_that_dies_costs_the_steps_since_the_last_checkpoint(engine: Engine, double: Double) -> None:
    squares(engine.workspace)
    options = {**TWO_NODES["hyperparameters"], "epochs": 400, "early_stopping_patience": 400}
    resources = {"cpu": 1, "place": "lab", "nodes": 2}
    spec = TWO_NODES | {"name": "there", "hyperparameters": options, "resources": resources}
    job = engine.submit("train", spec).id
    until(lambda: any(double.depot.glob(f"*/runs/{job}.1/checkpoints/candidate-0/checkpoint-*")), 400)
    (pid,) = processes(f"{job}.1")["worker 1"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.get(job).attempt == 2, 120)
    until(lambda: bool(steps_told(engine, f"{job}.2")), 400)
    assert 10 < steps_told(engine, f"{job}.2")[0] <= steps_told(engine, f"{job}.1")[-1] + 10
    engine.control(job, "cancel")
    assert engine.wait(job, timeout=120).state is State.CANCELLED


def lived(jobs: Sequence[Job]) -> list[tuple[float, float]]:
    """When each began and ended, in the order of their beginning."""
    return sorted((job.started or 0.0, job.ended or 0.0) for job in jobs)


def check_specialize_trains_at_once(engine: Engine, place: str) -> None:
    """At a place that takes trainings, two at once."""
    workspace = engine.workspace
    squares(workspace)
    define(workspace, "light", "image-classification")
    bases = ["new:vit", "new:resnet"]
    methods: list[Method] = ["classical", "full"]
    ways = choose_candidates(workspace, "light", "squares", bases, methods)
    terms = search_terms(workspace, "light", "squares", ways, 20.0)
    assert set(terms.at_once.values()) == {2}
    asked = SpecializeSpec(
        use_case="light", dataset="squares", budget_minutes=20, base_models=tuple(bases), methods=tuple(methods),
        ways=ways, **terms._asdict(),
    )  # fmt: skip
    spec = asked.model_dump(mode="json", exclude_none=True)
    assert engine.plan("specialize", spec).resolved["place"] == place
    done = engine.wait(engine.submit("specialize", spec).id, timeout=580)
    assert done.state is State.SUCCEEDED, (done.reason, done.error)
    trainings = [child for child in engine.children(done.id) if child.kind == "train"]
    assert [child.step for child in trainings] == ["train/classical", "train/full-new-vit", "train/full-new-resnet"]
    assert {child.resources.place for child in trainings} == {place}
    (_, first_ended), (second, second_ended), (third, third_ended) = lived(trainings)
    assert first_ended <= second, "the cheapest is alone"
    assert third < second_ended, "the others lived at once"
    assert second < third_ended
    assert done.result is not None
    tried = [(row["method"], row["base_model"]) for row in done.result["candidates"]]
    assert tried == [("classical", None), ("full", "new:vit"), ("full", "new:resnet")], "in the cascade's order"


@pytest.mark.slow
def test_specialize_trains_at_once_where_a_place_takes_trainings(
    tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    place = double.place(lease_seconds=20, runs=2, kinds=["train"])
    engine = Engine(Workspace(tmp_path / "rules", settings=Settings(policy="auto", executors={"lab": place})))
    engine.start()
    check_specialize_trains_at_once(engine, "lab")
    engine.stop()
    engine.workspace.close()


@pytest.mark.slow
def test_a_sweep_is_as_many_calls_whose_trainings_run_at_once(engine: Engine) -> None:
    squares(engine.workspace)
    asked = [
        JobRequest("train", {
            "name": "swept", "dataset": "squares", "method": "full", "base_model": "new:vit",
            "hyperparameters": {"epochs": 2, "learning_rate": rate}, "resources": {"cpu": 1, "place": "lab"},
        })
        for rate in (1e-2, 1e-3, 1e-4)
    ]  # fmt: skip
    jobs = [job.id for job in engine.submit_all(asked) if isinstance(job, Job)]
    done = [engine.wait(job, timeout=400) for job in jobs]
    assert {job.state for job in done} == {State.SUCCEEDED}
    (_, ended), (second, _), (third, _) = lived(done)
    assert max(second, third) < ended, "all three lived at once"
    models = sorted(job.result["model"] for job in done if job.result)
    assert models == ["swept@v1", "swept@v2", "swept@v3"]
    spec = {"models": models, "dataset": "squares:test", "latency": False}
    judged = engine.wait(engine.submit("evaluate", spec).id, timeout=400)
    assert judged.result is not None, (judged.reason, judged.error)
    assert {row["model"] for row in judged.result["report"]["leaderboard"]} >= set(models)


def test_a_place_that_takes_trainings_gets_those_that_may_go(
    tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = double.place(kinds=["train"], capacity={"cpu": 2, "memory_mb": 2000})
    workspace = Workspace(tmp_path / "rules", settings=Settings(policy="auto", executors={"lab": place}))
    texts(workspace)
    squares(workspace)
    engine = Engine(workspace)

    def where(**spec: Any) -> str | None:
        return engine.plan("train", {"name": "m", "dataset": "reviews", **spec}).resources.place

    assert where(method="classical") == "lab"
    assert where(method="classical", resources={"place": "here"}) is None
    assert where(method="classical", resources={"memory_mb": 4000}) is None, "it does not fit there"
    assert where(method="full", base_model="new:bert") is None, "its 3,000 MB do not, either"
    assert where(method="full", base_model="new:bert", resources={"nodes": 2, "cpu": 1}) is None
    monkeypatch.setattr(placing, "GOES", ("full",))
    assert where(method="classical") is None, "it reads more than is moved"
    engine.workspace.close()


def test_nodes_that_cannot_be_are_refused_with_what_can(engine: Engine) -> None:
    texts(engine.workspace)
    spec = {"name": "m", "dataset": "reviews", "method": "full", "base_model": "new:bert"}
    for more, word in (
        ({"resources": {"place": "lab", "nodes": 3}}, "at lab a training may have 2"),
        ({"resources": {"place": "lab", "nodes": 2}, "method": "classical", "base_model": None}, "in one process"),
        ({"resources": {"nodes": 2, "gpu": 3}}, "2 nodes have as many each"),
    ):
        with pytest.raises(SpeciateError) as refused:
            engine.plan("train", spec | more)
        assert word in refused.value.message
        assert refused.value.next
    planned = engine.plan("train", spec | {"resources": {"nodes": 2, "cpu": 1}})
    assert (planned.payload.processes, planned.resources.cpu, planned.resources.nodes) == (2, 2.0, 1)


@pytest.mark.slow
def test_costs_of_a_place_are_measured_there_and_known_for_it_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(engine.workspace)
    measure = engine.submit("measure", {"dataset": "reviews", "method": "classical"})
    done = engine.wait(measure.id, timeout=240)
    assert done.state is State.SUCCEEDED, (done.reason, done.error, engine.folder(done).log_tail(40))
    assert done.resources.place == "lab"
    spec = {"name": "m", "dataset": "reviews", "method": "classical"}
    there = engine.plan("train", {**spec, "resources": {"place": "lab"}})
    assert done.id in there.known_from
    assert done.id not in engine.plan("train", spec).known_from
    monkeypatch.setattr(placing, "GOES", ("full",))
    stays = engine.plan("measure", {"dataset": "reviews", "method": "classical"})
    assert (stays.resources.place, stays.inputs) == (None, ())


@pytest.mark.slow
def test_a_version_that_is_trained_on_brings_what_it_learned_from(engine: Engine) -> None:
    squares(engine.workspace)
    spec: dict[str, Any] = {"dataset": "squares", "method": "full", "hyperparameters": {"epochs": 1}}
    train(engine, "first", "here", base_model="new:vit", **spec)
    spec["continue_from"] = "first@v1"
    assert train(engine, "there", "lab", **spec).id == train(engine, "again", "here", **spec).id
    assert "first" in json.dumps(engine.plan("train", {"name": "x", "resources": {"place": "lab"}, **spec}).inputs)


def test_what_cannot_go_is_refused_with_what_can(engine: Engine) -> None:
    texts(engine.workspace)
    spec = {"name": "m", "dataset": "reviews"}
    with pytest.raises(SpeciateError) as unknown:
        engine.plan("train", {**spec, "method": "classical", "resources": {"place": "moon"}})
    assert unknown.value.code is Code.NOT_FOUND
    assert "lab" in unknown.value.message
    with pytest.raises(SpeciateError) as method:
        engine.plan("train", {**spec, "method": "slda", "resources": {"place": "lab"}})
    assert method.value.code in (Code.REFUSED, Code.INVALID)
    much = {**spec, "method": "full", "base_model": "new:bert", "resources": {"gpu": 2, "place": "lab"}}
    with pytest.raises(SpeciateError, match=r"resources\.gpu is 2; lab has 0") as room:
        engine.plan("train", much)
    (again,) = room.value.next
    assert isinstance(again, CallAgain), "at the place without a GPU, and not here, where there are no two either"
    assert again.changes["resources"]["place"] == "lab"
    assert engine.plan("train", much | again.changes).resources.place == "lab"
    for gpus, ways in ((1, [("lab", None)]), (2, [("lab", None), (None, 2)]), (4, [("lab", None), (None, 4)])):
        here = engine.workspace.settings.model_copy(update={"capacity": Capacity(gpu=gpus)})
        with pytest.raises(SpeciateError) as room:
            find_place(TrainSpec.model_validate(much | {"resources": {"gpu": max(gpus, 2), "place": "lab"}}), here)
        found = [each.changes["resources"] for each in room.value.next if isinstance(each, CallAgain)]
        assert [(each["place"], each["gpu"]) for each in found] == ways
    none = engine.workspace.settings
    asked = TrainSpec.model_validate({**spec, "method": "slda", "resources": {"gpu": 1, "place": "lab"}})
    with pytest.raises(SpeciateError, match="runs here only") as stays:
        find_place(asked, none)
    (alone,) = stays.value.next
    assert isinstance(alone, CallAgain)
    assert alone.changes["resources"]["gpu"] is None, "this machine has none"
    base = {"method": "full", "base_model": "path:/bases/bert", "resources": {"place": "lab"}}
    with pytest.raises(SpeciateError) as folder:
        find_place(TrainSpec.model_validate(spec | base), engine.workspace.settings)
    register, _ = folder.value.next
    assert isinstance(register, Call)
    assert register.tool in {tool.name for tool in offered_tools()}
    assert register.arguments["source"] == "path:/bases/bert"
