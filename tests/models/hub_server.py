"""A server on loopback that speaks the hub's API for models, for the hub's real client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves `repositories`: name -> {file: bytes}; those in `gated` only with `token`. Notes what it is asked.

    `busy`: how many requests are answered with 429 first, `broken`: with 500; `shut`: all with 403. `cut`: bytes after
    which the next body ends, once; with `shut_after` the server is shut from then on. `held`: bytes after which the
    next body waits for `released`, once. `lie`: what a body is in the place of what was listed.
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.gated, self.token = repositories, set[str](), "hf_secret_of_tests"
        self.card: dict[str, Any] = {"license": "apache-2.0", "base_model": "org/parent"}
        self.more: dict[str, dict[str, Any]] = {}
        self.busy, self.broken, self.shut = 0, 0, False
        self.cut: int | None = None
        self.shut_after = False
        self.held: int | None = None
        self.released = threading.Event()
        self.lie: bytes | None = None
        self.asked: list[str] = []
        self.sent: Counter[str] = Counter()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub, path = self.server, urlsplit(self.path).path
        hub.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if hub.busy > 0:
            hub.busy -= 1
            limits = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
            return self._send(429, b"slow down", limits)
        if hub.broken > 0:
            hub.broken -= 1
            return self._send(500, b"oops", {})
        if hub.shut:
            return self._send(403, b"not for you", {})
        if path == "/api/models":
            return self._list()
        name = next((name for name in hub.repositories if f"/{name}" in path), None)
        if name is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if name in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/"):
            return self._info(name, path.partition("/revision/")[2])
        return self._file(name, path.partition("/resolve/")[2].partition("/")[2])

    do_HEAD = do_GET  # noqa: N815 - the server's name for it

    def _list(self) -> None:
        """Two a page."""
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        names = sorted(self.server.repositories)
        headers = {"Content-Type": "application/json"}
        if start + 2 < len(names):
            headers["Link"] = f'<{self.server.endpoint}/api/models?cursor={start + 2}>; rel="next"'
        told = [self._told(name) for name in names[start : start + 2]]
        self._send(200, json.dumps(told).encode(), headers)

    def _info(self, name: str, revision: str) -> None:
        if revision not in ("", "main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return self._send(200, json.dumps(self._told(name)).encode(), {"Content-Type": "application/json"})

    def _told(self, name: str) -> dict[str, Any]:
        files = self.server.repositories[name]
        return {
            "id": name, "modelId": name, "sha": COMMIT, "pipeline_tag": "text-classification", "downloads": 7,
            "likes": 3,
            "gated": "auto" if name in self.server.gated else False, "private": False,
            "tags": ["license:apache-2.0"], "cardData": self.server.card, "lastModified": "2026-01-02T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z", "library_name": "transformers",
            "safetensors": {"parameters": {"F32": 12}, "total": 12},
            "siblings": [_sibling(file, data) for file, data in files.items()],
            **self.server.more.get(name, {}),
        }  # fmt: skip

    def _file(self, name: str, file: str) -> None:
        hub, data = self.server, self.server.repositories[name].get(file)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if hub.lie is not None and self.command == "GET":
            data = hub.lie
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return self._send(206 if begin else 200, data[begin:], headers, name=file)

    def _send(self, status: int, body: bytes, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for each, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(each, value)
        self.end_headers()
        if self.command != "GET":
            return
        hub = self.server
        if name and hub.cut is not None and len(body) > hub.cut:
            body, hub.cut, hub.shut = body[: hub.cut], None, hub.shut_after
            self.close_connection = True
        if name and hub.held is not None and len(body) > hub.held:
            body, rest, hub.held = body[: hub.held], body[hub.held :], None
            self._write(name, body)
            hub.released.wait(60)
            body = rest
        self._write(name, body)

    def _write(self, name: str, body: bytes) -> None:
        try:
            self.wfile.write(body)
        except OSError:  # who asked is dead
            self.close_connection = True
        else:
            self.server.sent[name] += len(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's output is the test's."""


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    told: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
    if name.endswith(".safetensors"):
        told["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return told


@contextlib.contextmanager
def serving(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with Hub(repositories) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
