"""An app with a pool, for what is trained and then asked; nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, JobStarted
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace


@pytest.fixture(name="app")
def offline_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto", roots=[tmp_path]))
    pool = Pool(workspace.folders, workspace.settings, size=1)
    made = App(workspace, Engine(workspace), pool)
    made.engine.start()
    yield made
    made.engine.stop()
    pool.close()
    workspace.close()


def result(app: App, started: object, seconds: float = 400) -> dict[str, Any]:
    assert isinstance(started, JobStarted)
    done = app.engine.wait(started.job, timeout=seconds)
    assert done.state == "succeeded", (done.error, app.engine.folder(done).log_tail(20))
    return dict(done.result or {})
