"""The HTTP interface over a real socket: what is answered, what is turned away, and with which words."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from speciate import unix_sockets
from speciate.sandbox.client import AnswerTimeout
from speciate.serving import deployments, request_metrics
from speciate.serving.api import Api, _withdraw
from speciate.serving.deployment import Deployment
from speciate.serving.deployment_folder import DeploymentFolder, Target, Wanted
from speciate.serving.replica import Overloaded, Process
from speciate.serving.request_metrics import Metrics
from speciate.settings import Serving
from tests.conftest import ManualClock
from tests.serving.fakes import POISON, FakeProcess, target
from tests.serving.test_deployment import until

TOKEN = "secret"


class Said(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: Any


class Server:
    def __init__(
        self,
        path: Path,
        clock: ManualClock,
        version: Target | None,
        options: Serving,
        launch: Callable[[Target], Process] | None = None,
        **how: Any,
    ) -> None:
        self.processes: list[FakeProcess] = []
        folder = DeploymentFolder(path / f"deployment-{time.monotonic_ns()}")
        folder.create()
        wanted, metrics = Wanted(use_case="reviews", options=options, target=version), Metrics("reviews")
        folder.want(wanted)

        def launch_fake(version: Target) -> FakeProcess:
            self.processes.append(FakeProcess(version, **how))
            return self.processes[-1]

        self.deployment = Deployment(folder, wanted, launch or launch_fake, metrics, clock)
        self.deployment.start()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        near = unix_sockets.listen(folder.socket, 5)
        self.path = str(folder.socket)
        config = uvicorn.Config(Api(self.deployment, metrics, TOKEN).app(), lifespan="off", log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener, near],))
        self._thread.start()
        if version and "failure" not in how:
            until(lambda: self.deployment.state.serving, 120)

    def ask(
        self, body: Any = None, path: str = "/predict", *, token: str = TOKEN, headers: Mapping[str, str] | None = None
    ) -> Said:
        """GET without a body, else POST: bytes as they are, all else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        about = {"authorization": f"Bearer {token}", "content-type": "application/json"} | dict(headers or {})
        connection.request("GET" if body is None else "POST", path, data, about)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        is_json = "json" in (response.getheader("content-type") or "")
        return Said(response.status, response.headers, json.loads(text) if is_json else text.decode())

    def form(self, *fields: tuple[str, str | None, bytes]) -> Said:
        """(name, file name or None, content)"""
        lines = []
        for name, file, content in fields:
            named = f'; filename="{file}"' if file else ""
            lines.append(f'--edge\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode())
            lines += [content, b"\r\n"]
        return self.ask(
            b"".join([*lines, b"--edge--\r\n"]), headers={"content-type": "multipart/form-data; boundary=edge"}
        )

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.deployment.end(5)


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path, clock: ManualClock) -> Iterator[Serve]:
    made: list[Server] = []

    def start(version: Target | None = None, *, empty: bool = False, how: Any = None, **options: Any) -> Server:
        version = None if empty else version or target(1)
        made.append(Server(tmp_path, clock, version, Serving(**options), **(how or {})))
        return made[-1]

    yield start
    for each in made:
        each.close()


def texts(*given: str) -> dict[str, Any]:
    return {"inputs": [{"text": text} for text in given]}


def test_answers_come_in_order_with_their_ids_and_name_their_version(serve: Serve) -> None:
    said = serve().ask({"inputs": [{"text": "a"}, {"row": {"text": "b"}, "id": "mine"}]})
    assert said.status == 200
    assert said.headers["x-model-version"] == said.body["model"] == "words@v1"
    assert [one["id"] for one in said.body["predictions"]] == ["0", "mine"]
    assert {one["output"] for one in said.body["predictions"]} == {"words@v1"}


@pytest.mark.parametrize("path", ["/predict", "/schema", "/metrics", "/v1/chat/completions", "/v1/models"])
def test_nothing_but_health_without_the_token(serve: Serve, path: str) -> None:
    server = serve()
    body = None if path in ("/schema", "/metrics", "/v1/models") else texts("a")
    assert server.ask(body, path, token="guess").status == 401
    assert server.ask(None, "/healthz", token="").body == {"serving": "words@v1", "loading": None}


