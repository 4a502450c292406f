"""`hf:org/name` from a real server on loopback that speaks the hub's routes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.sources.hugging_face import HubRef, parse_hub_ref
from speciate.datasets.sources.prepare import check_source_name, prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.environment import clean_environment
from speciate.errors import Code, SpeciateError
from tests.datasets.source_context import source_context

COMMIT, OLDER = "a" * 40, "b" * 40
FILES = {
    "README.md": b"# a card", ".gitattributes": b"", "load.py": b"raise SystemExit",
    "data/train-00000-of-00002.csv": b"text,label\na,1\n", "data/train-00001-of-00002.csv": b"text,label\nb,2\n",
    "data/test-00000-of-00001.csv": b"text,label\nc,1\n", "extra/notes.csv": b"x,y\n1,2\n",
}  # fmt: skip


class Hub(ThreadingHTTPServer):
    """Serves one dataset, `org/set`, at two commits, and a gated one; records its requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = dict(FILES), list[str]()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if path == "/api/datasets/org/closed":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/datasets/org/set"):
            return self._info(path.removeprefix("/api/datasets/org/set").removeprefix("/revision/"))
        if path.startswith("/datasets/org/set/resolve/"):
            commit, _, name = path.removeprefix("/datasets/org/set/resolve/").partition("/")
            data = self.server.files[name]
            tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
            return self._send(200, data, tag)
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815 - the server's name for it

    def _info(self, revision: str) -> None:
        commit = {"": COMMIT, "main": COMMIT, COMMIT: COMMIT, "v1": OLDER, OLDER: OLDER}.get(revision)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
        told: dict[str, Any] = {"id": "org/set", "sha": commit, "siblings": siblings}
        return self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's output is the test's."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub
        hub.shutdown()
        thread.join()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[SourceContext]:
    with source_context(tmp_path) as made:
        yield made


def test_the_data_of_the_newest_commit(server: Hub, context: SourceContext) -> None:
    found = prepare_source("hf:org/set/data", context)
    assert [(file.name, file.split) for file in found.files] == [
        ("test-00000-of-00001.csv", "test"),
        ("train-00000-of-00002.csv", "train"), ("train-00001-of-00002.csv", "train"),
    ]  # fmt: skip
    assert found.revision == COMMIT
    assert all(file.path.read_bytes() == FILES[f"data/{file.name}"] for file in found.files)
    assert all(file.path.is_relative_to(context.folders.cache) for file in found.files)
    whole = prepare_source("hf:org/set", context)
    assert whole.files[0].name == "data/test-00000-of-00001.csv"
    assert len(whole.files) == 4


def test_fetched_files_are_not_fetched_again_and_a_commit_needs_no_network(
    server: Hub, context: SourceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare_source("hf:org/set@v1", context).revision == OLDER
    server.asked.clear()
    assert prepare_source("hf:org/set@v1", context).revision == OLDER
    assert not [line for line in server.asked if line.startswith("GET /datasets")]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert len(prepare_source(f"hf:org/set@{OLDER}", context).files) == 4
    with pytest.raises(SpeciateError, match=r"could not be fetched from http://127\.0\.0\.1:9") as raised:
        prepare_source("hf:org/set@v1", context)
    assert raised.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("hf:org/nothing", Code.NOT_FOUND, "shows no dataset 'hf:org/nothing'"),
        ("hf:org/set@v9", Code.NOT_FOUND, "names no revision"),
        ("hf:org/closed", Code.REFUSED, "accepted its terms"),
        ("hf:org/set/nowhere", Code.NOT_FOUND, "holds no data files below 'nowhere'"),
    ],
)
def test_an_unknown_repository_is_one_clear_error(
    server: Hub, context: SourceContext, source: str, code: Code, message: str
) -> None:
    with pytest.raises(SpeciateError, match=message) as raised:
        prepare_source(source, context)
    assert raised.value.code is code
    assert raised.value.recovery


def test_a_folder_called_all_is_not_the_whole(server: Hub, context: SourceContext) -> None:
    server.files = {"all/a.csv": b"x,y\n1,2\n", "b.csv": b"x,y\n3,4\n", "../c.csv": b"x,y\n3,4\n"}
    assert [file.name for file in prepare_source(f"hf:org/set/all@{COMMIT}", context).files] == ["a.csv"]
    whole = prepare_source(f"hf:org/set@{COMMIT}", context)
    assert [file.name for file in whole.files] == ["all/a.csv", "b.csv"]
    server.asked.clear()
    again = prepare_source(f"hf:org/set@{COMMIT}", context)
    assert (again.excluded, server.asked) == (whole.excluded, [])
    assert [item.name for item in again.excluded] == ["../c.csv"]


def test_names_that_lead_out_are_excluded(server: Hub, context: SourceContext) -> None:
    server.files["../../out.csv"] = b"x,y\n1,2\n"
    found = prepare_source("hf:org/set", context)
    assert found.excluded == [("../../out.csv", "Its path leads out.")]
    assert not list(context.folders.root.rglob("out.csv"))


def test_refs() -> None:
    assert parse_hub_ref("hf:org/name") == HubRef("org/name", "", None)
    assert parse_hub_ref("hf:org/name@refs/pr/1") == HubRef("org/name", "", "refs/pr/1")
    assert parse_hub_ref("hf:org/name/a/b.csv@v1") == HubRef("org/name", "a/b.csv", "v1")
    for text in ("hf:name", "hf:", "hf:org/name@", "hf:org/name/../..", "hf:../../etc/../x"):
        with pytest.raises(SpeciateError, match="names no"):
            check_source_name(text)


def test_a_worker_gets_the_server_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
    assert clean_environment()["HF_ENDPOINT"] == "http://mirror"
