"""An HTTP server of ours under connections that hold on to it: real sockets, seconds made short."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from speciate.serving import http_bounds
from speciate.serving.http_bounds import BoundedBodies, TrimmedHeaders, bounded_protocol

MOST = 4
LIMIT = 1 << 20
PATIENCE = 60.0
SOON = 0.3


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """/size reads the body, /deaf answers without, /wait answers when the client is gone."""
    told = b"ok"
    if scope["path"] == "/size":
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        told = str(size).encode()
    elif scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
    headers = [(b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(params=["asyncio", "uvloop"])
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("HEAD_SECONDS", "_SILENT_SECONDS", "_PAUSE_SECONDS"):
        monkeypatch.setattr(http_bounds, name, SOON)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        BoundedBodies(app, LIMIT), lifespan="off", log_level="critical", loop=request.param,
        http=bounded_protocol(MOST), timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def connect(port: int) -> Iterator[Callable[[], socket.socket]]:
    made: list[socket.socket] = []

    def one() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", port), PATIENCE))
        return made[-1]

    yield one
    for each in made:
        each.close()


Connect = Callable[[], socket.socket]


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", *lines, "", ""]).encode()


def answer(connection: socket.socket) -> bytes:
    """The next answer; empty where the connection ended before one."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(4096)):
                return b""
            data += piece
        top, _, body = data.partition(b"\r\n\r\n")
        size = int(top.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += connection.recv(4096)
    except ConnectionError:
        return b""
    return top + b"\r\n\r\n" + body


def ends(connection: socket.socket) -> bool:
    """Whether the server ends it, within the test's patience."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def status(data: bytes) -> int:
    return int(data.split()[1]) if data else 0


def test_a_connection_that_says_nothing_is_ended(connect: Connect) -> None:
    assert ends(connect())


def test_a_head_that_comes_drop_by_drop_is_ended(connect: Connect) -> None:
    connection, began = connect(), time.monotonic()
    with contextlib.suppress(ConnectionError):
        for byte in head("/deaf", *["x: y"] * 1000):
            connection.sendall(bytes([byte]))
            time.sleep(SOON / 10)
    assert time.monotonic() - began < 100 * SOON  # all of it would take 600
    assert ends(connection)


def test_so_is_the_second_head_of_a_connection_whose_first_request_was_answered(connect: Connect) -> None:
    connection = connect()
    connection.sendall(head("/size", "content-length: 2") + b"ab")
    assert status(answer(connection)) == 200
    connection.sendall(b"POST /si")
    assert ends(connection)


def test_a_head_without_end_is_ended(connect: Connect) -> None:
    connection = connect()
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(100_000):
            connection.sendall(f"x-{number}: {'y' * 100}\r\n".encode())
        pytest.fail("ten megabytes of head were taken")
    assert ends(connection)


def test_a_body_that_stops_half_way_is_ended(connect: Connect) -> None:
    connection = connect()
    connection.sendall(head("/size", "content-length: 10") + b"abc")
    assert ends(connection)


def test_a_connection_that_is_kept_alive_serves_on(connect: Connect) -> None:
    connection = connect()
    for number in range(2):
        time.sleep(2 * SOON * number)
        connection.sendall(head("/size", f"content-length: {number}") + b"x" * number)
        assert answer(connection).endswith(str(number).encode())


def test_an_answer_that_takes_its_time_is_waited_for(connect: Connect) -> None:
    connection = connect()
    connection.sendall(head("/wait"))
    connection.settimeout(3 * SOON)
    with pytest.raises(TimeoutError):
        connection.recv(1)


def test_one_too_many_takes_the_place_of_one_without_a_request(connect: Connect) -> None:
    idle = [connect() for _ in range(MOST)]
    busy = connect()
    busy.sendall(head("/size", "content-length: 1") + b"x")
    assert status(answer(busy)) == 200
    assert ends(idle[0])


def test_where_each_has_a_request_one_too_many_is_told_so(connect: Connect) -> None:
    for _ in range(MOST):
        connect().sendall(head("/wait"))
    time.sleep(SOON)
    late = connect()
    late.sendall(head("/deaf"))
    assert b" 503 " in answer(late).split(b"\r\n")[0]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_that_is_too_large_is_answered_and_not_reset(connect: Connect, chunked: bool) -> None:
    connection = connect()
    length = "transfer-encoding: chunked" if chunked else f"content-length: {20 * LIMIT}"
    connection.sendall(head("/size", length))
    for _ in range(20):  # no one looks for an answer before all is sent
        connection.sendall(b"%x\r\n" % LIMIT * chunked + b"x" * LIMIT + b"\r\n" * chunked)
    connection.sendall(b"0\r\n\r\n" * chunked)
    told = answer(connection)
    assert status(told) == 413
    assert f"{LIMIT:,} bytes".encode() in told


def test_who_waits_until_the_body_is_wanted_is_told_at_once(connect: Connect) -> None:
    connection = connect()
    connection.sendall(head("/size", f"content-length: {2 * LIMIT}", "expect: 100-continue"))
    assert status(answer(connection)) == 413


def test_an_answer_that_does_not_need_the_body_reaches_its_sender(connect: Connect) -> None:
    connection = connect()
    connection.sendall(head("/deaf", f"content-length: {LIMIT}"))
    connection.sendall(b"x" * LIMIT)
    assert status(answer(connection)) == 200
    assert ends(connection)


def test_a_body_whose_rest_never_comes_is_not_waited_for(connect: Connect) -> None:
    connection = connect()
    connection.sendall(head("/deaf", "content-length: 9") + b"x")
    assert b"connection: close" in answer(connection).lower()
    assert ends(connection)


def test_bounds_need_no_request(connect: Connect) -> None:
    """The middleware leaves what is no HTTP request alone."""
    seen: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def unused(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(BoundedBodies(inner, 1)({"type": "lifespan"}, unused, unused))
    assert seen == ["lifespan"]


def test_white_space_around_a_headers_value_is_no_part_of_it() -> None:
    heard: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(scope)

    async def unused(*_: object) -> Any:
        raise AssertionError

    scope = {"type": "http", "headers": [(b"mcp-name", b" \t add examples\t "), (b"host", b"x")]}
    asyncio.run(TrimmedHeaders(inner)(scope, unused, unused))
    assert heard[0]["headers"] == [(b"mcp-name", b"add examples"), (b"host", b"x")]
    asyncio.run(TrimmedHeaders(inner)({"type": "lifespan"}, unused, unused))
    assert heard[1] == {"type": "lifespan"}
