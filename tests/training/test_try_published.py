"""Published models from their small files to a verdict: screened, fetched, raced, evaluated beside own candidates."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")

import torch

from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, JobStarted
from speciate.settings import Settings
from speciate.tools.training import specialize
from speciate.workspace.workspace import Workspace
from tests.models.hub_server import Hub, serving
from tests.models.published import doubles
from tests.training.test_published_heads import make_texts
from tests.training.world import define

BUDGET_MINUTES = 4.0


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Three that fit, of which one knows the texts; one of another licence, one of pickles, one of other labels."""
    torch.manual_seed(0)
    repositories: dict[str, dict[str, bytes]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("one", "two", "three", "closed", "pickled"):
            doubles.bert(tmp_path / name, ("NEGATIVE", "POSITIVE"))
            repositories[f"org/{name}"] = files_of(tmp_path / name)
        doubles.bert(tmp_path / "other", ("sports", "politics"))
    repositories["org/other"] = files_of(tmp_path / "other")
    repositories["org/pickled"]["pytorch_model.bin"] = repositories["org/pickled"].pop("model.safetensors")
    with serving(repositories) as found:
        found.more = {"org/closed": {"cardData": {"license": "cc-by-nc-4.0"}}}
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        yield found


@pytest.mark.slow
def test_one_call_screens_fetches_races_and_evaluates_within_its_budget(hub: Hub, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    app = App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
    make_texts(workspace)
    define(workspace, "triage", "text-classification", licenses=("Apache-2.0",))
    names = [f"hf:org/{name}" for name in ("one", "two", "three", "closed", "pickled", "other")]
    began = time.monotonic()
    started = specialize(
        app, use_case="triage", dataset="reviews", budget_minutes=BUDGET_MINUTES, published=names, methods=["classical"]
    )
    assert isinstance(started, JobStarted)
    app.engine.start()
    try:
        done = app.engine.wait(started.job, timeout=600)
    finally:
        app.engine.stop()
    assert time.monotonic() - began < 1.1 * 60 * BUDGET_MINUTES + 30
    assert done.state == "succeeded", done
    result = dict(done.result or {})
    found = result["published"]
    why = {each["model"]: each["why"] for each in found["dropped"]}
    assert "CC-BY-NC-4.0" in why["hf:org/closed"]
    assert "pickles" in why["hf:org/pickled"]
    assert "is known to mean one of yours" in why["hf:org/other"]
    raced = {each["model"] for each in found["rows"]}
    assert raced == {"org--one@v1", "org--two@v1", "org--three@v1"}
    assert set(found["survivors"]) <= raced
    assert set(found["survivors"]) | set(why) >= raced
    board = {row["model"]: row for row in result["report"]["leaderboard"]}
    assert set(found["survivors"]) <= set(board)
    assert "triage-model@v1" in board
    assert result["spent"]["seconds"] <= 1.1 * 60 * BUDGET_MINUTES
    fetched = [each for each in hub.asked if "model.safetensors" in each]
    assert not [each for each in fetched if "closed" in each or "pickled" in each or "other" in each]
    assert json.dumps(result)
    workspace.close()
