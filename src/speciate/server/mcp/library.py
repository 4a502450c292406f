"""Every name of the MCP library that it does not promise to keep, in one place; `tests/server/mcp/test_library.py` uses
each.

Here: serving a duplex stream in both protocol eras, the older era's resource subscriptions, the check of the Mcp-Name
header, and streamable HTTP behind a bearer token.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import anyio
from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.runner import serve_dual_era_loop
from mcp.server.session import ServerSession
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import ResourceUpdated, ServerEvent
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.inbound import decode_header_value
from mcp_types import (
    EmptyResult,
    ListToolsResult,
    PaginatedRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciate.governance.tokens import Token
from speciate.server.frames import LONGEST, Splitter, check
from speciate.server.mcp.subscriptions import Updates
from speciate.server.request_log import Networks, Request, RequestLog, client_address
from speciate.server.tool_api import Caller
from speciate.serving.http_bounds import BoundedBodies, TrimmedHeaders

MODERN_VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
HTTP_PATH = "/mcp"
_OF_PROXIES = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "forwarded", "via")
"""Headers by which a proxy says that it passes a request on."""
_NAMING = ("tools/call", "prompts/get")
_METHOD, _NAME = re.compile(r"[A-Za-z/_]{1,64}"), re.compile(r"[a-z0-9_]{1,64}")
_CALLER = "speciate.caller"
"""Key in the scope of a request: who came by a token of the team."""

_log = logging.getLogger(__name__)


class ByteStream(Protocol):
    """A connected socket: `anyio.abc.ByteStream` is one."""

    async def receive(self, max_bytes: int = 65536) -> bytes: ...
    async def send(self, item: bytes) -> None: ...


def caller_of(context: Context[Any, Any]) -> Caller:
    """Who called: said by the token of an HTTP request, by `serve_stream` for its connection, else by the server's
    lifespan."""
    return caller_in(context.request_context)


def caller_in(ctx: ServerRequestContext[Any, Any]) -> Caller:
    scope: Mapping[str, Any] = getattr(ctx.request, "scope", None) or {}
    caller = scope.get(_CALLER) or ctx.lifespan_context
    assert isinstance(caller, Caller)
    return caller


# Streams


async def serve_stream(server: MCPServer, stream: ByteStream, caller: Caller) -> None:
    """Serve one connection until its end, in whichever era its first request speaks. Frames are those of stdio."""
    low, writer = server._lowlevel_server, _Writer(stream)
    try:
        async with stdio_server(_Lines(stream, writer), writer) as (read, write):  # type: ignore[arg-type]  # as files
            await serve_dual_era_loop(
                low, read, write, lifespan_state=caller, init_options=low.create_initialization_options()
            )
    except* (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        _log.debug("%s went away", caller.client)


class _Lines:
    """The lines of a byte stream, as the library reads them from a file. A torn last line is dropped.

    The library answers nothing to a line that it cannot parse, so what is no message is answered here.
    """

    def __init__(self, stream: ByteStream, writer: _Writer) -> None:
        self._stream, self._writer = stream, writer

    async def __aiter__(self) -> AsyncIterator[str]:
        splitter = Splitter()
        while True:
            try:
                piece = await self._stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            for frame in splitter.feed(piece):
                answer = check(frame).answer
                if answer is None:
                    assert isinstance(frame, bytes)
                    yield frame.decode()
                elif answer:
                    await self._writer.write(answer.decode())


class _Writer:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._turn = anyio.Lock()  # the library writes from a task of its own

    async def write(self, text: str) -> None:
        async with self._turn:
            await self._stream.send(text.encode())

    async def flush(self) -> None:
        return None


# Subscriptions of the older era


def serve_subscribe(server: MCPServer, updates: Updates) -> None:
    """Answer `resources/subscribe` and `resources/unsubscribe`, and send what `updates` tells to those who asked."""
    subscribers = _Subscribers(updates)
    add_handler(server, "resources/subscribe", SubscribeRequestParams, subscribers.subscribe)
    add_handler(server, "resources/unsubscribe", UnsubscribeRequestParams, subscribers.unsubscribe)


def choose_listed_tools(server: MCPServer[Any], shown: Callable[[Caller, str], bool]) -> None:
    """`tools/list` by connection: those of the server's tools that its caller is shown, by their names."""

    async def list_tools(ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        tools = await server.list_tools()
        return ListToolsResult(tools=[tool for tool in tools if shown(caller_in(ctx), tool.name)])

    add_handler(server, "tools/list", PaginatedRequestParams, list_tools)


def add_handler(server: MCPServer, method: str, params: type[BaseModel], handler: Callable[..., Any]) -> None:
    """Answer a request instead of the library's server."""
    server._lowlevel_server.add_request_handler(method, params, handler)


class _Subscribers:
    """Which connection asked for which resources. A connection's entry goes when it closes."""

    def __init__(self, updates: Updates) -> None:
        self._updates = updates
        self._sending: set[asyncio.Task[None]] = set()

    async def subscribe(self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        connection = ctx.session._connection
        wanted = connection.state.get("subscribed")
        if wanted is None:
            wanted = connection.state["subscribed"] = set()
            unsubscribe = self._updates.subscribe(lambda event: self._send(ctx.session, wanted, event))
            connection.exit_stack.callback(unsubscribe)
        wanted.add(str(params.uri))
        return EmptyResult()

    async def unsubscribe(self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        ctx.session._connection.state.get("subscribed", set()).discard(str(params.uri))
        return EmptyResult()

    def _send(self, session: ServerSession, wanted: set[str], event: ServerEvent) -> None:
        if isinstance(event, ResourceUpdated) and event.uri in wanted:
            task = asyncio.get_running_loop().create_task(_notify(session, event.uri))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)


async def _notify(session: ServerSession, uri: str) -> None:
    try:
        await session.send_resource_updated(uri)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        _log.debug("a subscriber of %s went away", uri)


# HTTP


def named_in_header(ctx: ServerRequestContext[Any, Any], name: str) -> bool:
    """Whether a request's Mcp-Name header, over HTTP, says what its body says. The library checks core methods only."""
    headers: Mapping[str, str] = getattr(ctx.request, "headers", None) or {}
    header = headers.get("mcp-name")
    return header is None or decode_header_value(header) == name


class TeamDoor(NamedTuple):
    """How a team comes to the same transport, by way of its proxy."""

    address: str | None
    """Address of the team's proxy, as in `https://speciate.example.com`."""
    find: Callable[[str], Token | None]
    """The token in force that a text is."""
    log: RequestLog
    proxies: Networks = ()
    """From there alone X-Forwarded-For says who asks."""


def http_app(server: MCPServer, token: str, port: int, team: TeamDoor | None = None, **options: Any) -> Starlette:
    """Streamable HTTP at /mcp: in every request a bearer token, this machine's or one of the team's, and a Host that is
    local or the team's address. This machine's token does not count for what a proxy passed on.

    `options` go to the library (an event store, say).
    """
    hosts = [f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")]
    origins = [f"http://{host}" for host in hosts]
    if team and team.address:
        hosts, origins = [*hosts, _host_of(team)], [*origins, team.address]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
    app = server.streamable_http_app(
        streamable_http_path=HTTP_PATH, transport_security=security, max_request_body_size=LONGEST, **options
    )
    app.add_middleware(Bearer, token=token, team=team)
    app.add_middleware(BoundedBodies, most=LONGEST)
    app.add_middleware(TrimmedHeaders)  # the last one is the outermost
    return app


def _host_of(team: TeamDoor) -> str:
    return (team.address or "").removeprefix("https://")


class Bearer:
    """Lets nothing through without a token, on any path. What came by the network is noted."""

    def __init__(self, app: ASGIApp, token: str, team: TeamDoor | None) -> None:
        self._app, self._expected, self._team = app, token, team

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        passed_on = self._is_passed_on(headers)
        given = _bearer_of(headers)
        if given and not passed_on and hmac.compare_digest(given.encode(), self._expected.encode()):
            await self._app(scope, receive, send)
            return
        token = self._team.find(given) if given and self._team else None
        note = _Note(self._team, token, scope, receive, send) if self._team and (token or passed_on) else None
        if note:
            receive, send = note.heard, note.told
        if self._team and token:
            send = _while_in_force(self._team, given, send)
        if token is None:
            await PlainTextResponse(_who_may(passed_on), 401, headers={"WWW-Authenticate": "Bearer"})(
                scope, receive, send
            )
            return
        scope[_CALLER] = Caller(None, f"{token.name} (token) over MCP", "http", token=token)
        try:
            await self._app(scope, receive, send)
        finally:
            if note:
                note.write(None)

    def _is_passed_on(self, headers: Headers) -> bool:
        """Whether a proxy sent it: it says so, or it was sent to the team's address."""
        if any(name in headers for name in _OF_PROXIES):
            return True
        return self._team is not None and bool(self._team.address) and headers.get("host") == _host_of(self._team)


def _bearer_of(headers: Headers) -> str:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return given if kind == "Bearer" else ""


def _who_may(passed_on: bool) -> str:
    if passed_on:
        return (
            "Send the header 'Authorization: Bearer TOKEN' with a token of the team, which `speciate token create` "
            "issues. The one that `speciate serve --http` printed is for this machine alone."
        )
    return "Send the header 'Authorization: Bearer TOKEN' with the token that `speciate serve --http` printed."


class _Note:
    """One request for the log: written once its answer begins, for by then its body was read, or once it ended without
    one."""

    def __init__(self, team: TeamDoor, token: Token | None, scope: Scope, receive: Receive, send: Send) -> None:
        self._team, self._token, self._scope, self._receive, self._send = team, token, scope, receive, send
        self._peer = client_address(Headers(scope=scope).get("x-forwarded-for"), _peer_of(scope), team.proxies)
        self._pieces: list[bytes] | None = []

    async def heard(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and self._pieces is not None:
            self._pieces.append(message.get("body", b""))
        return message

    async def told(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.write(message["status"])
        await self._send(message)

    def write(self, status: int | None) -> None:
        """Into the log, if it is not there yet. `status` None: nothing was answered."""
        if self._pieces is None:
            return
        called = message_called(b"".join(self._pieces)) if self._token else ""
        self._pieces = None
        method, path = self._scope.get("method", ""), self._scope.get("path", "")
        self._team.log.add(Request(self._token, method, path, status, self._peer, called))


def _while_in_force(team: TeamDoor, secret: str, send: Send) -> Send:
    """A stream ends with its token: what would follow is not sent."""
    over = False

    async def told(message: Message) -> None:
        nonlocal over
        if over:
            return
        if message["type"] == "http.response.body" and team.find(secret) is None:
            over = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return told


def _peer_of(scope: Scope) -> str:
    return str((scope.get("client") or ("", 0))[0])


def message_called(body: bytes) -> str:
    """The method of a message and, of a tool or prompt, its name: `tools/call predict`. Empty where it is none.

    No arguments, and no address of a resource: either may name an example, which a purge could not take out again."""
    try:
        message = json.loads(body)
        method, name = str(message.get("method", "")), (message.get("params") or {}).get("name", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    if not _METHOD.fullmatch(method):
        return ""
    return f"{method} {name}" if method in _NAMING and _NAME.fullmatch(str(name)) else method
