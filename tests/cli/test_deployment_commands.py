"""`speciate deployment` as a user meets it: real daemons, real slots, and the one that dies under the other."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.serving.deployment_folder import DeploymentFolder
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.server.processes import Daemons
from tests.serving.test_deployment import until
from tests.serving.world import USE_CASE, move, trained

pytestmark = pytest.mark.slow

_CLI = [sys.executable, "-m", "speciate.cli"]


@pytest.fixture
def slot(daemons: Daemons) -> Iterator[DeploymentFolder]:
    """The folder of a slot that ends with the test."""
    folder = DeploymentFolder(daemons.workspace / "slots" / USE_CASE)
    yield folder
    if folder.path.exists():
        folder.stop()
        until(lambda: not folder.alive(), 60)


def run(daemons: Daemons, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_CLI, *arguments, "--workspace", str(daemons.workspace)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def ask(folder: DeploymentFolder, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", folder.state().port, timeout=60)
    headers = {"authorization": f"Bearer {folder.token()}", "content-type": "application/json"}
    connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text) if text.startswith("{") else text


def test_a_slot_is_started_listed_and_stopped_and_outlives_its_daemon(daemons: Daemons, slot: DeploymentFolder) -> None:
    assert run(daemons, "init").returncode == 0
    refused = run(daemons, "deployment", "start", USE_CASE)
    assert (refused.returncode, f"no use case '{USE_CASE}'" in refused.stderr) == (1, True)
    goal = {"metric": "accuracy", "target": 0.9}
    client = daemons.connect()
    client.call("define_use_case", name=USE_CASE, task="text-classification", objective=goal)
    started = run(daemons, "deployment", "start", USE_CASE, "--max-batch", "8")
    assert started.returncode == 0, started.stderr
    assert "nothing is in production yet" in started.stdout
    assert str(slot.path / "token") in started.stdout
    pid = slot.state().pid
    assert ask(slot, "/healthz")[0] == 503
    daemons.kill()
    assert ask(slot, "/healthz") == (503, {"serving": None, "loading": None})
    listed = run(daemons, "deployment", "list")  # starts the next daemon, which adopts it
    assert f"listens at http://127.0.0.1:{slot.state().port}" in listed.stdout
    assert slot.state().pid == pid
    again = run(daemons, "deployment", "start", USE_CASE, "--max-batch", "16", "--no-wait")
    assert (again.returncode, "runs with other options" in again.stderr) == (1, True)
    stopped = run(daemons, "deployment", "stop", USE_CASE)
    assert (stopped.returncode, "has ended" in stopped.stdout, slot.alive()) == (0, True, False)
    assert "stopped" in run(daemons, "slot", "list").stdout, "its former name"


@pytest.mark.slow
def test_clients_of_a_slot_notice_nothing_of_a_daemon_that_is_killed(daemons: Daemons, slot: DeploymentFolder) -> None:
    model = _in_production(daemons.workspace)
    assert f"serves {model} at" in run(daemons, "deployment", "start", USE_CASE).stdout
    client = daemons.connect()
    said = client.call("predict", use_case=USE_CASE, inputs=[{"text": "a good film"}])
    assert (said["model"], said["predictions"][0]["untrusted"]["output"]) == (model, "good")
    [shown] = client.call("get_status", use_case=USE_CASE)["use_cases"]
    assert (shown["slot"]["state"], shown["slot"]["serving"]) == ("serving", model)
    assert 'status="200"' in ask(slot, "/metrics")[1], "the tool asked the slot"

    statuses: list[int] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            statuses.append(ask(slot, "/predict", {"inputs": [{"text": "a bad film"}]})[0])

    asking = threading.Thread(target=keep_asking)
    asking.start()
    daemons.kill()
    time.sleep(2)
    again = daemons.connect()  # starts the next daemon
    assert again.call("get_status", use_case=USE_CASE)["use_cases"][0]["slot"]["serving"] == model
    stop.set()
    asking.join(60)
    assert statuses
    assert set(statuses) == {200}


def _in_production(root: Path) -> str:
    workspace = Workspace(root, settings=Settings(policy="auto"))
    model = trained(workspace).ref
    move(workspace, model)
    workspace.close()
    return model
