"""A training at a place: the same model as here, from what was moved there alone; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.places import executor
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.server.mcp.app import offered_tools
from speciate.settings import Settings
from speciate.training.planning.placing import find_place
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.jobs.places.cluster import Double
from tests.training.world import make_dataset, png, thirds

GOOD, BAD = ("a fine film", "lovely and warm", "great fun"), ("a dull film", "cold and awful", "great bore")


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


@pytest.fixture
def engine(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr("speciate.jobs.places.places.LOOK_SECONDS", 0.1)
    monkeypatch.setattr(executor, "_ASK_SECONDS", 0.2)
    settings = Settings(policy="auto", executors={"lab": double.place(lease_seconds=60)})
    engine = Engine(Workspace(tmp_path / "workspace", settings=settings))
    engine.start()
    yield engine
    engine.stop()
    engine.workspace.close()


def texts(workspace: Workspace) -> None:
    rows = [f"{(GOOD if i % 4 < 2 else BAD)[i % 3]} number {i}" for i in range(120)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(120)]
    make_dataset(workspace, "reviews", "text", {"text": rows}, labels=labels, splits=thirds(120), inputs=["text"])


def squares(workspace: Workspace) -> None:
    chance = np.random.default_rng(0)
    dark = [(i // 4) % 2 for i in range(90)]
    images = [png((chance.random((16, 16)) * (90 if each else 250)).astype(np.uint8)) for each in dark]
    labels = ["dark" if each else "bright" for each in dark]
    make_dataset(workspace, "squares", "image", {}, labels=labels, splits=thirds(90), media=images)


def train(engine: Engine, name: str, place: str, **spec: Any) -> ModelCard:
    job = engine.submit("train", {"name": name, "resources": {"cpu": 1, "place": place}, **spec})
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
    with pytest.raises(SpeciateError) as room:
        engine.plan(
            "train",
            {**spec, "method": "full", "base_model": "new:bert", "resources": {"gpu": 2, "place": "lab"}},
        )
    assert "lab" in room.value.message
    base = {"method": "full", "base_model": "path:/bases/bert", "resources": {"place": "lab"}}
    with pytest.raises(SpeciateError) as folder:
        find_place(TrainSpec.model_validate(spec | base), engine.workspace.settings)
    register, _ = folder.value.next
    assert isinstance(register, Call)
    assert register.tool in {tool.name for tool in offered_tools()}
    assert register.arguments["source"] == "path:/bases/bert"
