"""The names that the library does not promise: each is used here, so that an upgrade that drops one is seen."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from starlette.applications import Starlette

from speciate.server.mcp.app import CORE, Server
from speciate.server.mcp.library import caller_of, http_app, serve_stream
from speciate.server.tool_api import Caller
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app

HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
TOKEN, PORT = "t0ken", 4321
CALLER = Caller(Path("/somewhere"), "a test", "stdio")


def call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


async def talk(server: MCPServer, pieces: list[bytes], more: int = 0, caller: Caller = CALLER) -> list[dict[str, Any]]:
    """What a server answers to these pieces of bytes, whose sender then closes; `more` beside those to requests."""
    ours, theirs = socket.socketpair()
    answers = b""
    async with (
        await anyio.abc.SocketStream.from_socket(ours) as client,
        await anyio.abc.SocketStream.from_socket(theirs) as stream,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(serve_stream, server, stream, caller)
        asked = b"".join(pieces).count(b'"id"') + more
        for piece in pieces:
            await client.send(piece)
        with anyio.fail_after(120):
            while answers.count(b"\n") < asked:
                answers += await client.receive()
        await client.aclose()
    return [json.loads(line) for line in answers.splitlines()]


def frames(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@pytest.fixture
def who() -> MCPServer:
    server: MCPServer = MCPServer("who", log_level="ERROR")

    @server.tool()
    def whoami(ctx: Context[Any, Any], word: str = "") -> str:
        """Says who calls."""
        return f"{caller_of(ctx).client} {word}"

    return server


def test_a_stream_is_served_in_frames_of_lines_however_they_are_cut(who: MCPServer) -> None:
    sent = frames(HELLO, READY, call(2, "whoami", word="ä" * 3000))
    pieces = [sent[start : start + 777] for start in range(0, len(sent), 777)]
    first, second = anyio.run(talk, who, pieces)
    assert first["result"]["capabilities"]["tools"] is not None
    assert second["result"]["content"][0]["text"] == "a test " + "ä" * 3000


def test_a_line_that_is_no_message_does_not_end_the_connection(who: MCPServer) -> None:
    answers = anyio.run(talk, who, [frames(HELLO), b"nonsense\n", frames(READY, call(2, "whoami"))], 1)
    assert -32700 in [each["error"]["code"] for each in answers if "error" in each]
    assert answers[-1]["result"]["content"][0]["text"] == "a test "


def test_a_connection_is_shown_the_tools_that_it_asked_for_and_may_call_all(workspace: Workspace) -> None:
    server = Server(make_app(workspace)).mcp
    asked = [frames(HELLO, READY, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, call(3, "list_jobs"))]
    shown = {}
    for tools in ("all", "core"):
        answers = {each["id"]: each for each in anyio.run(talk, server, asked, 0, CALLER._replace(tools=tools))}
        shown[tools] = {tool["name"] for tool in answers[2]["result"]["tools"]}
        assert not answers[3]["result"].get("isError")
    assert shown["core"] == CORE < shown["all"]


def request(app: Starlette, headers: dict[str, str]) -> httpx2.Response:
    async def main() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client,
        ):
            accepted = {"accept": "application/json, text/event-stream"}
            return await client.post("/mcp", json=HELLO, headers=accepted | headers)

    return anyio.run(main)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}", "host": "evil.example.com"}, 421),
        ({"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1:1"}, 421),
        ({"authorization": f"Bearer {TOKEN}", "origin": "https://evil.example.com"}, 403),
    ],
)
def test_http_is_for_holders_of_the_token_on_this_machine(
    workspace: Workspace, headers: dict[str, str], status: int
) -> None:
    app = http_app(Server(make_app(workspace)).mcp, TOKEN, PORT)
    assert request(app, headers).status_code == status
