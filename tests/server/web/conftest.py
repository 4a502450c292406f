"""Pages over a workspace in this process, on a real port of loopback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.governance.roles import Level
from speciate.server.control.action import ControlContext
from speciate.server.tool_api import App
from speciate.server.web.listener import Pages
from speciate.serving.deployments import DeploymentKeeper
from speciate.unix_sockets import own_account
from speciate.workspace.workspace import Workspace
from tests import (
    data,
    quick_end,  # noqa: F401 - for what it does
)
from tests.conftest import ManualClock
from tests.promotion import world
from tests.server.apps import make_app
from tests.server.web.reader import Reader


class Served:
    """Pages with one use case, `digits`, whose model `m@v2` waits for a person's approval while `m@v1` serves."""

    def __init__(self, workspace: Workspace, app: App) -> None:
        self.workspace, self.app = workspace, app
        keeper = DeploymentKeeper(workspace, app.pool)
        self.control = ControlContext(workspace, app.engine, app.pool, keeper, workspace.clock.now(), lambda: 0)
        self.pages = Pages(app, self.control)

    def reader(self, level: Level = "look", keys: Sequence[dict[str, Any]] = ()) -> Reader:
        return Reader(self.link(level, keys)).sign_in()

    def link(self, level: Level = "look", keys: Sequence[dict[str, Any]] = ()) -> str:
        return self.pages.open(level, own_account(), keys, signed=level == "decide")

    @property
    def approval(self) -> str:
        [(name,)] = self.workspace.database.read("SELECT id FROM approvals ORDER BY created LIMIT 1")
        return str(name)


@pytest.fixture(scope="session")
def waiting(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of `Served`, closed, to be copied."""
    root = tmp_path_factory.mktemp("waiting") / "workspace"
    with data.to_copy(blank, root, ManualClock()) as workspace:
        world.define(workspace)
        world.judge(workspace, "m@v1")
        world.ask_promotion(workspace, "m@v1")
        world.judge(workspace, "m@v2", baseline="m@v1", evaluation="evaluation-2")
        world.ask_promotion(workspace, "m@v2", policy="person")
    return root


@pytest.fixture
def served(waiting: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Served]:
    with data.copied(waiting, tmp_path / "workspace", clock) as workspace:
        served = Served(workspace, make_app(workspace))
        yield served
        served.pages.close()
