"""Answers of a deployment over HTTP are in the log before they leave, and feedback on them is taken."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.jobs.pool import Pool
from speciate.predictions import maintenance, prediction_ids, reading
from speciate.predictions.entities import EntityHashes
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.serving import deployments
from speciate.serving.api import Api
from speciate.serving.deployment_folder import DeploymentFolder, deployment_folder
from speciate.serving.deployments import DeploymentKeeper
from speciate.settings import Log as Settings
from speciate.settings import Serving
from speciate.settings import Settings as AllSettings
from speciate.workspace.catalog_identity import Anchor, write_anchor
from speciate.workspace.clock import SystemClock
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.serving.fakes import POISON, target
from tests.serving.test_api import TOKEN, Said, Server, texts
from tests.serving.test_deployment import until
from tests.serving.world import USE_CASE, move, scaled, trained, version


@pytest.fixture
def logged(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, AnswerLog]]:
    """A deployment whose answers are logged."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write_anchor(tmp_path, Anchor("a" * 32))
    own = AnswerLog(LogFolder(tmp_path / "logged" / "reviews"), Settings(), SystemClock())
    before = Api.__init__

    def with_log(self: Api, deployment: Any, metrics: Any, token: str) -> None:
        before(self, deployment, metrics, token, own)

    monkeypatch.setattr(Api, "__init__", with_log)
    server = Server(tmp_path, clock, target(3), Serving())
    yield server, own
    server.close()
    own.close()


def test_each_answer_has_an_id_and_is_in_the_log(logged: tuple[Server, AnswerLog]) -> None:
    server, own = logged
    said = server.ask({"inputs": [{"text": "one", "id": "mine"}, {"text": POISON}]})
    first, second = said.body["predictions"]
    assert first["id"] == "mine"
    assert first["prediction"] != second["prediction"]
    parsed = prediction_ids.parse(first["prediction"])
    assert parsed is not None
    assert parsed.tag == prediction_ids.tag("reviews")
    found = reading.find(own.folder, first["prediction"])
    assert found is not None
    assert (found.model, found.generation, found.input) == ("words@v3", 3, {"text": "one"})
    assert (found.output, found.confidence, found.given, found.error) == ("words@v3", 0.9, "mine", False)
    spoiled = reading.find(own.folder, second["prediction"])
    assert spoiled is not None
    assert spoiled.error
    assert "speciate_answers_not_logged" in server.ask(path="/metrics").body


def test_feedback_is_recorded_or_refused_with_a_reason(logged: tuple[Server, AnswerLog]) -> None:
    server, own = logged
    [one] = server.ask(texts("one")).body["predictions"]
    said = server.ask({"prediction": one["prediction"], "label": "bad", "source": "human"}, "/feedback")
    assert said.status == 200
    assert said.body["recorded"]["model"] == "words@v3"
    assert said.body["recorded"]["standing"]["human"]["label"] == "bad"
    assert [given.label for given in reading.feedback(own.folder)] == ["bad"]
    card = server.deployment.folder.path.parent.parent / "models" / "words" / "v3" / "model.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"task": "text-classification", "labels": ["bad", "good"]}))
    odd = {"prediction": one["prediction"], "label": "goood", "source": "human"}
    said = server.ask(odd, "/feedback")
    assert (said.status, "did you mean 'good'" in said.body["error"]) == (422, True)
    assert server.ask(odd | {"new_class": True}, "/feedback").body["recorded"]["standing"]["human"]["label"] == "goood"
    several = {"feedback": [{"prediction": one["prediction"], "score": 1, "source": "system"},
                            {"prediction": "0", "score": 1, "source": "system"}]}  # fmt: skip
    said = server.ask(several, "/feedback")
    assert [each.get("status", 200) for each in said.body["recorded"]] == [200, 422]
    lost = prediction_ids.new_prediction_id("reviews", time.time())
    for body, status, told in [
        ({"prediction": lost, "label": "x", "source": "human"}, 404, "not in the log"),
        ({"prediction": one["prediction"], "source": "human"}, 422, "either label or score"),
        ({"prediction": one["prediction"], "label": "x", "source": "nobody"}, 422, "source"),
        ([], 422, "must be an object"),
        ({"feedback": []}, 422, "1 to 256"),
    ]:
        said = server.ask(body, "/feedback")
        assert (said.status, told in said.body["error"]) == (status, True), said.body
    assert server.ask(several, "/feedback", token="wrong" + TOKEN).status == 401


def entity_of(own: AnswerLog, said: Said) -> str:
    """The hash that is logged with the answers to a request, all of them."""
    found = reading.find_many(own.folder, [each["prediction"] for each in said.body["predictions"]])
    [entity] = {each.entity for each in found.values()}
    return entity


def test_who_asks_is_said_in_the_body_or_a_header_and_logged_as_a_hash(logged: tuple[Server, AnswerLog]) -> None:
    server, own = logged
    ada = EntityHashes(own.folder.workspace, "reviews").of("ada-löve")
    assert entity_of(own, server.ask(texts("one"))) == ""
    said = server.ask({**texts("one", "two"), "entity": "ada-löve"})
    assert entity_of(own, said) == ada
    in_header = {"x-request-entity": "ada-löve".encode().decode("latin-1")}
    assert entity_of(own, server.ask(texts("one"), headers=in_header)) == ada
    both = server.ask({**texts("one"), "entity": "grace"}, headers=in_header)
    assert entity_of(own, both) == ada, "the header counts, as it does for the key"
    form = {"content-type": "multipart/form-data; boundary=edge", **in_header}
    field = b'--edge\r\nContent-Disposition: form-data; name="text"\r\n\r\none\r\n--edge--\r\n'
    assert entity_of(own, server.ask(field, headers=form)) == ada
    assert "entity" in server.ask(path="/schema").body["properties"]
    own.close()
    there = b"".join(path.read_bytes() for path in own.folder.workspace.rglob("*") if path.is_file())
    assert "ada-löve".encode() not in there
    assert "ada-löve" not in str([said.body, both.body])