def test_a_route_that_is_none_is_told_which_there_are(serve: Serve) -> None:
    server = serve()
    missed, got = server.ask(texts("a"), "/predictions"), server.ask(None, "/predict")
    assert (missed.status, got.status) == (404, 405)
    for said in (missed, got):
        assert "POST /predict" in said.body["error"]
        assert "GET /schema" in said.body["error"]


WRONG: list[tuple[Any, str, str]] = [
    (b"{", "", "not JSON"),
    (b'{"inputs": [{"row": {"text": NaN}}]}', "", "NaN is no number of JSON"),
    ([], "", "must be an object"),
    ({"inputs": []}, "inputs", "1 to 256"),
    ({"inputs": [{"text": "a"}] * 257}, "inputs", "has 257"),
    ({"input": [], "inputs": [{"text": "a"}]}, "input", "did you mean 'inputs'"),
    ({"inputs": ["a"]}, "inputs[0]", 'an object such as {"text"'),
    ({"inputs": [{"text": "a"}, {"txt": "b"}]}, "inputs[1].txt", "did you mean 'text'"),
    ({"inputs": [{"path": "/etc/passwd"}]}, "inputs[0].path", "no such field"),
    ({"inputs": [{"text": "a", "row": {}}]}, "inputs[0]", "exactly one of text or row or data"),
    ({"inputs": [{"text": 7}]}, "inputs[0].text", "must be a text"),
    ({"inputs": [{"row": {"body": "a"}}]}, "inputs[0].row.text", "column is missing"),
    ({"inputs": [{"text": "a", "id": "x" * 65}]}, "inputs[0].id", "at most 64"),
]


@pytest.mark.parametrize(("body", "where", "what"), WRONG)
def test_what_does_not_fit_the_schema_is_said_in_words_and_asked_of_nobody(
    serve: Serve, body: Any, where: str, what: str
) -> None:
    server = serve()
    said = server.ask(body)
    assert said.status == 422
    assert what in said.body["error"]
    assert where in [one["where"] for one in said.body.get("problems", [{"where": ""}])]
    assert said.body["schema"]["properties"]["inputs"]["maxItems"] == 256
    assert server.processes[0].batches == []


