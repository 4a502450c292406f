"""A base model that is named by its place on the hub is fetched first, by a job that the training waits for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.pool import Pool
from speciate.models import registry
from speciate.server.tool_api import App, DryRun, JobStarted
from speciate.tools.training import plan_training, specialize, train_model
from speciate.workspace.workspace import Workspace
from tests.models.hub_server import COMMIT, Hub, serving
from tests.training.world import define, make_dataset, thirds

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")
BASE = "hf:org/tiny"
PROBE = {"name": "kind", "dataset": "notes", "method": "probe", "base_model": BASE}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from transformers import BertConfig

    from tests.models.backbones.folders import SMALL, text_folder

    folder = text_folder(tmp_path_factory.mktemp("tiny") / "tiny", BertConfig(vocab_size=400, **SMALL))
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def hub(published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving({"org/tiny": published}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    workspace = Workspace(tmp_path / "workspace")
    texts = [f"{'leaking pump' if i % 2 else 'quiet motor'} number {i}" for i in range(60)]
    labels = ["leak" if i % 2 else "fine" for i in range(60)]
    splits = [split for split in thirds(30) for _ in range(2)]
    make_dataset(workspace, "notes", "text", {"text": texts}, labels=labels, splits=splits, inputs=["text"])
    define(workspace, "triage", "text-classification")
    yield App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
    workspace.close()


def waiting(app: App, started: JobStarted | DryRun) -> Job:
    assert isinstance(started, JobStarted)
    return app.engine.get(started.job)


def of_kind(app: App, kind: str) -> list[Job]:
    return app.engine.list(kind=kind)


def ended(app: App, job: Job) -> Job:
    app.engine.start()
    try:
        return app.engine.wait(job.id, timeout=240)
    finally:
        app.engine.stop()


def test_a_wrong_hyperparameter_is_refused_before_anything_is_fetched(hub: Hub, app: App) -> None:
    with pytest.raises(SpeciateError, match="'probe' has no hyperparameter 'learning_rate'") as refused:
        train_model(app, **PROBE, hyperparameters={"learning_rate": 1e-3})
    assert refused.value.code is Code.INVALID
    assert (of_kind(app, "fetch"), of_kind(app, "train")) == ([], [])


@pytest.mark.slow
def test_a_training_waits_for_its_base_model_and_then_learns_from_it(hub: Hub, app: App) -> None:
    started = train_model(app, **PROBE, idempotency_key="once")
    job = waiting(app, started)
    (fetch,) = of_kind(app, "fetch")
    assert (job.state, fetch.spec) == ("waiting", {"name": "org--tiny", "source": BASE})
    assert train_model(app, **PROBE, idempotency_key="once") == started
    assert len(of_kind(app, "fetch")) == 1
    done = ended(app, job)
    assert done.state == "succeeded", done
    version = registry.resolve(app.workspace.database, app.workspace.folders, "kind")
    assert version.card.base_model == "org--tiny@v1"
    assert registry.resolve(app.workspace.database, app.workspace.folders, BASE).ref == "org--tiny@v1"
    again = waiting(app, train_model(app, **{**PROBE, "name": "other"}))
    assert (again.state, len(of_kind(app, "fetch"))) == ("queued", 1), "it is here"
    assert train_model(app, **PROBE, idempotency_key="once").job == job.id  # type: ignore[union-attr]


def test_two_trainings_wait_for_one_fetch(hub: Hub, app: App) -> None:
    for name in ("one", "two"):
        train_model(app, **{**PROBE, "name": name})
    assert len(of_kind(app, "fetch")) == 1


def test_what_was_fetched_is_known_by_commit_and_by_what_was_asked(hub: Hub, app: App) -> None:
    job = app.engine.submit("fetch", {"name": "mine", "source": f"{BASE}@main"})
    assert ended(app, job).state == "succeeded"
    database, folders = app.workspace.database, app.workspace.folders
    for ref in (BASE, f"{BASE}@main", f"{BASE}@{COMMIT}"):
        assert registry.resolve(database, folders, ref).ref == "mine@v1"
    with pytest.raises(SpeciateError, match="its weights are not in this workspace") as refused:
        registry.resolve(database, folders, f"{BASE}@v9")
    assert f"register_model(name='org--tiny', source='{BASE}@v9')" in refused.value.recovery


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dataset": "nots"}, "did you mean 'notes'"),
        ({"use_case": "triag"}, "did you mean 'triage'"),
        ({"task": "tabular-classification"}, "text"),
        ({"base_model": "hf:nowhere"}, "cannot be fetched"),
    ],
)
def test_what_can_be_refused_is_before_anything_is_fetched(
    hub: Hub, app: App, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(SpeciateError, match=why):
        train_model(app, **{**PROBE, **changes})
    assert app.engine.list() == []
    assert hub.asked == []


def test_a_dry_run_says_what_would_be_fetched_and_asks_nobody(hub: Hub, app: App) -> None:
    shown = train_model(app, **PROBE, dry_run=True)
    assert isinstance(shown, DryRun)
    assert shown.resolved["fetched_first"] == [BASE]
    assert shown.resolved["dataset"] == "notes@v1"
    assert (app.engine.list(), hub.asked) == ([], [])


def test_a_fetch_that_is_refused_ends_the_training_with_its_name(hub: Hub, app: App) -> None:
    job = waiting(app, train_model(app, **{**PROBE, "base_model": "hf:org/none"}))
    done = ended(app, job)
    assert done.state in ("failed", "dead")
    assert of_kind(app, "fetch")[0].id in str(done.reason)


def test_specialize_waits_too_and_belongs_to_its_use_case(hub: Hub, app: App) -> None:
    started = specialize(app, "triage", "notes", 5, base_models=[BASE, "new:bert"], methods=["probe"])
    job = waiting(app, started)
    assert (job.state, job.use_case, len(of_kind(app, "fetch"))) == ("waiting", "triage", 1)
    assert job.spec["base_models"] == [BASE, "new:bert"]
    with pytest.raises(SpeciateError, match="did you mean"):
        specialize(app, "triage", "nots", 5, base_models=[BASE])


def test_a_plan_names_the_call_that_fetches(hub: Hub, app: App, tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="weights are not in this workspace") as refused:
        plan_training(app, "notes", task="text-classification", base_model=BASE)
    assert refused.value.code is Code.INVALID
    assert f"register_model(name='org--tiny', source='{BASE}')" in refused.value.recovery
    assert "task='text-generation'" in refused.value.recovery  # without a task it could not be evaluated
