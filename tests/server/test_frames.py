"""No frame wedges a connection: each is answered, or needs no answer, and the connection serves on."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speciate.environment import socket_path
from speciate.server.frames import LONGEST, Splitter, TooLong, check
from speciate.server.mcp.app import Server
from speciate.server.mcp.library import serve_stream
from speciate.server.protocol import MCP, encode
from speciate.server.tool_api import Caller
from speciate.workspace.workspace import Workspace
from tests.drawn import drawn
from tests.server.apps import make_app
from tests.server.malformed import MALFORMED, REQUEST, Malformed
from tests.server.processes import Daemons, Stdio

PING = {"jsonrpc": "2.0", "method": "ping"}


def ping(identifier: str) -> bytes:
    return json.dumps(PING | {"id": identifier}).encode() + b"\n"


# The check alone


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
def test_a_frame_that_is_no_message_is_answered_with_its_id(malformed: Malformed) -> None:
    checked = check(malformed.line + b"\n")
    if malformed.code is None:
        assert not checked.answer
        return
    assert checked.answer
    answer = json.loads(checked.answer)
    assert (answer["error"]["code"], answer["id"]) == (malformed.code, malformed.id)
    assert answer["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":"","method":"x"}',
        b'{"jsonrpc":"2.0","id":-1,"method":"x","params":null}',
        b'{"jsonrpc":"2.0","id":%d,"method":"x","params":{}}' % 10**4000,
        b'{"jsonrpc":"2.0","id":0,"method":"","params":{"_meta":{},"a":"\\ud83d\\ude00"}}\r',
        b' \t{"jsonrpc":"2.0","method":"notifications/x"}',
    ],
)
def test_a_message_goes_on(line: bytes) -> None:
    assert check(line + b"\n").answer is None


@given(st.lists(st.binary(max_size=30)), st.integers(1, 9))
def test_frames_do_not_depend_on_how_the_stream_is_cut(parts: list[bytes], step: int) -> None:
    stream = b"\n".join(parts)
    splitter = Splitter(longest=20)
    found = [frame for at in range(0, len(stream), step) for frame in splitter.feed(stream[at : at + step])]
    assert len(found) == stream.count(b"\n")
    for frame, line in zip(found, stream.split(b"\n"), strict=False):
        assert isinstance(frame, TooLong) == (len(line) + 1 > 20)
        assert isinstance(frame, TooLong) or frame == line + b"\n"


@pytest.mark.parametrize(
    ("frame", "identifier"),
    [
        (TooLong(b'{"jsonrpc":"2.0","id":5,"params":{"id":9,"a":"', b'aaa","id":7}}\n'), 5),
        (TooLong(b'{"params":{"id":9,"a":"', b'aaa"},"id":"x" }\r\n'), "x"),
        (TooLong(b'{"params":{"id":9,"a":"', b'aaa"},"id":{"a":1}}\n'), None),
        (TooLong(b"\xff" * 100, b"\xff" * 100), None),
    ],
)
def test_a_frame_that_is_too_long_is_answered_by_its_id_where_that_stands_at_an_end(
    frame: TooLong, identifier: str | int | None
) -> None:
    answer = json.loads(check(frame).answer or b"")
    assert (answer["id"], answer["error"]["code"]) == (identifier, REQUEST)
    assert f"{LONGEST:,}" in answer["error"]["message"]


# Straight at the server


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_METHODS = st.sampled_from(
    ["tools/list", "tools/call", "initialize", "ping", "resources/subscribe", "tasks/update", "x"]
)
_MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | _JSON,
        "id": st.integers() | st.text(max_size=5) | _JSON,
        "method": _METHODS | _JSON,
        "params": st.fixed_dictionaries(
            {},
            optional={
                "_meta": st.dictionaries(
                    st.sampled_from(["progressToken", "io.modelcontextprotocol/protocolVersion"]), _JSON
                ),
                "name": st.just("list_jobs") | _JSON,
                "arguments": _JSON,
                "uri": _JSON,
                "protocolVersion": _JSON,
                "requestId": _JSON,
            },
        )
        | _JSON,
        "result": _JSON,
        "error": _JSON,
    },
)


def _line(message: Any) -> bytes:
    return json.dumps(message).encode()


_LINES = (
    st.binary(max_size=60) | _MESSAGES.map(_line) | st.tuples(_MESSAGES.map(_line), st.binary(max_size=3)).map(b"".join)
)


@pytest.fixture
def server(workspace: Workspace) -> Server:
    return Server(make_app(workspace))


def talk(server: Server, lines: list[bytes]) -> list[dict[str, Any]]:
    """What the server says until it has answered every request among these lines."""
    messages = [checked.message for line in lines if (checked := check(line)).answer is None]
    owed = [json.dumps(each["id"]) for each in messages if "method" in each and "id" in each]

    async def main() -> list[dict[str, Any]]:
        ours, theirs = socket.socketpair()
        answers: list[dict[str, Any]] = []
        async with (
            await anyio.abc.SocketStream.from_socket(ours) as client,
            await anyio.abc.SocketStream.from_socket(theirs) as stream,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(serve_stream, server.mcp, stream, Caller(Path("/"), "a test", "stdio"))
            tasks.start_soon(client.send, b"".join(lines))
            rest = b""
            with anyio.fail_after(120):
                while owed:
                    *whole, rest = (rest + await client.receive()).split(b"\n")
                    for answer in map(json.loads, whole):
                        answers.append(answer)
                        if "method" not in answer and (key := json.dumps(answer["id"])) in owed:
                            owed.remove(key)
            tasks.cancel_scope.cancel()
        return answers

    return anyio.run(main)


def test_every_malformed_frame_on_the_daemons_socket_is_answered(server: Server) -> None:
    waited = [each for each in MALFORMED.values() if each.code]
    answers = talk(server, [*(each.line + b"\n" for each in MALFORMED.values()), ping("end")])
    errors = [(answer["error"]["code"], answer["id"]) for answer in answers if "error" in answer]
    assert sorted(map(repr, errors)) == sorted(repr((each.code, each.id)) for each in waited)
    assert answers[-1]["id"] == "end"


@settings(max_examples=drawn(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_LINES.filter(lambda line: b"\n" not in line), max_size=6))
@example([b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"_meta": {"progressToken": []}}}'])
def test_after_any_frames_a_connection_answers(server: Server, lines: list[bytes]) -> None:
    answers = talk(server, [*(line + b"\n" for line in lines), ping("the end")])
    assert any(answer.get("id") == "the end" for answer in answers)


# Through the shim


def answers_of(shell: Stdio, last: str) -> list[dict[str, Any]]:
    found = [shell.next()]
    while found[-1].get("id") != last:
        found.append(shell.next())
    return found


@pytest.fixture
def patient() -> Iterator[Callable[[Stdio], None]]:
    """Ends a shim that does not answer, so that a test fails instead of hanging."""
    timers: list[threading.Timer] = []

    def watch(shell: Stdio) -> None:
        timers.append(threading.Timer(60, shell.process.kill))
        timers[-1].start()

    yield watch
    for timer in timers:
        timer.cancel()


def write(shell: Stdio, line: bytes) -> None:
    assert shell.process.stdin
    shell.process.stdin.write(line)
    shell.process.stdin.flush()


def test_every_malformed_frame_through_the_shim_is_answered_and_the_next_daemon_serves_on(
    daemons: Daemons, client: Callable[[], Stdio], patient: Callable[[Stdio], None]
) -> None:
    shell = client()
    patient(shell)
    shell.initialize()
    waited = [each for each in MALFORMED.values() if each.code]
    for each in MALFORMED.values():
        write(shell, each.line + b"\n")
    write(shell, ping("one"))
    found = answers_of(shell, "one")
    errors = [(answer["error"]["code"], answer["id"]) for answer in found if "error" in answer]
    assert sorted(map(repr, errors)) == sorted(repr((each.code, each.id)) for each in waited)
    daemons.kill()
    assert shell.call("list_jobs")["structuredContent"] == {"jobs": []}
    assert shell.close() == 0


def test_a_request_with_the_id_of_an_open_one_is_refused_and_the_first_is_answered(
    daemons: Daemons, client: Callable[[], Stdio], patient: Callable[[Stdio], None], tmp_path: Path
) -> None:
    shell = client()
    patient(shell)
    shell.initialize()
    (trace := tmp_path / "trace").mkdir()
    job = shell.call("start_work", {"key": "k", "seconds": 1, "trace": str(trace)})["structuredContent"]["job"]
    waiting = shell.begin("wait_for_job", {"job": job, "timeout_seconds": 45})
    write(shell, json.dumps(PING | {"id": waiting}).encode() + b"\n")
    refused = shell.answer(waiting)
    assert refused["error"]["code"] == REQUEST
    assert shell.answer(waiting)["result"]["structuredContent"]["state"] == "succeeded"


def test_a_frame_of_400_mb_is_refused_and_keeps_no_memory(
    daemons: Daemons, client: Callable[[], Stdio], patient: Callable[[Stdio], None]
) -> None:
    shell = client()
    patient(shell)
    shell.initialize()
    daemon = daemons.pid()
    direct = hello(daemons)
    before = resident(shell.process.pid), resident(daemon)
    for send in (lambda part: write(shell, part), direct.sendall):
        send(b'{"jsonrpc":"2.0","id":"huge","method":"tools/call","params":{"name":"predict","arguments":{"model":"')
        for _ in range(400):
            send(b"x" * (1 << 20))
        send(b'"}}}\n')
    [refused] = answers_of(shell, "huge")
    told = json.loads(direct.makefile("rb").readline())
    assert refused["error"] == told["error"]
    assert refused["error"]["code"] == REQUEST
    assert told["id"] == "huge"
    peak = resident(shell.process.pid, "VmHWM") - before[0], resident(daemon, "VmHWM") - before[1]
    assert max(peak) < 220 << 20, peak
    after = resident(shell.process.pid) - before[0], resident(daemon) - before[1]
    assert max(after) < 40 << 20, after
    assert shell.call("list_jobs")["structuredContent"] == {"jobs": []}
    direct.close()


def hello(daemons: Daemons) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(socket_path(daemons.workspace)))
    connection.sendall(encode({"protocol": MCP, "version": "0.0.1", "folder": "/", "client": "test"}))
    answer = b""
    while not answer.endswith(b"\n"):
        answer += connection.recv(1)
    assert json.loads(answer)["ok"]
    return connection


def resident(pid: int, name: str = "VmRSS") -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024
