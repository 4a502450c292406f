"""`predict` goes through the deployment where one serves, and does without where none can answer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.serving import deployments, predict
from speciate.serving.deployment_folder import DeploymentFolder, State, Wanted, deployment_folder
from speciate.settings import Serving
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.serving.fakes import target
from tests.serving.test_api import TOKEN, Server

ITEMS = [{"id": "a", "text": "fine"}, {"id": "b", "error": "It cannot be read."}, {"id": "c", "row": {"text": "dull"}}]


@pytest.fixture
def folder(workspace: Workspace) -> DeploymentFolder:
    """A deployment that claims to serve, at a port to be told."""
    folder = deployment_folder(workspace.folders, "reviews")
    folder.create()
    (folder.path / "token").write_text(TOKEN)
    folder.want(Wanted(use_case="reviews", options=Serving(), target=target(1)))
    folder.claim()
    return folder


@pytest.fixture
def server(tmp_path: Path, clock: ManualClock, folder: DeploymentFolder) -> Iterator[Server]:
    server = Server(tmp_path, clock, target(1), Serving())
    folder.tell(State(pid=1, port=server.port, socket=server.path, serving="words@v1"))
    yield server
    server.close()


def test_inputs_that_can_be_asked_are_and_all_come_back_in_order(
    workspace: Workspace, folder: DeploymentFolder, server: Server
) -> None:
    said = predict.ask_deployment(workspace.folders, "reviews", ITEMS)
    assert said
    assert said.model == "words@v1"
    assert [one["id"] for one in said.predictions] == ["a", "b", "c"]
    assert [one["error"] for one in said.predictions] == [None, "It cannot be read.", None]
    assert server.processes[0].batches == [2]


def test_a_deployment_is_told_who_asks_and_logs_what_the_daemon_would(
    workspace: Workspace, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    bodies = list[Any]()
    post = predict._post
    monkeypatch.setattr(predict, "_post", lambda *given: (bodies.append(json.loads(given[2])), post(*given))[1])
    assert predict.ask_deployment(workspace.folders, "reviews", ITEMS, "ada")
    assert predict.ask_deployment(workspace.folders, "reviews", ITEMS)
    assert [each.get("entity") for each in bodies] == ["ada", None]


def test_where_no_deployment_can_answer_nobody_does(workspace: Workspace, folder: DeploymentFolder) -> None:
    items: list[dict[str, Any]] = ITEMS[:1]
    assert predict.ask_deployment(workspace.folders, "other", items) is None
    folder.tell(State(pid=1, port=9, loading="words@v1"))
    assert predict.ask_deployment(workspace.folders, "reviews", items) is None
    folder.tell(State(pid=1, port=9, socket=str(folder.socket), serving="words@v1"))  # nobody listens there
    assert predict.ask_deployment(workspace.folders, "reviews", items) is None
    assert predict.ask_deployment(workspace.folders, "reviews", ITEMS[1:2]) is None


def test_who_took_the_port_is_told_nothing(workspace: Workspace, folder: DeploymentFolder, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        folder.tell(State(pid=1, port=thief.getsockname()[1], socket=server.path, serving="words@v1"))
        assert predict.ask_deployment(workspace.folders, "reviews", ITEMS)
        folder.tell(State(pid=1, port=thief.getsockname()[1], serving="words@v1"))
        assert predict.ask_deployment(workspace.folders, "reviews", ITEMS) is None
        thief.settimeout(0.2)
        with pytest.raises(TimeoutError):
            thief.accept()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_a_socket_of_another_user_is_told_nothing(
    workspace: Workspace, folder: DeploymentFolder, server: Server
) -> None:
    os.chown(server.path, 12345, -1)
    assert predict.ask_deployment(workspace.folders, "reviews", ITEMS) is None


def test_what_a_stranger_could_not_ask_is_left_to_the_service_pool(
    workspace: Workspace, folder: DeploymentFolder, server: Server
) -> None:
    assert predict.ask_deployment(workspace.folders, "reviews", [{"id": "a", "row": {"body": "fine"}}]) is None
    assert (
        predict.ask_deployment(workspace.folders, "reviews", [{"id": str(i), "text": "a"} for i in range(300)]) is None
    )


def test_a_view_says_in_a_word_how_a_deployment_is(workspace: Workspace, folder: DeploymentFolder) -> None:
    states = {
        "serving": State(pid=1, port=9, serving="words@v1"),
        "loading": State(pid=1, port=9, loading="words@v1"),
        "starting": State(pid=1, port=9),
    }
    for word, state in states.items():
        folder.tell(state)
        found = deployments.deployment_of(workspace.folders, "reviews")
        assert found
        assert (found.state, found.url) == (word, "http://127.0.0.1:9")
    assert json.loads((folder.path / "wanted.json").read_text())["use_case"] == "reviews"
