"""A deployment under traffic: a canary comes, grows, dies with it, is promoted; the bake takes another one back."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.governance import audit
from speciate.jobs.pool import Pool
from speciate.promotion import aliases
from speciate.serving import deployments
from speciate.serving.deployment_folder import deployment_folder
from speciate.serving.deployments import DeploymentKeeper
from speciate.serving.routing import to_canary
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.serving.test_deployment import until
from tests.serving.world import USE_CASE, move, scaled, trained, version

pytestmark = [pytest.mark.durable, pytest.mark.slow]
KEYS = [f"user-{number}" for number in range(300)]
PATIENCE = 240.0


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    yield workspace
    folder = deployment_folder(workspace.folders, USE_CASE)
    folder.create()
    folder.stop()
    until(lambda: not folder.alive(), 60)
    workspace.close()


def ask(workspace: Workspace) -> dict[str, str]:
    """Each key once, over one connection: key -> the version that answered."""
    view = deployments.deployment_of(workspace.folders, USE_CASE)
    assert view
    assert view.url
    connection = http.client.HTTPConnection(view.url.removeprefix("http://"), timeout=60)
    token, body = view.token.read_text(), json.dumps({"inputs": [{"text": "a good film 7"}]})
    answered = {}
    for key in KEYS:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "x-request-key": key}
        connection.request("POST", "/predict", body, headers)
        response = connection.getresponse()
        said = json.loads(response.read())
        assert response.status == 200, said
        answered[key] = str(response.getheader("x-model-version"))
    connection.close()
    return answered


def canary(workspace: Workspace, model: str, percent: float) -> None:
    workspace.database.transact(
        lambda tx: aliases.set_canary(
            tx, use_case=USE_CASE, model=model, percent=percent, expected=None, actor="ada", evidence={}
        )
    )  # fmt: skip


def test_a_canary_from_its_first_share_to_production_and_one_that_is_taken_back(workspace: Workspace) -> None:
    first = trained(workspace)
    second = version(workspace, first, scaled(0.5), "second")
    broken = version(workspace, first, scaled(float("nan")), "broken")
    move(workspace, first.ref)
    pool = Pool(workspace.folders, workspace.settings)
    keeper = DeploymentKeeper(workspace, pool)
    keeper.start()
    folder = deployment_folder(workspace.folders, USE_CASE)
    try:
        deployments.start_deployment(workspace, USE_CASE)
        until(lambda: folder.state().serving == first.ref, PATIENCE)
        canary(workspace, second, 30)
        until(lambda: folder.state().canary == second, PATIENCE)
        there = ask(workspace)
        meant = {key: second if to_canary(USE_CASE, second, key, 30) else first.ref for key in KEYS}
        assert there == meant
        assert 50 < Counter(there.values())[second] < 130

        os.kill(folder.state().pid, signal.SIGKILL)
        until(lambda: folder.state().canary is None, PATIENCE)
        until(lambda: folder.state().canary == second, PATIENCE)
        assert ask(workspace) == meant, "the same keys, by the same versions"

        canary(workspace, second, 60)
        until(lambda: (wanted := folder.wanted()) and wanted.percent == 60, PATIENCE)
        until(lambda: Counter(ask(workspace).values())[second] > 140, PATIENCE)
        assert all(model == second for key, model in ask(workspace).items() if meant[key] == second)

        move(workspace, second)
        until(lambda: folder.state().serving == second and folder.state().canary is None, PATIENCE)
        assert set(ask(workspace).values()) == {second}

        canary(workspace, broken, 50)
        until(lambda: aliases.read(workspace.database, USE_CASE, "canary") is None, PATIENCE)
        assert set(ask(workspace).values()) == {second}
    finally:
        keeper.stop()
        pool.close()
    row = audit.of_use_case(workspace.database, USE_CASE)[-1]
    assert (row.actor, row.action, row.before) == ("bake", "canary_end", broken)
    assert "NaN or infinite" in row.evidence
    assert audit.verify(workspace.database).problems == ()