@pytest.mark.parametrize("entity", ["", "x" * 257, 17, None, ["ada"], "ada\nb", "ada\x00"])
def test_what_is_no_entity_is_refused_and_asked_of_nobody(logged: tuple[Server, AnswerLog], entity: Any) -> None:
    server, own = logged
    said = server.ask({**texts("one"), "entity": entity})
    assert said.status == 422
    [problem] = said.body["problems"]
    assert problem["where"] == "entity"
    assert "ntity" in problem["problem"]
    assert "ada" not in said.body["error"]
    assert reading.answers(own.folder).num_rows == 0


@pytest.mark.parametrize("header", [b"", b"x" * 257, b"\xff\xfe"])
def test_a_header_that_is_no_entity_is_refused(logged: tuple[Server, AnswerLog], header: bytes) -> None:
    server, _ = logged
    said = server.ask(texts("one"), headers={"x-request-entity": header.decode("latin-1")})
    assert (said.status, said.body["problems"][0]["where"]) == (422, "x-request-entity")


def test_a_disk_that_takes_nothing_stops_no_answer(
    logged: tuple[Server, AnswerLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, own = logged

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(own._writer), "_write", full)
    said = server.ask(texts("one"))
    assert said.status == 200
    assert said.body["predictions"][0]["output"] == "words@v3"
    assert said.body["predictions"][0]["prediction"] is None
    assert 'speciate_answers_not_logged{use_case="reviews"} 1.0' in server.ask(path="/metrics").body


def posted(folder: DeploymentFolder, body: dict[str, Any]) -> str:
    """Ask a real deployment over HTTP; the id of its only answer."""
    connection = http.client.HTTPConnection("127.0.0.1", folder.state().port, timeout=60)
    headers = {"authorization": f"Bearer {folder.token()}", "content-type": "application/json"}
    connection.request("POST", "/predict", json.dumps(body), headers)
    [only] = json.loads(connection.getresponse().read())["predictions"]
    connection.close()
    return str(only["prediction"])


class Client(threading.Thread):
    """Asks without a pause over every death of the deployment; what it was told, by id."""

    def __init__(self, port: int, token: str, stop: threading.Event) -> None:
        super().__init__()
        self._port, self._token, self._stop_asking = port, token, stop
        self.told: dict[str, str] = {}

    def run(self) -> None:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        while not self._stop_asking.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                while not self._stop_asking.is_set():
                    connection.request("POST", "/predict", json.dumps(texts("a good film", "a bad film")), headers)
                    response = connection.getresponse()
                    said = json.loads(response.read())
                    if response.status == 200:
                        self.told |= {each["prediction"]: said["model"] for each in said["predictions"]}
                    else:
                        time.sleep(0.05)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.05)
            finally:
                connection.close()


@pytest.mark.slow
def test_kills_of_deployment_and_keeper_under_traffic_leave_no_hole(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", settings=AllSettings(policy="auto"))
    first = trained(workspace)
    second = version(workspace, first, scaled(0.5), "second")
    move(workspace, first.ref)
    pool = Pool(workspace.folders, workspace.settings)
    keepers = [DeploymentKeeper(workspace, pool)]
    keepers[0].start()
    deployments.start_deployment(workspace, USE_CASE)
    folder = deployment_folder(workspace.folders, USE_CASE)
    until(lambda: folder.state().serving == first.ref, 240)
    stop = threading.Event()
    clients = [Client(folder.state().port, folder.token(), stop) for _ in range(6)]
    for client in clients:
        client.start()
    own = log_folder(workspace.folders, USE_CASE)

    def answered() -> int:
        return sum(len(client.told) for client in clients)

    for kill in range(4):
        before = answered()
        until(lambda before=before: answered() > before + 60, 240)  # type: ignore[misc]
        if kill == 1:
            move(workspace, second)
        if kill == 2:
            keepers[-1].stop()
            keepers.append(DeploymentKeeper(workspace, pool))
            keepers[-1].start()
        os.kill(folder.state().pid, signal.SIGKILL)
        maintenance.seal_segments(own)
    before = answered()
    until(lambda: answered() > before + 60, 240)
    stop.set()
    for client in clients:
        client.join()
    told = {id_: model for client in clients for id_, model in client.told.items()}
    rows = reading.answers(own, columns=["id", "model"])
    there = dict(zip(rows["id"].to_pylist(), rows["model"].to_pylist(), strict=True))
    assert len(there) == rows.num_rows
    assert {id_: there.get(id_) for id_ in told} == told, "every answer that arrived is logged, with who gave it"
    assert set(told.values()) == {first.ref, second}
    keepers[-1].stop()
    folder.stop()
    until(lambda: not folder.alive(), 60)
    pool.close()
    workspace.close()