def test_a_body_beyond_the_limit_is_refused_at_its_header(serve: Serve) -> None:
    server = serve(body_mb=1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = (
            f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1073741824\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_a_body_of_unknown_length_is_refused_at_the_limit(serve: Serve) -> None:
    """As much as may be under way is taken in, never a gigabyte."""
    server, sent, chunk = serve(body_mb=1), 0, b"10000\r\n" + b" " * 65536 + b"\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        try:
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += 65536
        except OSError:
            pass
    assert sent < 64 << 20
    assert server.ask(texts("a")).status == 200


def test_a_form_beyond_the_limit_is_refused(serve: Serve) -> None:
    said = serve(body_mb=0.1).form(("file", "a.txt", b"x" * 200_000))
    assert said.status == 413
    assert "larger than 0.1 MB" in said.body["error"]


def test_files_of_a_form_are_inputs(serve: Serve) -> None:
    server = serve(target(1, modality="image", inputs=()))
    seen: list[Any] = []

    def answer(items: Any, seconds: float) -> list[dict[str, Any]]:
        seen.extend(items)
        return [{"id": "0", "output": "cat", "confidence": 0.9, "error": None} for _ in items]

    server.processes[0].answer = answer  # type: ignore[method-assign]
    said = server.form(("file", "a.png", b"\x89PNG"), ("file", "b.png", b"second"))
    assert (said.status, len(said.body["predictions"])) == (200, 2)
    assert [base64.b64decode(item["data"]) for item in seen] == [b"\x89PNG", b"second"]


def test_parts_of_a_form_are_one_input_of_a_model_of_mixed_rows(serve: Serve) -> None:
    server = serve(target(1, modality="multimodal", inputs=(), parts=("scan.image", "report.text")))
    seen: list[Any] = []

    def answer(items: Any, seconds: float) -> list[dict[str, Any]]:
        seen.extend(items)
        return [{"id": "0", "output": "cat", "confidence": 0.9, "error": None} for _ in items]

    server.processes[0].answer = answer  # type: ignore[method-assign]
    assert server.form(("scan", "a.png", b"\x89PNG"), ("report", None, b"all is well")).status == 200
    data = base64.b64encode(b"\x89PNG").decode()
    assert [item["parts"] for item in seen] == [{"scan.image": {"data": data}, "report.text": {"value": "all is well"}}]
    said = server.ask({"inputs": [{"parts": {"scna": {"data": data}}}]})
    assert (said.status, said.body["problems"][0]["where"]) == (422, "inputs[0].parts.scna")


def test_an_input_may_bring_the_parts_that_the_model_does_not_read(serve: Serve) -> None:
    server = serve(target(1, modality="multimodal", inputs=(), parts=("report.text",), ignored_parts=("scan.image",)))
    seen: list[Any] = []

    def answer(items: Any, seconds: float) -> list[dict[str, Any]]:
        seen.extend(items)
        return [{"id": "0", "output": "cat", "confidence": 0.9, "error": None} for _ in items]

    server.processes[0].answer = answer  # type: ignore[method-assign]
    assert server.form(("scan", "a.png", b"\x89PNG"), ("report", None, b"all is well")).status == 200
    assert [item["parts"] for item in seen] == [{"report.text": {"value": "all is well"}}]
    said = server.form(("scan", "a.png", b"\x89PNG"))
    assert (said.status, said.body["problems"][0]["where"]) == (422, "inputs[0].parts")


def test_a_form_that_is_none_is_said_to_be(serve: Serve) -> None:
    said = serve().ask(b"nothing", headers={"content-type": "multipart/form-data"})
    assert (said.status, "form cannot be read" in said.body["error"]) == (422, True)
    assert "text/csv" in serve().ask(b"a,b", headers={"content-type": "text/csv"}).body["error"]


def test_more_requests_than_the_rate_are_told_when_to_come_again(serve: Serve) -> None:
    server = serve(per_second=2)
    said = [server.ask(texts("a")) for _ in range(3)]
    assert [one.status for one in said] == [200, 200, 429]
    assert int(said[2].headers["retry-after"]) >= 1


def test_more_inputs_than_the_queue_holds_are_turned_away(serve: Serve) -> None:
    gate = threading.Event()
    server = serve(how={"gate": gate}, queue=1)
    statuses: list[int] = []
    clients = [threading.Thread(target=lambda: statuses.append(server.ask(texts("a")).status)) for _ in range(2)]
    clients[0].start()
    until(server.processes[0].busy.is_set)
    clients[1].start()
    until(lambda: server.deployment.current and server.deployment.current.open == 2)
    assert server.ask(texts("a")).status == 429
    gate.set()
    for client in clients:
        client.join(30)
    assert statuses == [200, 200]


def test_a_model_that_does_not_answer_in_time_is_a_504(serve: Serve) -> None:
    gate = threading.Event()
    said = serve(how={"gate": gate}, timeout_seconds=0.2).ask(texts("a"))
    gate.set()
    assert (said.status, said.headers["x-model-version"]) == (504, "words@v1")


def test_what_waited_too_long_is_the_deployments_overload_and_no_failure_of_the_version(serve: Serve) -> None:
    server = serve(timeout_seconds=1.5, max_batch=1, queue=3)
    process, let_go = server.processes[0], {text: threading.Event() for text in "abc"}
    asked: list[str] = []

    def answer(items: Any, seconds: float) -> list[dict[str, Any]]:
        asked.append(text := items[0]["text"])
        if not let_go[text].wait(seconds):
            raise AnswerTimeout
        return [{"id": "0", "output": "words@v1", "confidence": 0.9, "error": None}]

    process.answer = answer  # type: ignore[method-assign]
    said: dict[str, Said] = {}
    clients = {
        text: threading.Thread(target=lambda text=text: said.update({text: server.ask(texts(text))})) for text in "abc"
    }
    for place, text in enumerate("abc", 1):
        clients[text].start()
        until(lambda place=place: server.deployment.current and server.deployment.current.open == place)
    assert server.ask(texts("d", "e")).status == 429
    time.sleep(0.7)
    let_go["a"].set()  # half of the time of the others is over
    for text in "abc":
        clients[text].join(30)
    let_go["b"].set()  # too late for its client, but in the model's own time
    assert [said[text].status for text in "abc"] == [200, 504, 429]
    assert "the turn of this request did not come within 1.5 s" in said["c"].body["error"]
    assert (said["c"].headers["x-model-version"], said["c"].headers["retry-after"]) == ("words@v1", "2")
    counted = 'speciate_overloaded_total{model="words@v1",use_case="reviews"} 3.0'
    until(lambda: counted in server.ask(path="/metrics").body)
    assert asked == ["a", "b"], "who gave up before its turn is asked of nobody"
    server.deployment.end(5)
    [counters] = request_metrics.read_counters(server.deployment.folder.counters)
    assert (counters.requests, counters.failed.bad, counters.overloaded) == (1, 0, 3)
    assert deployments.deployment_view(server.deployment.folder).overloaded == 3


def test_an_input_that_is_given_up_was_late_unless_the_model_has_it_or_answered_it() -> None:
    waiting, asked, answered, dropped, failed = (Future[dict[str, Any]]() for _ in range(5))
    for future in (asked, answered, dropped, failed):
        assert future.set_running_or_notify_cancel()
    answered.set_result({"error": None})
    dropped.set_exception(Overloaded())
    failed.set_exception(TimeoutError())
    assert [_withdraw(each) for each in (waiting, asked, answered, dropped, failed)] == [
        True, False, False, True, False
    ]  # fmt: skip
    assert waiting.cancelled(), "its turn will not come"


def test_a_version_that_needs_longer_than_a_request_may_take_fails_though_its_client_left_before(serve: Serve) -> None:
    server = serve(how={"gate": threading.Event()}, timeout_seconds=0.2)
    assert server.ask(texts("a")).status == 504
    until(lambda: server.processes[0].ended)
    server.deployment.end(5)
    [counters] = request_metrics.read_counters(server.deployment.folder.counters)
    assert (counters.requests, counters.failed.bad, counters.overloaded) == (1, 1, 0)


def test_a_body_that_does_not_come_is_a_408(serve: Serve) -> None:
    server = serve(timeout_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 408")


def test_an_input_that_ends_the_process_is_named_and_the_others_are_answered(serve: Serve) -> None:
    said = serve().ask(texts("a", POISON, "b"))
    assert said.status == 200
    assert ["process ended" in (one["error"] or "") for one in said.body["predictions"]] == [False, True, False]
    assert serve().ask(texts(POISON)).status == 422


def test_without_a_version_it_says_why_and_to_come_again(serve: Serve) -> None:
    said = serve(empty=True).ask(texts("a"))
    assert (said.status, "No model is in production for reviews" in said.body["error"]) == (503, True)
    assert said.headers["retry-after"]
    server = serve(how={"failure": "Its files have changed."})
    until(lambda: server.deployment.state.refused)
    assert "Its files have changed" in server.ask(texts("a")).body["error"]
    assert server.ask(None, "/healthz").status == 503


def test_what_is_counted_is_what_prometheus_reads(serve: Serve) -> None:
    server = serve()
    server.ask(texts("a", "b"))
    server.ask({"inputs": 7})
    said = server.ask(None, "/metrics")
    assert said.headers["content-type"].startswith("text/plain; version=0.0.4")
    labels = 'model="words@v1",status="{}",use_case="reviews"'
    assert f"speciate_requests_total{{{labels.format(200)}}} 1.0" in said.body
    assert f"speciate_requests_total{{{labels.format(422)}}} 1.0" in said.body
    assert 'speciate_batch_inputs_sum{model="words@v1",use_case="reviews"} 2.0' in said.body
    assert 'speciate_serving{model="words@v1",use_case="reviews"} 1.0' in said.body
