"""Crowds of connections at a real daemon with few descriptors: it lives on, and so do its clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from speciate.environment import socket_path
from speciate.errors import SpeciateError
from speciate.server.dial import dial
from speciate.server.protocol import HTTP, MCP
from speciate.server.service import MOST_CLIENTS
from tests.server.malformed import MALFORMED
from tests.server.processes import LEGACY, MODERN, Daemons
from tests.server.test_frames import hello

DESCRIPTORS = 1024
CROWD = 1200
SOON = 20.0
"""Seconds, on a busy machine."""


class Served(NamedTuple):
    daemons: Daemons
    pid: int
    port: int
    token: str


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """This process holds the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon with 1,024 descriptors, and no more to be had, that serves HTTP: one for all floods."""
    daemons = Daemons(tmp_path_factory.mktemp("floods") / "workspace")
    process = daemons.start(descriptors=DESCRIPTORS)
    dialled = dial(daemons.workspace, HTTP, port=0)
    yield Served(daemons, process.pid, dialled.answer["port"], dialled.answer["token"])
    dialled.line.close()
    daemons.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def post(served: Served, body: bytes, *, token: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    headers = {
        "authorization": f"Bearer {token or served.token}", "content-type": "application/json",
        "accept": "application/json, text/event-stream",
    }  # fmt: skip
    connection.request("POST", "/mcp", body, headers)
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": LEGACY}).encode()


def asks(connection: socket.socket) -> bool:
    """Whether a client of the unix socket is still answered."""
    connection.sendall(
        b'{"jsonrpc":"2.0","id":"still","method":"initialize","params":%s}\n' % json.dumps(LEGACY).encode()
    )
    return b'"still"' in connection.recv(65536)


def crowd(connect: Any) -> list[socket.socket]:
    """As many as are let in; some may be turned away while they connect."""
    found = []
    for _ in range(CROWD):
        with contextlib.suppress(OSError):
            found.append(connect())
    return found


# Each flood is longer than the descriptors that the daemon may have


@pytest.mark.parametrize("said", [b"", b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Le"], ids=["silent", "half a head"])
def test_a_crowd_on_the_http_port_hurts_nobody(served: Served, stack: contextlib.ExitStack, said: bytes) -> None:
    before = stack.enter_context(hello(served.daemons))

    def connect() -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", served.port), 5)
        connection.sendall(said)
        return connection

    flood = crowd(connect)
    assert len(flood) > DESCRIPTORS
    assert asks(before)
    assert post(served, INITIALIZE).status == 200  # in the middle of it
    assert descriptors(served.pid) < 400
    for each in flood:
        each.close()
    began = time.monotonic()
    assert post(served, INITIALIZE).status == 200
    assert served.daemons.control("status")["pid"] == served.pid
    assert time.monotonic() - began < SOON


def test_a_crowd_on_the_unix_socket_hurts_nobody(served: Served, stack: contextlib.ExitStack) -> None:
    before = stack.enter_context(hello(served.daemons))
    path = os.fspath(socket_path(served.daemons.workspace))

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(path)
        return connection

    flood = crowd(connect)
    assert len(flood) > DESCRIPTORS
    assert asks(before)
    assert served.daemons.control("status")["pid"] == served.pid
    assert descriptors(served.pid) < 400
    for each in flood:
        each.close()
    began = time.monotonic()
    assert asks(stack.enter_context(hello(served.daemons)))
    assert time.monotonic() - began < SOON


def test_clients_beyond_the_most_are_told_so(served: Served, stack: contextlib.ExitStack) -> None:
    clients = [
        stack.enter_context(hello(served.daemons)) for _ in range(MOST_CLIENTS - 1)
    ]  # the one that serves HTTP is one
    with pytest.raises(SpeciateError, match=f"{MOST_CLIENTS} clients"):
        dial(served.daemons.workspace, MCP)
    assert served.daemons.control("status")["clients"] == MOST_CLIENTS
    clients.pop().close()
    deadline = time.monotonic() + SOON
    while served.daemons.control("status")["clients"] == MOST_CLIENTS:
        assert time.monotonic() < deadline
    assert asks(stack.enter_context(hello(served.daemons)))


def test_a_crowd_that_waits_for_a_job_keeps_nobody_from_an_answer(
    served: Served, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    """Fifty clients with three waits each: more calls than threads for them."""
    deadline = time.monotonic() + SOON
    while served.daemons.control("status")["clients"] > 100:  # of another test
        assert time.monotonic() < deadline
    client = served.daemons.connect()
    job = client.call("start_work", key="long", seconds=600.0, trace=str(tmp_path))["job"]
    asked = {"name": "wait_for_job", "arguments": {"job": job, "timeout_seconds": 45}, "_meta": MODERN}
    for _ in range(50):
        waiting = stack.enter_context(hello(served.daemons))
        for number in range(3):
            call = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": asked}
            waiting.sendall(json.dumps(call).encode() + b"\n")
    began = time.monotonic()
    assert client.call("list_jobs")["jobs"][0]["job"] == job
    assert client.call("get_job", job=job)["state"] in {"queued", "starting", "running"}
    client.call("control_job", job=job, action="cancel")
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("token", [None, "wrong"], ids=["with a token", "without"])
def test_a_body_of_70_mb_is_answered(served: Served, token: str | None) -> None:
    answer = post(served, b"x" * (70 << 20), token=token)
    assert answer.status == 413
    assert b"67,108,864 bytes" in answer.body  # type: ignore[attr-defined]


def test_every_malformed_frame_over_http_is_answered(served: Served) -> None:
    for name, each in MALFORMED.items():
        answer = post(served, each.line)
        if each.code is None:
            assert answer.status < 500, name
        else:
            assert answer.status == 400, name
            told = json.loads(answer.body)["error"]  # type: ignore[attr-defined]
            assert told["code"] in {-32700, -32600, -32602}, name
    assert post(served, INITIALIZE).status == 200
