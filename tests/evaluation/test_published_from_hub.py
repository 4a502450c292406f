"""A published model that is named by its place on the hub: one call fetches it and evaluates it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")

from speciate.evaluation.reports.report import find_report
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, DryRun, JobStarted
from speciate.settings import Settings
from speciate.tools.evaluation import evaluate_models
from speciate.workspace.workspace import Workspace
from tests.evaluation.test_published_models import make_texts
from tests.models.hub_server import Hub, serving
from tests.models.published import doubles

pytestmark = pytest.mark.slow
MODEL = "hf:org/sentiment"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubles.bert(tmp_path / "double", ("NEGATIVE", "POSITIVE"))
    files = {path.name: path.read_bytes() for path in (tmp_path / "double").iterdir()}
    with serving({"org/sentiment": files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    make_texts(workspace)
    yield App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
    workspace.close()


def test_one_call_fetches_maps_and_evaluates_and_the_next_fetches_nothing(hub: Hub, app: App) -> None:
    dry = evaluate_models(app, models=[MODEL], dataset="reviews", dry_run=True)
    assert isinstance(dry, DryRun)
    assert dry.resolved["fetched_first"] == [MODEL]
    assert not app.engine.list(kind="fetch")
    started = evaluate_models(app, models=[MODEL, "constant:"], dataset="reviews", latency=False)
    assert isinstance(started, JobStarted)
    (fetch,) = app.engine.list(kind="fetch")
    assert (app.engine.get(started.job).state, fetch.spec["name"]) == ("waiting", "org--sentiment")
    app.engine.start()
    try:
        done = app.engine.wait(started.job, timeout=600)
    finally:
        app.engine.stop()
    assert done.state == "succeeded", done
    report = find_report(app.workspace.database, str((done.result or {})["evaluation"]))
    row = report.row("org--sentiment@v1")
    assert (row.uncovered, row.ceiling, row.errors, row.n) == ((), 1.0, 0, 50)
    shown = evaluate_models(app, models=[MODEL], dataset="reviews", dry_run=True)
    assert isinstance(shown, DryRun)
    assert shown.resolved["labels"]["org--sentiment@v1"]["map"] == {"NEGATIVE": "bad", "POSITIVE": "good"}
    evaluate_models(app, models=[MODEL], dataset="reviews", label_maps={MODEL: {"NEGATIVE": "good"}})
    assert len(app.engine.list(kind="fetch")) == 1
